package release

import (
	"fmt"
	"math"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/alphanode/stoker/tasks"
)

// Size is a number of bytes, written like 64MiB or 2GiB; 0 needs no unit.
type Size int64

// Decode implements envconfig.Decoder.
func (s *Size) Decode(text string) error {
	n, err := humanize.ParseBytes(text)
	if err != nil || n > math.MaxInt64 {
		return fmt.Errorf("%w: size %q: use a number with a unit, such as 64MiB or 2GiB", tasks.ErrInvalid, text)
	}
	*s = Size(n)
	return nil
}

// Config is the retention rule as it is set.
type Config struct {
	RetainStandby  int           `split_words:"true" default:"1" desc:"earlier releases kept warm in Redis: rolling back to one is a flip"`
	RetainArchived int           `split_words:"true" default:"5" desc:"earlier releases kept as snapshots"`
	RetainMinAge   time.Duration `split_words:"true" default:"1h" desc:"a release is archived or expired by the rule no sooner than this after its last move"`
	RetainMemory   Size          `split_words:"true" default:"0" desc:"memory of the cache Redis that the releases on standby may take together, such as 2GiB; beyond it the oldest are archived, never the newest; 0: any"`
}

// Rule returns the rule.
func (c Config) Rule() Rule {
	return Rule{Standby: c.RetainStandby, Archived: c.RetainArchived, MinAge: c.RetainMinAge, Memory: int64(c.RetainMemory)}
}

// Validate reports numbers that no rule can have.
func (c Config) Validate() error { return c.Rule().Validate() }
