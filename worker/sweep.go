package worker

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// The rounds' clock.
const (
	applyEvery   = 250 * time.Millisecond // what a dead worker had claimed is applied so soon after its claim
	applyPause   = time.Second            // after an error
	refreshEvery = time.Second            // nothing is stale meanwhile
	refreshPause = 5 * time.Second
	witnessEvery = 250 * time.Millisecond // how soon a loss of the log is noticed
	lookEvery    = 250 * time.Millisecond // how soon a failover of the cache Redis is noticed
	reviveEvery  = time.Minute            // a newer worker looks as soon as it starts
	reapEvery    = 15 * time.Second       // marks of dead writers only hold things up; nobody waits for one
)

// An Applier carries out the pending invalidations that no other worker has claimed, and returns
// how many. It must be safe in many workers at once. invalidation.Applier is one.
type Applier interface {
	Apply(ctx context.Context) (int, error)     // what is quick; leaves the rest to the bulk lane
	ApplyBulk(ctx context.Context) (int, error) // what was left to the bulk lane
}

// A Sweeper applies what has been pending for at least olderThan, 0 for everything, whoever has
// claimed it, and returns how many invalidations that were.
type Sweeper interface {
	Sweep(ctx context.Context, olderThan time.Duration) (int, error)
}

// A Reaper replays and closes the open marks of writers whose task is gone for good, and
// returns how many. It must be safe in many workers at once.
type Reaper interface {
	Reap(ctx context.Context) (int, error)
}

// A Witness compares the invalidation log with what this process has seen of it, and reports a
// loss once. It must be safe in many workers at once.
type Witness interface {
	Witness(ctx context.Context) (lost bool, err error)
}

// A Lookout finds servers of the cache Redis that may lack what was removed, promoted replicas and those
// that were started again, makes them lack nothing, and returns how many entries that removed. It must be safe
// in many workers at once. invalidation.Applier is one.
type Lookout interface {
	Look(ctx context.Context) (int, error)
}

// rounds runs the applier, the lookout, the witness, the refresher, the reaper and the reviver until ctx ends, whatever the
// worker's lanes: the log, not the queue, says what is to be done. A worker of the invalidate lane
// also applies as soon as it is nudged: that is faster than any polling of a queue.
func (w *Worker) rounds(ctx context.Context) {
	var all sync.WaitGroup
	if w.deps.Applier != nil {
		nudges, stop := w.nudges(ctx)
		defer stop()
		all.Go(func() {
			w.repeat(ctx, round{name: "apply", w: w, pause: applyPause}, applyEvery, nudges, w.deps.Applier.Apply)
		})
		all.Go(func() {
			w.repeat(ctx, round{name: "apply bulk", w: w, pause: applyPause}, applyEvery, nil, w.deps.Applier.ApplyBulk)
		})
	}
	if w.deps.Lookout != nil {
		all.Go(func() { w.repeat(ctx, round{name: "look", w: w, pause: applyPause}, lookEvery, nil, w.look) })
	}
	if w.deps.Witness != nil {
		all.Go(func() {
			w.repeat(ctx, round{name: "witness", w: w, pause: applyPause}, witnessEvery, nil, w.witness)
		})
	}
	if w.deps.Reaper != nil {
		all.Go(func() { w.repeat(ctx, round{name: "reap", w: w, pause: reapEvery}, reapEvery, nil, w.deps.Reaper.Reap) })
	}
	all.Go(func() {
		queues := Queues{App: w.deps.App, Queue: w.deps.Queue}
		w.repeat(ctx, round{name: "revive", w: w, pause: reviveEvery}, reviveEvery, nil, queues.Revive)
	})
	if w.deps.Refresh != nil {
		all.Go(func() {
			w.repeat(ctx, round{name: "refresh", w: w, pause: refreshPause}, refreshEvery, nil, w.deps.Refresh.Sweep)
		})
	}
	all.Wait()
}

// repeat does work at every beat, and at every nudge, until ctx ends.
func (w *Worker) repeat(ctx context.Context, r round, every time.Duration, nudges <-chan *redis.Message, work func(context.Context) (int, error)) {
	beat := time.NewTicker(every)
	defer beat.Stop()
	for {
		r.run(ctx, work)
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
		}
	}
}

// look tells the operator what a failover had brought back.
func (w *Worker) look(ctx context.Context) (int, error) {
	removed, err := w.deps.Lookout.Look(ctx)
	if removed > 0 {
		w.deps.Log.Warn("the cache Redis came back without its last removals: they were made again", "removed", removed)
	}
	return removed, err
}

// witness tells the operator of a loss of the log.
func (w *Worker) witness(ctx context.Context) (int, error) {
	lost, err := w.deps.Witness.Witness(ctx)
	if lost {
		w.deps.Log.Error("the queue Redis has lost invalidations: no archive made before this is fresh, and live releases may be stale; see `stoker health`")
	}
	return 0, err
}

// nudges subscribes to the channel that tells of new records; a nil channel for a worker that
// need not know.
func (w *Worker) nudges(ctx context.Context) (<-chan *redis.Message, func()) {
	if !slices.Contains(w.cfg.Lanes, tasks.LaneInvalidate) {
		return nil, func() {}
	}
	sub := w.deps.Queue.Subscribe(ctx, w.keys.Nudge())
	return sub.Channel(redis.WithChannelSize(1000)), func() { _ = sub.Close() }
}

// drop forgets the nudges that have come meanwhile: one round serves them all.
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
	pause   time.Duration
	w       *Worker
	next    time.Time
	failing bool
}

func (r *round) run(ctx context.Context, work func(context.Context) (int, error)) {
	if time.Now().Before(r.next) {
		return
	}
	n, err := guard(func() (int, error) { return work(ctx) })
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
