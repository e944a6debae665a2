package main

import (
	"context"

	"github.com/alphanode/stoker/cmd/stoker/web"
	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker"
	"github.com/alphanode/stoker/worker/invalidation"
)

// consoleOperator does for the console what the commands do: it asks the same rooms first, and has the
// work done by the same tasks.
type consoleOperator struct{ r *rooms }

var _ web.Operator = consoleOperator{}

// MayRollback implements [web.Operator].
func (o consoleOperator) MayRollback(ctx context.Context, to string) error {
	return o.r.restorer.May(ctx, to)
}

// MayActivate implements [web.Operator].
func (o consoleOperator) MayActivate(ctx context.Context, id string) error {
	rec, err := o.r.ledger.Get(ctx, id)
	if err != nil {
		return err
	}
	active, err := o.r.ledger.Active(ctx)
	if err != nil {
		return err
	}
	_, err = worker.Admit(rec, active == "", false)
	return err
}

// Enqueue implements [web.Operator].
func (o consoleOperator) Enqueue(ctx context.Context, p tasks.Payload) (string, error) {
	return o.r.client.Enqueue(ctx, p)
}

// Task implements [web.Operator].
func (o consoleOperator) Task(_ context.Context, taskType, id string) (web.Task, error) {
	s, err := o.r.task(taskName{taskType, id})
	if err != nil {
		return web.Task{}, err
	}
	t := web.Task{State: s.State, Err: s.Error, Result: s.Result}
	if p := s.Progress; p != nil {
		t.Phase, t.Done, t.Total, t.Braked = p.Phase, p.Done, p.Total, string(p.Braked)
	}
	return t, nil
}

// Pause implements [web.Operator].
func (o consoleOperator) Pause(ctx context.Context, lane tasks.Lane, paused bool) error {
	return o.r.pauseLane(ctx, lane, paused)
}

// Preview implements [web.Operator].
func (o consoleOperator) Preview(ctx context.Context, targets []tasks.Target) ([]invalidation.Preview, error) {
	live, err := o.r.ledger.Live(ctx)
	if err != nil {
		return nil, err
	}
	var all []invalidation.Preview
	for _, id := range live {
		p, err := o.r.applier.Preview(ctx, id, targets)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}
