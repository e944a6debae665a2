package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// cutAck breaks the first acknowledgement of a finished task: before it reaches the server, or
// after the server has done it.
type cutAck struct {
	lostReply bool
	cut       atomic.Bool
}

func (*cutAck) DialHook(next redis.DialHook) redis.DialHook { return next }

func (*cutAck) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (c *cutAck) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if !isScript(cmd) || !strings.HasSuffix(fmt.Sprint(cmd.Args()[3]), ":active") || c.cut.Load() {
			return next(ctx, cmd)
		}
		if c.lostReply {
			err := next(ctx, cmd)
			if redis.HasErrorPrefix(err, "NOSCRIPT") {
				return err
			}
		}
		c.cut.Store(true)
		err := errors.New("connection reset")
		cmd.SetErr(err)
		return err
	}
}

// bare starts an asynq server over a connection with the given hooks alone.
func (r *rig) bare(handle asynq.HandlerFunc, hooks ...redis.Hook) (stop func()) {
	r.t.Helper()
	conn, _ := r.dial()
	for _, h := range hooks {
		conn.AddHook(h)
	}
	s := asynq.NewServerFromRedisClient(conn, asynq.Config{
		Queues: map[string]int{queue: 1}, Concurrency: 1, TaskCheckInterval: 10 * time.Millisecond,
		DelayedTaskCheckInterval: 50 * time.Millisecond, Logger: asynqLog{r.logger()},
		RetryDelayFunc: retryDelay, IsFailure: isFailure,
	})
	if err := s.Start(handle); err != nil {
		r.t.Fatal(err)
	}
	return func() { s.Shutdown(); _ = conn.Close() }
}

// TestAck: an acknowledgement that fails once leaves a finished task that runs again a minute
// later, unless the hook lets asynq's second try through.
func TestAck(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		lostReply bool
		hooks     []redis.Hook
		wantRuns  int32
	}{
		{"lost call, without the hook", false, nil, 2},
		{"lost call, with the hook", false, []redis.Hook{ackHook{}}, 1},
		{"lost reply, with the hook", true, []redis.Hook{ackHook{}}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			var runs atomic.Int32
			handle := func(context.Context, *asynq.Task) error { runs.Add(1); return nil }
			cut := &cutAck{lostReply: tt.lostReply}
			r.enqueue("a")
			stop := r.bare(handle, append([]redis.Hook{cut}, tt.hooks...)...)
			until(t, "the cut", cut.cut.Load)
			stop() // asynq's second try is due at the latest now
			left := r.state("a")
			if left != 0 {
				r.expireLease("a") // a minute passes
			}
			r.enqueue("b")
			stop = r.bare(handle)
			until(t, "both tasks gone", func() bool { return r.state("a") == 0 && r.state("b") == 0 })
			stop()
			if got := runs.Load() - 1; got != tt.wantRuns {
				t.Errorf("the finished task ran %d times (%v after the stop), want %d", got, left, tt.wantRuns)
			}
		})
	}
}

// TestAckDeadline: past the end of its lease a task is somebody else's, cancelled or not.
func TestAckDeadline(t *testing.T) {
	ctx, cancel := context.WithDeadline(context.Background(), time.Now().Add(time.Hour))
	cancel()
	var seen context.Context
	hook := ackHook{}.ProcessHook(func(ctx context.Context, _ redis.Cmder) error { seen = ctx; return ctx.Err() })
	if err := hook(ctx, redis.NewCmd(ctx, "evalsha", "x", 0)); err != nil {
		t.Errorf("script on a cancelled context: %v, want it issued", err)
	}
	if end, ok := seen.Deadline(); !ok || time.Until(end) > ackLimit {
		t.Errorf("script issued again until %v, want at most %v from now", end, ackLimit)
	}
	if err := hook(ctx, redis.NewCmd(ctx, "get", "x")); !errors.Is(err, context.Canceled) {
		t.Errorf("other command on a cancelled context: %v, want cancelled", err)
	}
	past, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer cancel()
	if err := hook(past, redis.NewCmd(past, "evalsha", "x", 0)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("script after the lease's end: %v, want deadline exceeded", err)
	}
}

