package web

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hibiken/asynq"
	"golang.org/x/sync/singleflight"

	"github.com/alphanode/stoker/tasks"
)

// lane is what a lane's queue holds.
type lane struct {
	Lane      tasks.Lane
	Pending   int
	Active    int
	Scheduled int
	Retry     int
	Archived  int
	Completed int
	Latency   time.Duration // age of the oldest pending task
	Paused    bool
	Queue     string // asynq's name
	Size      int    // tasks in all states but completed, as asynq counts
	Memory    int64  // bytes, estimated by asynq
	Processed int    // tries ever, those that failed as well
	Failed    int    // tries ever
}

// Later counts the tasks that wait for their time.
func (l lane) Later() int { return l.Scheduled + l.Retry }

// lanes reads the lanes' queues. It is safe for concurrent use.
type lanes struct {
	app       string
	inspector *asynq.Inspector
	flight    singleflight.Group
}

// read returns all lanes, those without a task so far as empty. asynq's inspector takes no
// context: when ctx ends first the reading goes on, and the next caller shares it.
func (l *lanes) read(ctx context.Context) ([]lane, error) {
	select {
	case r := <-l.flight.DoChan("", func() (any, error) { return l.inspect() }):
		found, _ := r.Val.([]lane)
		return found, r.Err
	case <-ctx.Done():
		return nil, fmt.Errorf("read lanes: %w", ctx.Err())
	}
}

func (l *lanes) inspect() ([]lane, error) {
	queues, err := l.inspector.Queues()
	if err != nil {
		return nil, fmt.Errorf("read lanes: %w", err)
	}
	found := make([]lane, 0, len(tasks.Lanes()))
	for _, name := range tasks.Lanes() {
		q := &asynq.QueueInfo{}
		if slices.Contains(queues, name.Queue(l.app)) {
			if q, err = l.inspector.GetQueueInfo(name.Queue(l.app)); err != nil {
				return nil, fmt.Errorf("read lane %s: %w", name, err)
			}
		}
		found = append(found, lane{
			Lane: name, Pending: q.Pending, Active: q.Active, Scheduled: q.Scheduled, Retry: q.Retry,
			Archived: q.Archived, Completed: q.Completed, Latency: q.Latency, Paused: q.Paused,
			Queue: name.Queue(l.app), Size: q.Size, Memory: q.MemoryUsage, Processed: q.ProcessedTotal, Failed: q.FailedTotal,
		})
	}
	return found, nil
}
