package worker

import (
	"errors"
	"fmt"
	"time"

	"github.com/alphanode/stoker/tasks"
)

// Config is how a worker process works.
type Config struct {
	Lanes                 []tasks.Lane  `split_words:"true" default:"invalidate,bulk,release,warm,refresh,upkeep,health,notify" desc:"lanes that this worker serves, separated by commas"`
	InvalidateConcurrency int           `split_words:"true" default:"8" desc:"tasks of the invalidate lane at once"`
	BulkConcurrency       int           `split_words:"true" default:"2" desc:"invalidations of prefixes and very large tags at once"`
	ReleaseConcurrency    int           `split_words:"true" default:"1" desc:"switches and rollbacks at once"`
	WarmConcurrency       int           `split_words:"true" default:"4" desc:"warm batches at once"`
	RefreshConcurrency    int           `split_words:"true" default:"4" desc:"releases whose invalidated entries are reloaded at once"`
	UpkeepConcurrency     int           `split_words:"true" default:"1" desc:"snapshots, expiries and prunings at once"`
	HealthConcurrency     int           `split_words:"true" default:"1" desc:"checks and measurements at once"`
	NotifyConcurrency     int           `split_words:"true" default:"2" desc:"messages to people sent at once"`
	GracePeriod           time.Duration `split_words:"true" default:"25s" desc:"how long running tasks may take to stop, at most; below the supervisor's own limit"`

	AllowQueueEvictionAndLoseInvalidations bool `split_words:"true" default:"false" desc:"start although the queue Redis may evict, which can lose invalidations and tasks without a trace"`
}

// Limits of a configuration.
const (
	maxConcurrency = 1000
	minGrace       = time.Second
	maxGrace       = time.Hour
)

// Validate reports every setting that is out of range.
func (c Config) Validate() error {
	var errs []error
	if len(c.Lanes) == 0 {
		errs = append(errs, fmt.Errorf("%w: no lanes to serve: use some of %v (STOKER_LANES)", tasks.ErrInvalid, tasks.Lanes()))
	}
	for _, l := range c.Lanes {
		if _, err := tasks.ParseLane(string(l)); err != nil {
			errs = append(errs, fmt.Errorf("%w (STOKER_LANES)", err))
		}
	}
	for _, s := range lanes {
		if n := s.concurrency(c); n < 1 || n > maxConcurrency {
			errs = append(errs, fmt.Errorf("%w: concurrency %d of lane %s: use 1 to %d", tasks.ErrInvalid, n, s.lane, maxConcurrency))
		}
	}
	if c.GracePeriod < minGrace || c.GracePeriod > maxGrace {
		errs = append(errs, fmt.Errorf("%w: grace period %v: use %v to %v (STOKER_GRACE_PERIOD)", tasks.ErrInvalid, c.GracePeriod, minGrace, maxGrace))
	}
	return errors.Join(errs...)
}

// lane is what distinguishes one lane's server from another's.
type lane struct {
	lane        tasks.Lane
	poll        time.Duration // how often an idle queue is looked at
	concurrency func(Config) int
	// capped lanes count their tasks' starts. Invalidations are not counted: the rounds would
	// apply them all the same, and two round trips are half of what one takes.
	capped bool
	// urgent lanes do what others wait for, so their work does not make way for what waits.
	urgent bool
	// yields: running tasks stop when their lane is paused, and go on from their cursors after.
	yields bool
}

var lanes = []lane{
	// Nudges and rounds are the fast path of these two, so they need not be polled often.
	{tasks.LaneInvalidate, 250 * time.Millisecond, func(c Config) int { return c.InvalidateConcurrency }, false, true, false},
	{tasks.LaneBulk, 250 * time.Millisecond, func(c Config) int { return c.BulkConcurrency }, false, true, false},
	{tasks.LaneRelease, 100 * time.Millisecond, func(c Config) int { return c.ReleaseConcurrency }, true, true, false},
	{tasks.LaneWarm, 200 * time.Millisecond, func(c Config) int { return c.WarmConcurrency }, true, false, true},
	{tasks.LaneRefresh, 250 * time.Millisecond, func(c Config) int { return c.RefreshConcurrency }, true, false, true},
	{tasks.LaneUpkeep, 500 * time.Millisecond, func(c Config) int { return c.UpkeepConcurrency }, true, false, false},
	{tasks.LaneHealth, 500 * time.Millisecond, func(c Config) int { return c.HealthConcurrency }, true, false, false},
	{tasks.LaneNotify, 500 * time.Millisecond, func(c Config) int { return c.NotifyConcurrency }, true, false, false},
}
