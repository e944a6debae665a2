package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/hibiken/asynq"

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
	lane, err := tasks.LaneOf(taskType)
	if err != nil {
		return web.Task{}, err
	}
	info, err := asynq.NewInspectorFromRedisClient(o.r.queue).GetTaskInfo(lane.Queue(o.r.set.Tasks.App), id)
	switch {
	case errors.Is(err, asynq.ErrTaskNotFound), errors.Is(err, asynq.ErrQueueNotFound):
		return web.Task{}, fmt.Errorf("task %q: %w", id, tasks.ErrNotFound)
	case err != nil:
		return web.Task{}, fmt.Errorf("read task %q: %w", id, err)
	case info.Type != taskType:
		return web.Task{}, fmt.Errorf("task %q of type %q: %w", id, taskType, tasks.ErrNotFound)
	}
	t := web.Task{State: web.TaskWaits, Err: info.LastErr}
	switch info.State {
	case asynq.TaskStateCompleted:
		t.State, t.Result = web.TaskDone, info.Result
	case asynq.TaskStateArchived:
		t.State, t.Result = web.TaskFailed, info.Result
	case asynq.TaskStateRetry:
		t.State = web.TaskRetries
	case asynq.TaskStateActive:
		t.State = web.TaskRuns
		if p, ok := worker.ParseProgress(info.Result); ok {
			t.Phase, t.Done, t.Total, t.Braked = p.Phase, p.Done, p.Total, string(p.Braked)
		}
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
