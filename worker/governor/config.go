package governor

import (
	"errors"
	"fmt"

	"github.com/alphanode/stoker/tasks"
)

// Config is how hard work on whole namespaces may go, and how full it may make the cache Redis.
type Config struct {
	Pace           tasks.Pace `default:"normal" desc:"how much of the cache Redis's time work on whole namespaces may take, in each worker process: gentle (a tenth), normal (a third) or full; slower where visitors or invalidations would wait; --pace says so for one task"`
	MemoryHeadroom float64    `split_words:"true" default:"0.1" desc:"share of the cache Redis's maxmemory that warms, copies and restores leave free, 0 to 0.9, so that nothing served is evicted for them; 0: they do not look"`
}

// Validate reports every setting that could not work.
func (c Config) Validate() error {
	var errs []error
	if err := c.Pace.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("%w (STOKER_PACE)", err))
	}
	if !(c.MemoryHeadroom >= 0 && c.MemoryHeadroom <= 0.9) {
		errs = append(errs, fmt.Errorf("%w: STOKER_MEMORY_HEADROOM %v: use a share from 0 to 0.9", tasks.ErrInvalid, c.MemoryHeadroom))
	}
	return errors.Join(errs...)
}

// Headroom is the share of the memory that stays free.
func (c Config) Headroom() Headroom { return Headroom(c.MemoryHeadroom) }
