package worker

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// The sweep's clock.
const (
	sweepEvery = 250 * time.Millisecond
	sweepAfter = time.Second      // what has been pending for longer is swept, whoever should have applied it
	sweepPause = time.Second      // after an error
	reapEvery  = 15 * time.Second // marks of dead writers only hold things up; nobody waits for one
)

// A Sweeper applies what has been pending for longer than olderThan, 0 for everything, and
// returns how many invalidations that were. It must be safe in many workers at once.
type Sweeper interface {
	Sweep(ctx context.Context, olderThan time.Duration) (int, error)
}

// A Reaper replays and closes the open marks of writers whose task is gone for good, and
// returns how many. It must be safe in many workers at once.
type Reaper interface {
	Reap(ctx context.Context) (int, error)
}

// sweep runs the sweeper and the reaper until ctx ends. A worker of the invalidate lane also
// sweeps everything as soon as it is nudged: that is faster than any polling of a queue.
func (w *Worker) sweep(ctx context.Context) {
	beat := time.NewTicker(sweepEvery)
	defer beat.Stop()
	nudges, stop := w.nudges(ctx)
	defer stop()
	sweeps := round{name: "sweep", every: 0, pause: sweepPause, w: w}
	reaps := round{name: "reap", every: reapEvery, pause: reapEvery, w: w}
	for {
		olderThan := sweepAfter
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
		case _, ok := <-nudges:
			if !ok {
				nudges = nil // the subscription is over: ctx is about to end
				continue
			}
			drop(nudges)
			olderThan = 0
		}
		if w.deps.Sweeper != nil {
			sweeps.run(ctx, func() (int, error) { return w.deps.Sweeper.Sweep(ctx, olderThan) })
		}
		if w.deps.Reaper != nil {
			reaps.run(ctx, func() (int, error) { return w.deps.Reaper.Reap(ctx) })
		}
	}
}

// nudges subscribes to the channel that tells of new records; a nil channel for a worker that
// need not know.
func (w *Worker) nudges(ctx context.Context) (<-chan *redis.Message, func()) {
	if w.deps.Sweeper == nil || !slices.Contains(w.cfg.Lanes, tasks.LaneInvalidate) {
		return nil, func() {}
	}
	sub := w.deps.Queue.Subscribe(ctx, w.keys.Nudge())
	return sub.Channel(redis.WithChannelSize(1000)), func() { _ = sub.Close() }
}

// drop forgets the nudges that have come meanwhile: one sweep serves them all.
func drop(nudges <-chan *redis.Message) {
	for {
		select {
		case _, ok := <-nudges:
			if !ok {
				return
			}
		default:
			return
		}
	}
}

// round is work that is done again and again: it pauses after errors and logs only the first
// of a row.
type round struct {
	name    string
	every   time.Duration
	pause   time.Duration
	w       *Worker
	next    time.Time
	failing bool
}

func (r *round) run(ctx context.Context, work func() (int, error)) {
	if time.Now().Before(r.next) {
		return
	}
	r.next = time.Now().Add(r.every)
	n, err := guard(work)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		r.next = time.Now().Add(r.pause)
		if !r.failing {
			r.w.deps.Log.Error("round failed", "round", r.name, "error", err)
		}
		r.failing = true
	default:
		if r.failing {
			r.w.deps.Log.Info("round works again", "round", r.name)
		}
		r.failing = false
		if n > 0 {
			r.w.deps.Log.Debug("round done", "round", r.name, "count", n)
		}
	}
}

// guard turns a panic of work into an error.
func guard(work func() (int, error)) (n int, err error) {
	defer func() {
		if x := recover(); x != nil {
			err = fmt.Errorf("%w: %v\n%s", errPanic, x, debug.Stack())
		}
	}()
	return work()
}
