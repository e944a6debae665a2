package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// entryHeader names the entry in the task that asynq's scheduler shows.
const entryHeader = "entry"

// ring starts a clock for plan's entries and makes it the scheduler's. The caller holds mu.
func (s *Scheduler) ring(plan Schedule) error {
	clock, err := s.newClock(plan, func(e Entry) string { return e.Cron })
	if err != nil {
		return err
	}
	if err := clock.Start(); err != nil {
		return err
	}
	s.clock = clock
	return nil
}

// newClock returns asynq's scheduler over a connection of its own, with every entry of plan under
// the cron expression that spec gives. At a tick it calls [Scheduler.ticked] and nothing else:
// see the package comment.
func (s *Scheduler) newClock(plan Schedule, spec func(Entry) string) (*asynq.Scheduler, error) {
	conn, err := s.deps.Dial()
	if err != nil {
		return nil, err
	}
	entries := make(map[string]Entry, len(plan.Entries))
	for _, e := range plan.Entries {
		entries[e.Name] = e
	}
	clock := asynq.NewScheduler(connection{conn}, &asynq.SchedulerOpts{
		Location: plan.Location,
		Logger:   asynqLog{s.deps.Log},
		PreEnqueueFunc: func(t *asynq.Task, _ []asynq.Option) {
			s.ticked(plan, entries[t.Headers()[entryHeader]])
		},
	})
	for _, e := range plan.Entries {
		if err := s.register(clock, e, spec(e)); err != nil {
			return nil, errors.Join(fmt.Errorf("entry %q: %w", e.Name, err), conn.Close())
		}
	}
	return clock, nil
}

// register shows an entry to asynq. The empty ID keeps asynq from enqueueing what it shows.
func (s *Scheduler) register(clock *asynq.Scheduler, e Entry, spec string) error {
	lane, err := tasks.LaneOf(e.Task)
	if err != nil {
		return err
	}
	shown := asynq.NewTaskWithHeaders(e.Task, e.Args, map[string]string{entryHeader: e.Name})
	_, err = clock.Register(spec, shown, asynq.Queue(lane.Queue(s.deps.App)), asynq.TaskID(""))
	return err
}

// ticked deals with the tick that an entry's clock has just rung for.
func (s *Scheduler) ticked(plan Schedule, e Entry) {
	tick, ok := plan.Latest(e, s.now().Add(early))
	if !ok {
		return
	}
	if err := s.fire(context.Background(), e, tick); err != nil {
		s.deps.Log.Error("tick not enqueued", "entry", e.Name, "tick", tick, "error", err)
	}
}

// connection hands asynq a connection that it may close.
type connection struct{ redis.UniversalClient }

var _ asynq.RedisConnOpt = connection{}

func (c connection) MakeRedisClient() any { return c.UniversalClient }

// asynqLog passes asynq's log lines on.
type asynqLog struct{ log *slog.Logger }

var _ asynq.Logger = asynqLog{}

func (l asynqLog) Debug(args ...any) { l.log.Debug("asynq", "text", fmt.Sprint(args...)) }
func (l asynqLog) Info(args ...any)  { l.log.Debug("asynq", "text", fmt.Sprint(args...)) }
func (l asynqLog) Warn(args ...any)  { l.log.Warn("asynq", "text", fmt.Sprint(args...)) }
func (l asynqLog) Error(args ...any) { l.log.Error("asynq", "text", fmt.Sprint(args...)) }

// Fatal logs without ending the process: that is its caller's to decide.
func (l asynqLog) Fatal(args ...any) { l.log.Error("asynq", "text", fmt.Sprint(args...)) }
