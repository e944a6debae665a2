package demo

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

const (
	// inFlight bounds the edits committed and not yet known to be applied.
	inFlight = 64
	// massEdit is how many changes make an edit one that waits for a storm: met by a crawl, it
	// would delete pages between sitemap and visit, and fail a certificate for a good reason.
	massEdit = 20
)

// editor publishes the history, edit by edit: commit, invalidate, note when it is settled.
// One call at a time.
type editor struct {
	store   *Store
	truth   *Truth
	caches  []Cache
	history []Event
	queue   []Event // what is left of the history; it starts over when it ends
	made    int     // edits so far
}

// storm publishes n edits at so many a second at most and returns when all are settled.
func (e *editor) storm(ctx context.Context, n int, perSecond float64, watch Watch) error {
	return e.run(ctx, perSecond, func(done int) (Event, bool) {
		watch(int64(done), int64(n))
		if done == n {
			return Event{}, false
		}
		return e.take(func(Event) bool { return true })
	})
}

// trickle publishes edits until stop is called, which returns when all are settled. It leaves
// mass edits to the next storm.
func (e *editor) trickle(ctx context.Context, perSecond float64) (stop func() error) {
	var ended atomic.Bool
	result := make(chan error, 1)
	go func() {
		result <- e.run(ctx, perSecond, func(int) (Event, bool) {
			if ended.Load() {
				return Event{}, false
			}
			return e.take(func(e Event) bool { return len(e.Changes) < massEdit })
		})
	}()
	return func() error {
		ended.Store(true)
		return <-result
	}
}

// take removes the oldest event that fits from the queue; false when the history has none.
func (e *editor) take(fits func(Event) bool) (Event, bool) {
	at := slices.IndexFunc(e.queue, fits)
	if at < 0 {
		e.queue = append(e.queue, e.history...)
		if at = slices.IndexFunc(e.queue, fits); at < 0 {
			return Event{}, false
		}
	}
	event := e.queue[at]
	e.queue = slices.Delete(e.queue, at, at+1)
	return event, true
}

// run publishes what next returns until that is nothing. Edits settle in order, and while
// earlier ones settle the next are made.
func (e *editor) run(ctx context.Context, perSecond float64, next func(done int) (Event, bool)) error {
	type flight struct {
		number  int64
		settled []func(context.Context) error
	}
	flights := make(chan flight, inFlight)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		for f := range flights {
			for _, settled := range f.settled {
				if err := settled(ctx); err != nil {
					return fmt.Errorf("edit %d: wait until it is applied: %w", f.number, err)
				}
			}
			e.truth.Settle(f.number)
		}
		return nil
	})
	group.Go(func() error {
		defer close(flights)
		pace := rate.NewLimiter(rate.Limit(perSecond), 1)
		for done := 0; ; done++ {
			if err := pace.Wait(ctx); err != nil {
				return err
			}
			event, ok := next(done)
			if !ok {
				return nil
			}
			number, settled, err := e.publish(ctx, event)
			if err != nil {
				return err
			}
			e.made++
			select {
			case flights <- flight{number, settled}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	})
	return group.Wait()
}

// publish commits one edit and invalidates what it changed, in every cache.
func (e *editor) publish(ctx context.Context, event Event) (number int64, settled []func(context.Context) error, err error) {
	edit, err := e.store.Apply(ctx, event, e.truth.Begin)
	if err != nil {
		return 0, nil, err
	}
	for _, c := range e.caches {
		wait, err := c.Invalidate(ctx, edit.Tags, fmt.Sprintf("edit %d", edit.Number))
		if err != nil {
			return 0, nil, fmt.Errorf("edit %d: %w", edit.Number, err)
		}
		settled = append(settled, wait)
	}
	return edit.Number, settled, nil
}
