package tasks

import (
	"context"
	"fmt"
	"sync"

	"go.opentelemetry.io/otel/trace"
)

// group collects the calls that one record will carry.
type group struct {
	calls   []Invalidation
	targets int
	span    trace.Span    // of its first call that is traced; nil without one
	bulky   bool          // a call with a prefix, alone in its record: it must not hold up others
	done    chan struct{} // closed when number and err are set
	number  int64         // of the first call; the others' follow
	err     error
}

// tracedContext is what groups are recorded and enqueued in: a part of the first call's trace that
// has one.
func tracedContext(groups ...*group) context.Context {
	for _, g := range groups {
		if g.span != nil {
			return trace.ContextWithSpan(context.Background(), g.span)
		}
	}
	return context.Background()
}

// committer is the group commit, in two stages that run side by side: a record for a group of
// calls, then a task for the records that have come meanwhile. Calls that arrive while a record
// is under way share the next one, and records that are made while a task is being enqueued
// share the next one. Nothing waits for company: whoever comes first starts a round trip at once.
type committer struct {
	record  func(*group) (number int64, err error)
	enqueue func([]*group) error
	limit   int // targets that may wait

	mu        sync.Mutex
	waiting   []*group // guarded by mu; the last one is open to calls
	recorded  []*group // guarded by mu; to be enqueued
	targets   int      // guarded by mu; of all groups that are not done
	recording bool     // guarded by mu
	enqueuing bool     // guarded by mu
}

// submit records one call and returns its number. When ctx ends first the call may be recorded
// all the same.
func (c *committer) submit(ctx context.Context, call Invalidation) (int64, error) {
	g, place, err := c.join(ctx, call)
	if err != nil {
		return 0, err
	}
	select {
	case <-g.done:
		if g.number == 0 {
			return 0, g.err
		}
		return g.number + int64(place), g.err
	case <-ctx.Done():
		return 0, fmt.Errorf("invalidate (it may still be applied): %w", ctx.Err())
	}
}

// join puts a call into the last group that has room for it, and returns its place there.
func (c *committer) join(ctx context.Context, call Invalidation) (*group, int, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(call.Targets)
	if c.targets+n > c.limit {
		return nil, 0, fmt.Errorf("%w: %d targets, the limit is %d: the queue Redis does not keep up, or cannot be reached", ErrFull, c.targets, c.limit)
	}
	c.targets += n
	g := c.open(n, call.bulky())
	g.calls = append(g.calls, call)
	if call.Trace != "" && g.span == nil {
		g.span = trace.SpanFromContext(ctx)
	}
	g.targets += n
	if !c.recording {
		c.recording = true
		go c.runRecords()
	}
	return g, len(g.calls) - 1, nil
}

// open returns the group that takes the next n targets. The caller holds mu.
func (c *committer) open(n int, bulky bool) *group {
	if last := len(c.waiting) - 1; last >= 0 && !bulky && !c.waiting[last].bulky && c.waiting[last].targets+n <= MaxTargets {
		return c.waiting[last]
	}
	g := &group{bulky: bulky, done: make(chan struct{})}
	c.waiting = append(c.waiting, g)
	return g
}

// runRecords records groups until none waits. It outlives the call that started it, whose context
// therefore does not govern it; record bounds its own time.
func (c *committer) runRecords() {
	for {
		c.mu.Lock()
		if len(c.waiting) == 0 {
			c.recording = false
			c.mu.Unlock()
			return
		}
		g := c.waiting[0]
		c.waiting = c.waiting[1:]
		c.mu.Unlock()
		if g.number, g.err = c.record(g); g.err != nil {
			c.finish([]*group{g})
			continue
		}
		c.mu.Lock()
		c.recorded = append(c.recorded, g)
		if !c.enqueuing {
			c.enqueuing = true
			go c.runTasks()
		}
		c.mu.Unlock()
	}
}

// runTasks enqueues tasks for what has been recorded until nothing waits.
func (c *committer) runTasks() {
	for {
		c.mu.Lock()
		groups := c.recorded[:min(len(c.recorded), maxNumbers)]
		if c.recorded = c.recorded[len(groups):]; len(groups) == 0 {
			c.enqueuing = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		if err := c.enqueue(groups); err != nil {
			for _, g := range groups {
				g.err = fmt.Errorf("invalidation %d: %w: %w", g.number, ErrNotEnqueued, err)
			}
		}
		c.finish(groups)
	}
}

// finish answers the calls of groups.
func (c *committer) finish(groups []*group) {
	c.mu.Lock()
	for _, g := range groups {
		c.targets -= g.targets
	}
	c.mu.Unlock()
	for _, g := range groups {
		close(g.done)
	}
}
