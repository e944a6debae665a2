package tasks

import (
	"context"
	"fmt"
	"sync"
)

// group collects the calls that one record will carry.
type group struct {
	calls   []Invalidation
	targets int
	done    chan struct{} // closed when number and err are set
	number  int64
	err     error
}

// committer is the group commit: calls that arrive while a record is under way share the next
// one. No call waits for company: the first one starts a round trip at once.
type committer struct {
	record func(context.Context, []Invalidation) (int64, error)
	limit  int // targets that may wait

	mu      sync.Mutex
	waiting []*group // guarded by mu; the last one is open to calls
	targets int      // guarded by mu; waiting and under way
	running bool     // guarded by mu
}

// submit records one call and returns its number. When ctx ends first the call may be recorded
// all the same.
func (c *committer) submit(ctx context.Context, call Invalidation) (int64, error) {
	g, err := c.join(ctx, call)
	if err != nil {
		return 0, err
	}
	select {
	case <-g.done:
		return g.number, g.err
	case <-ctx.Done():
		return 0, fmt.Errorf("invalidate (it may still be applied): %w", ctx.Err())
	}
}

func (c *committer) join(ctx context.Context, call Invalidation) (*group, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(call.Targets)
	if c.targets+n > c.limit {
		return nil, fmt.Errorf("%w: %d targets, the limit is %d: the queue Redis does not keep up, or cannot be reached", ErrFull, c.targets, c.limit)
	}
	c.targets += n
	var g *group
	if last := len(c.waiting) - 1; last >= 0 && c.waiting[last].targets+n <= MaxTargets {
		g = c.waiting[last]
	} else {
		g = &group{done: make(chan struct{})}
		c.waiting = append(c.waiting, g)
	}
	g.calls = append(g.calls, call)
	g.targets += n
	if !c.running {
		c.running = true
		go c.run()
	}
	return g, nil
}

// run commits groups until none waits. It outlives the call that started it, whose context
// therefore does not govern it; record bounds its own time.
func (c *committer) run() {
	for {
		c.mu.Lock()
		if len(c.waiting) == 0 {
			c.running = false
			c.mu.Unlock()
			return
		}
		g := c.waiting[0]
		c.waiting = c.waiting[1:]
		c.mu.Unlock()

		g.number, g.err = c.record(context.Background(), g.calls)

		c.mu.Lock()
		c.targets -= g.targets
		c.mu.Unlock()
		close(g.done)
	}
}
