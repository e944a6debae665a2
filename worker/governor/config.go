package governor

// Config is how hard work on whole namespaces may go.
type Config struct {
	Pace Pace `default:"normal" desc:"how much of the cache Redis's time work on whole namespaces may take: gentle (a tenth), normal (a third) or full"`
}

// Validate reports a pace that there is not.
func (c Config) Validate() error { return c.Pace.Validate() }
