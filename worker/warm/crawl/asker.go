package crawl

import (
	"context"
	"errors"
	"time"

	"github.com/alphanode/stoker/tasks"
)

// lingers is how long a request may go on whose batch is to stop.
const lingers = 500 * time.Millisecond

// asker asks for one page after the other. Its requests share a context as long as none of them is
// late: a context and a timer for each would take a fifth of a crawl's time. One goroutine uses it.
type asker struct {
	source *Source
	walk   context.Context // what waits for its turn ends with it
	base   context.Context // what is under way ends with it
	ctx    context.Context // of base, until a request is late
	cancel context.CancelFunc
	timer  *time.Timer
}

// lingering returns a context that outlives ctx for a little where that ends because the work is to
// stop, and not because it is given up.
func lingering(ctx context.Context) (context.Context, context.CancelFunc) {
	long, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if errors.Is(context.Cause(ctx), tasks.ErrDraining) {
			time.AfterFunc(lingers, cancel)
		} else {
			cancel()
		}
	})
	return long, func() { stop(); cancel() }
}

// begin returns the context of the next request.
func (a *asker) begin() context.Context {
	if a.ctx == nil || a.ctx.Err() != nil {
		a.end()
		a.ctx, a.cancel = context.WithCancel(a.base)
		a.timer = time.AfterFunc(a.source.timeout, a.cancel)
	} else {
		a.timer.Reset(a.source.timeout)
	}
	return a.ctx
}

// rest ends the time limit of a request that has ended.
func (a *asker) rest() { a.timer.Stop() }

// end ends the asker.
func (a *asker) end() {
	if a.cancel != nil {
		a.timer.Stop()
		a.cancel()
	}
}

// crew is as many askers as a source may have.
type crew struct {
	work chan job
	done func() // returns when all have ended
}

// job is a visit of a step.
type job struct {
	v  *visit
	st *step
}

// crew starts askers for so many visits. End it with done.
func (s *Source) crew(ctx context.Context, visits int) *crew {
	c := &crew{work: make(chan job)}
	base, cancel := lingering(ctx)
	ended := make(chan struct{})
	n := max(min(s.concurrency(), visits), 1)
	for range n {
		go func() {
			a := &asker{source: s, walk: ctx, base: base}
			for j := range c.work {
				a.do(j.v)
				j.st.done.Done()
			}
			a.end()
			ended <- struct{}{}
		}()
	}
	c.done = func() {
		close(c.work)
		for range n {
			<-ended
		}
		cancel()
	}
	return c
}
