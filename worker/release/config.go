package release

import "time"

// Config is the retention rule as it is set.
type Config struct {
	RetainStandby  int           `split_words:"true" default:"1" desc:"earlier releases kept warm in Redis: rolling back to one is a flip"`
	RetainArchived int           `split_words:"true" default:"5" desc:"earlier releases kept as snapshots"`
	RetainMinAge   time.Duration `split_words:"true" default:"1h" desc:"a release is archived or expired by the rule no sooner than this after its last move"`
}

// Rule returns the rule.
func (c Config) Rule() Rule {
	return Rule{Standby: c.RetainStandby, Archived: c.RetainArchived, MinAge: c.RetainMinAge}
}

// Validate reports numbers that no rule can have.
func (c Config) Validate() error { return c.Rule().Validate() }
