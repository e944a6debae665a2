package worker

import (
	"context"
	"strings"
	"testing"

	"github.com/hibiken/asynq"

	"github.com/alphanode/stoker/tasks"
)

// TestLostLease: a task whose worker was killed is run at once by the next, at no cost. asynq
// alone makes it wait and counts a retry.
func TestLostLease(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.enqueue("lost")
	r.lose("lost")
	conn, _ := r.dial()
	plain := asynq.NewServerFromRedisClient(conn, asynq.Config{Queues: map[string]int{queue: 1}, Logger: asynqLog{discard}})
	if err := plain.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { return nil })); err != nil {
		t.Fatal(err)
	}
	until(t, "asynq alone found it", func() bool { return r.state("lost") == asynq.TaskStateRetry })
	plain.Shutdown()
	_ = conn.Close()
	if info, err := r.inspector.GetTaskInfo(queue, "lost"); err != nil || info.Retried != 1 {
		t.Errorf("asynq alone: %+v, %v; want one retry spent (or this treatment is not needed any more)", info, err)
	}

	r = newRig(t)
	r.enqueue("lost")
	r.lose("lost")
	retried := make(chan int, 1)
	r.start(func(ctx context.Context, _ tasks.Job, _ []byte) (any, error) {
		n, _ := asynq.GetRetryCount(ctx)
		retried <- n
		return nil, nil
	})
	if n := receive(t, "the lost task", retried); n != 0 {
		t.Errorf("lost task came back with %d retries spent, want 0", n)
	}
}

// TestPoison: a task that has been started too often without coming to an end is archived
// instead of run, and an operator who runs it again gives it new tries.
func TestPoison(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ran := make(chan string, 10)
	w := r.start(func(_ context.Context, j tasks.Job, _ []byte) (any, error) { ran <- j.ID(); return nil, nil })
	for range MaxStarts { // as many workers died of it
		if err := w.starts.begin(context.Background(), "poison"); err != nil {
			t.Fatal(err)
		}
	}
	r.enqueue("poison")
	until(t, "archived", func() bool { return r.state("poison") == asynq.TaskStateArchived })
	info, err := r.inspector.GetTaskInfo(queue, "poison")
	if err != nil || !strings.Contains(info.LastErr, "started too often") || strings.Contains(info.LastErr, "skip retry") {
		t.Errorf("archived with %q, %v; want our error and nothing else", info.LastErr, err)
	}
	if err := r.inspector.RunTask(queue, "poison"); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, "the second chance", ran); got != "poison" {
		t.Errorf("ran %q", got)
	}
}

// TestStartsEnd: a start that comes to an end, good or bad, is not counted.
func TestStartsEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	failing := true
	ended := make(chan struct{}, 10)
	w := r.start(func(context.Context, tasks.Job, []byte) (any, error) {
		defer func() { ended <- struct{}{} }()
		if failing {
			failing = false
			panic("once")
		}
		return nil, nil
	})
	ctx := context.Background()
	r.enqueue("a")
	receive(t, "the first try", ended)
	until(t, "waiting for its retry", func() bool { return r.state("a") == asynq.TaskStateRetry })
	if n := r.redis.Client.Exists(ctx, w.keys.Starts("a")).Val(); n != 0 {
		t.Errorf("starts are still counted after the try has failed")
	}
	if err := r.inspector.RunTask(queue, "a"); err != nil {
		t.Fatal(err)
	}
	receive(t, "the second try", ended)
	until(t, "gone", func() bool { return r.state("a") == 0 })
	if n := r.redis.Client.Exists(ctx, w.keys.Starts("a")).Val(); n != 0 {
		t.Errorf("starts are still counted after the task has succeeded")
	}
}
