package worker

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/alphanode/stoker/tasks"
)

// applier counts as an Applier.
type applier struct{ apply, bulk func() (int, error) }

func (a applier) Apply(context.Context) (int, error)     { return a.apply() }
func (a applier) ApplyBulk(context.Context) (int, error) { return a.bulk() }

type reapFunc func() (int, error)

func (f reapFunc) Reap(context.Context) (int, error) { return f() }

type witnessFunc func() (bool, error)

func (f witnessFunc) Witness(context.Context) (bool, error) { return f() }

// TestWitness: a loss of the log is told to the operator, whether or not this worker applies anything.
func TestWitness(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	looked := make(chan struct{}, 1000)
	found := true
	r.start(nil, func(c *Config, d *Deps) {
		c.Lanes = []tasks.Lane{tasks.LaneWarm}
		d.Handlers = nil
		d.Witness = witnessFunc(func() (bool, error) {
			lost := found
			found = false
			looked <- struct{}{}
			return lost, nil
		})
	})
	for range 3 {
		receive(t, "a look at the log", looked)
	}
	if n := strings.Count(r.log.String(), "has lost invalidations"); n != 1 {
		t.Errorf("a loss was told %d times, want once:\n%s", n, r.log.String())
	}
}

// TestRounds: every worker applies what nobody has claimed, at once when it is nudged; neither an
// error, nor a panic, nor long work of another round ends or delays that.
func TestRounds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	applied, reaped, hung := make(chan struct{}, 1000), make(chan struct{}, 1000), make(chan struct{})
	calls := 0
	w := r.start(nil, func(c *Config, d *Deps) {
		c.Lanes = []tasks.Lane{tasks.LaneInvalidate}
		d.Handlers = nil
		d.Applier = applier{
			apply: func() (int, error) {
				calls++
				switch calls {
				case 1:
					return 0, errors.New("cache Redis is away")
				case 2:
					panic("out of coal")
				}
				applied <- struct{}{}
				return 1, nil
			},
			bulk: func() (int, error) { <-hung; return 0, nil },
		}
		d.Reaper = reapFunc(func() (int, error) { reaped <- struct{}{}; return 0, nil })
	})
	t.Cleanup(func() { close(hung) }) // before the worker's own stop
	receive(t, "a reap", reaped)
	receive(t, "a round after errors", applied)
	until(t, "the nudge's subscriber", func() bool {
		return r.redis.Client.Publish(context.Background(), w.keys.Nudge(), "1").Val() > 0
	})
	receive(t, "a round after a nudge", applied)
	if log := r.log.String(); !strings.Contains(log, "cache Redis is away") || strings.Contains(log, "panic") {
		t.Errorf("want the first error of a row in the log and no more:\n%s", log)
	}
}
