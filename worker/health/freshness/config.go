package freshness

import (
	"fmt"

	"github.com/alphanode/stoker/tasks"
)

// Config says how closely to look.
type Config struct {
	FreshnessSample int `split_words:"true" default:"50" desc:"entries of each live release that one look of the freshness monitor compares with the origin, 1 to 1000"`
	FreshnessKeep   int `split_words:"true" default:"500" desc:"freshness reports kept: two days of them at one in ten minutes and some to confirm"`
}

// Validate implements the limits of the settings.
func (c Config) Validate() error {
	switch {
	case c.FreshnessSample < 1 || c.FreshnessSample > 1000:
		return fmt.Errorf("%w: STOKER_FRESHNESS_SAMPLE %d: use 1 to 1000", tasks.ErrInvalid, c.FreshnessSample)
	case c.FreshnessKeep < 1 || c.FreshnessKeep > 10_000:
		return fmt.Errorf("%w: STOKER_FRESHNESS_KEEP %d: use 1 to 10000", tasks.ErrInvalid, c.FreshnessKeep)
	}
	return nil
}
