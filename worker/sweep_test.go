package worker

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
)

// sweepFunc is a Sweeper.
type sweepFunc func(olderThan time.Duration) (int, error)

func (f sweepFunc) Sweep(_ context.Context, olderThan time.Duration) (int, error) {
	return f(olderThan)
}

type reapFunc func() (int, error)

func (f reapFunc) Reap(context.Context) (int, error) { return f() }

// TestSweep: every worker sweeps what nobody applied, at once when it is nudged, and neither an
// error nor a panic ends that.
func TestSweep(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	swept, reaped := make(chan time.Duration, 1000), make(chan struct{}, 1000)
	calls := 0
	w := r.start(nil, func(c *Config, d *Deps) {
		c.Lanes = []tasks.Lane{tasks.LaneInvalidate}
		d.Handlers = nil
		d.Sweeper = sweepFunc(func(olderThan time.Duration) (int, error) {
			calls++
			switch calls {
			case 1:
				return 0, errors.New("cache Redis is away")
			case 2:
				panic("out of coal")
			}
			swept <- olderThan
			return 1, nil
		})
		d.Reaper = reapFunc(func() (int, error) { reaped <- struct{}{}; return 0, nil })
	})
	receive(t, "a reap", reaped)
	if got := receive(t, "a sweep", swept); got != sweepAfter {
		t.Errorf("swept what is older than %v, want %v", got, sweepAfter)
	}
	until(t, "the nudge's subscriber", func() bool {
		return r.redis.Client.Publish(context.Background(), w.keys.Nudge(), "1").Val() > 0
	})
	for receive(t, "a sweep after a nudge", swept) != 0 {
	}
	if log := r.log.String(); !strings.Contains(log, "cache Redis is away") || strings.Contains(log, "panic") {
		t.Errorf("want the first error of a row in the log and no more:\n%s", log)
	}
}