// TestBackoff: against a Redis that refuses everything asynq asks thousands of times a second;
// with the hook it pauses longer and longer, up to a second.
func TestBackoff(t *testing.T) {
	m := miniredis.RunT(t)
	m.SetError("NOPERM this user has no permissions")
	dial := func(hook redis.Hook) (*redis.Client, *dequeueCount) {
		c := redis.NewClient(&redis.Options{Addr: m.Addr(), MaxRetries: -1})
		count := &dequeueCount{}
		c.AddHook(count)
		if hook != nil {
			c.AddHook(hook)
		}
		return c, count
	}
	serve := func(c *redis.Client) *asynq.Server {
		s := asynq.NewServerFromRedisClient(c, asynq.Config{
			Queues: map[string]int{queue: 1}, Concurrency: 1, Logger: asynqLog{discard}, TaskCheckInterval: time.Second,
		})
		if err := s.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { return nil })); err != nil {
			t.Fatal(err)
		}
		return s
	}

	c, count := dial(nil)
	s := serve(c)
	begun := time.Now()
	until(t, "500 dequeues", func() bool { return count.n.Load() >= 500 })
	without := time.Since(begun)
	s.Shutdown()
	_ = c.Close()

	stop := make(chan struct{})
	hook := newBackoffHook(stop)
	c, count = dial(hook)
	s = serve(c)
	begun = time.Now()
	until(t, "6 dequeues", func() bool { return count.n.Load() >= 6 })
	with := time.Since(begun)
	close(stop)
	s.Shutdown()
	_ = c.Close()

	t.Logf("without the hook: 500 dequeues in %v; with it: 6 in %v", without, with)
	if with < 300*time.Millisecond { // 10+20+40+80+160 ms of pauses before the sixth
		t.Errorf("6 dequeues in %v: the loop did not pause", with)
	}
}

type dequeueCount struct {
	ackHook // for the other hooks, which do nothing
	n       atomic.Int64
}

func (d *dequeueCount) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if _, ok := dequeues(cmd); ok {
			d.n.Add(1)
		}
		return next(ctx, cmd)
	}
}

// TestBackoffPauses: the pauses grow to a second, a success resets them, queues are apart, and
// nothing but dequeuing pauses.
func TestBackoffPauses(t *testing.T) {
	var waits []time.Duration
	hook := newBackoffHook(nil)
	hook.wait = func(_ context.Context, d time.Duration) { waits = append(waits, d) }
	var reply error
	run := hook.ProcessHook(func(context.Context, redis.Cmder) error { return reply })
	ctx := context.Background()
	call := func(err error, args ...any) {
		reply = err
		if got := run(ctx, redis.NewCmd(ctx, args...)); !errors.Is(got, err) {
			t.Errorf("hook turned %v into %v", err, got)
		}
	}
	dequeue := func(queue string) []any {
		return []any{"evalsha", "sha", 4, "asynq:{" + queue + "}:pending", "asynq:{" + queue + "}:paused", "active", "lease", 1, "t:"}
	}
	broken := errors.New("OOM command not allowed")
	for range 9 {
		call(broken, dequeue("a")...)
	}
	call(broken, dequeue("b")...)
	call(redis.Nil, dequeue("a")...)
	call(broken, dequeue("a")...)
	call(broken, "evalsha", "sha", 2, "asynq:{a}:retry", "asynq:{a}:pending", 1)
	call(broken, "get", "x")
	ms := time.Millisecond
	want := []time.Duration{10 * ms, 20 * ms, 40 * ms, 80 * ms, 160 * ms, 320 * ms, 640 * ms, time.Second, time.Second, 10 * ms, 10 * ms}
	if diff := cmp.Diff(want, waits); diff != "" {
		t.Errorf("pauses (-want +got):\n%s", diff)
	}
}

// TestBackoffSeesAsynq pins how asynq's dequeue script is told from others.
func TestBackoffSeesAsynq(t *testing.T) {
	r := newRig(t)
	count := &dequeueCount{}
	stop := r.bare(func(context.Context, *asynq.Task) error { return nil }, count)
	defer stop()
	until(t, "dequeues", func() bool { return count.n.Load() >= 3 })
}

// TestOutage: a worker outlives its Redis and goes on when it is back.
func TestOutage(t *testing.T) {
	t.Parallel()
	r := newRig(t, "--appendonly", "yes")
	ran := make(chan string, 10)
	r.start(func(_ context.Context, j tasks.Job, _ []byte) (any, error) { ran <- j.ID(); return nil, nil })
	r.enqueue("before")
	receive(t, "the task before", ran)
	until(t, "its end", func() bool { return r.state("before") == 0 })
	r.redis.Restart()
	r.enqueue("after")
	if got := receive(t, "the task after", ran); got != "after" {
		t.Errorf("ran %q, want the task enqueued after the outage", got)
	}
	until(t, "its end", func() bool { return r.state("after") == 0 })
}
