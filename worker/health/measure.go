package health

import (
	"context"
	"fmt"
	"sync"

	"github.com/alphanode/stoker/tasks"
)

// measure sends the probes and sums up the answers, with at most limit samples. first says that the
// first visit to each page is to be told apart. It stops early only when ctx ends or the worker
// drains: a site that fails is a result, not an error.
func (m *Monitor) measure(ctx context.Context, job tasks.Job, p Probes, release string, first bool, limit int) (Baseline, error) {
	if err := p.Validate(); err != nil {
		return Baseline{}, err
	}
	sum := newTally(release, m.now().UTC())
	err := m.send(ctx, job, p.count(), func(ctx context.Context, i int) func() {
		a := m.probe(ctx, p, i, 0)
		return func() { sum.add(p.Paths[i%len(p.Paths)], first && i < len(p.Paths), a) }
	})
	if err != nil {
		return Baseline{}, fmt.Errorf("probe %s: %w", redactURL(p.Base), err)
	}
	return sum.baseline(limit), nil
}

// send makes n requests, ProbeConcurrency of them at a time. ask makes the i-th and returns
// what takes its answer in; those calls are made one at a time.
func (m *Monitor) send(ctx context.Context, job tasks.Job, n int, ask func(ctx context.Context, i int) func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	next := make(chan int)
	answers := make(chan func())
	var wg sync.WaitGroup
	for range min(m.cfg.ProbeConcurrency, n) {
		wg.Go(func() {
			for i := range next {
				answers <- ask(ctx, i)
			}
		})
	}
	drained := false
	go func() {
		defer close(answers)
		defer wg.Wait()
		defer close(next)
		for i := range n {
			select {
			case next <- i:
			case <-ctx.Done():
				return
			case <-job.Draining():
				drained = true
				return
			}
		}
	}()
	done := 0
	for take := range answers {
		take()
		done++
		job.Progress("probe", int64(done), int64(n))
	}
	switch {
	case drained:
		return tasks.ErrDraining
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return nil
}
