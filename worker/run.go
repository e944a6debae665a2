package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/hibiken/asynq"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/governor/throttle"
)

// A Handler decodes the payload of one task type and calls the verb. The result becomes the
// task's, as JSON; nil leaves none. Handlers run concurrently, may run twice for one task, and
// must return soon after ctx is done.
type Handler func(ctx context.Context, j tasks.Job, payload []byte) (result any, err error)

// Handlers holds the handler of each task type.
type Handlers map[string]Handler

// decoded is the handler that decodes payloads of one type for verb.
func decoded[P tasks.Payload](verb func(ctx context.Context, j tasks.Job, p P) (any, error)) Handler {
	return func(ctx context.Context, j tasks.Job, payload []byte) (any, error) {
		var p P
		if err := tasks.Decode(payload, any(&p).(tasks.Payload)); err != nil {
			return nil, err
		}
		if task := throttle.Of(ctx); task != nil {
			task.SetPace(tasks.PaceOf(p))
		}
		return verb(ctx, j, p)
	}
}

// calls is the handler that decodes payloads of one type for verb, whose result it passes on.
func calls[P tasks.Payload, R any](verb func(ctx context.Context, j tasks.Job, p P) (R, error)) Handler {
	return decoded(func(ctx context.Context, j tasks.Job, p P) (any, error) { return verb(ctx, j, p) })
}

// tidyLimit bounds what is done for a task after its handler has ended.
const tidyLimit = 5 * time.Second

// errPanic: a handler panicked.
var errPanic = errors.New("panic")

// runner runs one lane's tasks. It is an asynq.Handler.
type runner struct {
	lane lane
	w    *Worker
}

var _ asynq.Handler = runner{}

// ProcessTask implements asynq.Handler: the package comment's steps.
func (r runner) ProcessTask(ctx context.Context, t *asynq.Task) error {
	r.w.running.Add(1)
	defer r.w.running.Done()
	id, _ := asynq.GetTaskID(ctx)
	begun := time.Now()
	err := r.run(ctx, id, t)
	if verdictOf(err) == leave {
		err = left{err, r.w.left.add(id)}
	}
	r.report(id, t.Type(), time.Since(begun), err)
	if err == nil {
		return nil
	}
	switch v := verdictOf(err); {
	case v == retryNow && lastTry(ctx):
		// asynq would archive it for any error. It gives the task back at the end of the
		// grace period instead, which ends this context.
		<-ctx.Done()
	case v == giveUp, lastTry(ctx):
		if e := writeResult(t, tasks.NewFailure(err)); e != nil {
			r.w.deps.Log.Warn("failure not written to its task", "task", id, "error", e)
		}
		return final{err}
	}
	return err
}

// run takes a task from its start to its result.
func (r runner) run(ctx context.Context, id string, t *asynq.Task) error {
	handle, ok := r.w.deps.Handlers[t.Type()]
	if !ok {
		return fmt.Errorf("%w: task type %q, and this stoker has none of that name: upgrade this worker", tasks.ErrNewer, t.Type())
	}
	select {
	case <-r.w.draining:
		return tasks.ErrDraining
	default:
	}
	if r.lane.capped {
		if err := r.w.starts.begin(ctx, id); err != nil {
			return err
		}
	}
	j := &job{id: id, cursor: r.w.keys.Cursor(id), queue: r.w.deps.Queue, result: t.ResultWriter(), work: throttle.NewTask("", r.lane.urgent)}
	result, err := r.handle(ctx, func(draining <-chan struct{}) (any, error) {
		j.draining = draining
		return r.guarded(throttle.With(ctx, j.work), j, t, handle)
	})
	j.settle()
	if err == nil {
		err = writeResult(t, result)
	}
	r.tidy(ctx, id)
	return err
}

// guarded calls the handler and turns a panic into an error.
func (r runner) guarded(ctx context.Context, j *job, t *asynq.Task, handle Handler) (result any, err error) {
	defer func() {
		if x := recover(); x != nil {
			r.w.deps.Log.Error("handler panicked", "task", j.id, "type", t.Type(), "panic", fmt.Sprint(x), "stack", string(debug.Stack()))
			err = fmt.Errorf("%s: %w: %v", t.Type(), errPanic, x)
		}
	}()
	return handle(ctx, j, t.Payload())
}

// tidy notes that a start has come to its end. What it cannot remove expires by itself.
func (r runner) tidy(ctx context.Context, id string) {
	if !r.lane.capped {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyLimit)
	defer cancel()
	if err := r.w.deps.Queue.Del(ctx, r.w.keys.Starts(id)).Err(); err != nil {
		r.w.deps.Log.Warn("task's start not crossed off", "task", id, "error", err)
	}
}

func writeResult(t *asynq.Task, result any) error {
	if result == nil {
		return nil
	}
	raw, err := json.Marshal(result)
	if err != nil {
		return fmt.Errorf("encode result of %s: %w", t.Type(), err)
	}
	_, err = t.ResultWriter().Write(raw)
	return err
}

// report logs a task's end, once.
func (r runner) report(id, taskType string, took time.Duration, err error) {
	attrs := []any{"task", id, "type", taskType, "took", took}
	level, msg := slog.LevelDebug, "task done"
	switch {
	case errors.Is(err, tasks.ErrDraining):
		level, msg = slog.LevelInfo, "task handed on"
	case errors.Is(err, tasks.ErrNewer):
		msg = "task left for a newer worker"
		if l := (left{}); errors.As(err, &l) && l.times == 1 { // it comes back every second
			level = slog.LevelWarn
		}
		attrs = append(attrs, "error", err)
	case err != nil:
		level, msg = slog.LevelWarn, "task failed"
		attrs = append(attrs, "then", string(verdictOf(err)), "error", err)
	}
	r.w.deps.Log.Log(context.Background(), level, msg, attrs...)
}

// lastTry reports whether asynq would archive the running task for any error.
func lastTry(ctx context.Context) bool {
	retried, _ := asynq.GetRetryCount(ctx)
	limit, _ := asynq.GetMaxRetry(ctx)
	return retried >= limit
}
