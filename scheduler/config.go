package scheduler

// Config is what a scheduler process works by. Every value is possible: the file itself is
// checked by [Load].
type Config struct {
	Schedule string `desc:"file of cron entries (YAML); default: health every minute, freshness every ten, expiry hourly, pruning daily, a drill weekly"`
}

// Validate implements the rule that every Config has one.
func (Config) Validate() error { return nil }
