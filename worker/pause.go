package worker

import (
	"context"
	"errors"
	"time"

	"github.com/alphanode/stoker/tasks"
)

// pauseEvery is how often a running task of a lane that yields looks whether its lane is paused.
const pauseEvery = 250 * time.Millisecond

// paused reports whether the runner's lane is paused. A queue Redis that does not tell is no pause.
func (r runner) paused(ctx context.Context) bool {
	key := archive{queue: r.lane.lane.Queue(r.w.deps.App)}.key("paused")
	n, err := r.w.deps.Queue.Exists(ctx, key).Result()
	return err == nil && n == 1
}

// yielding returns a channel that is closed when the worker drains, or the task's lane is paused and
// its tasks yield. stop ends the looking.
func (r runner) yielding(ctx context.Context) (yield <-chan struct{}, stop func()) {
	if !r.lane.yields {
		return r.w.draining, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	c, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		if r.await(ctx, true) {
			close(c)
		}
	}()
	return c, func() { cancel(); <-ended }
}

// await returns true when the worker drains, or the lane is paused, or is not; false when ctx ends first.
func (r runner) await(ctx context.Context, paused bool) bool {
	tick := time.NewTicker(pauseEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-r.w.draining:
			return true
		case <-tick.C:
			if r.paused(ctx) == paused {
				return true
			}
		}
	}
}

// handle calls the handler. A task that yields to a pause goes back to its queue; on its last try asynq
// would archive it there, so it waits here for the lane to go on.
func (r runner) handle(ctx context.Context, call func(draining <-chan struct{}) (any, error)) (any, error) {
	for {
		yield, stop := r.yielding(ctx)
		result, err := call(yield)
		stop()
		if !errors.Is(err, tasks.ErrDraining) || !r.lane.yields || !lastTry(ctx) || !r.await(ctx, false) {
			return result, err
		}
		select {
		case <-r.w.draining:
			return result, err
		default:
		}
	}
}
