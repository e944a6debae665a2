package worker

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// TestQueuesPrune: completed and archived tasks are bounded, and what asynq has lost sight of
// goes; what waits stays.
func TestQueuesPrune(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := newRig(t)
	w := r.start(func(_ context.Context, j tasks.Job, _ []byte) (any, error) {
		if j.ID()[:1] == "b" {
			return nil, tasks.ErrRefused
		}
		return "done", nil
	})
	for i := range 7 {
		r.enqueue(fmt.Sprintf("good-%d", i), asynq.Retention(time.Duration(i+1)*time.Hour))
		r.enqueue(fmt.Sprintf("bad-%d", i))
	}
	prefix := "asynq:{" + queue + "}:"
	size := func(part string) int64 { return r.redis.Client.ZCard(ctx, prefix+part).Val() }
	until(t, "all done", func() bool { return size("completed") == 7 && size("archived") == 7 })
	w.Stop()
	r.enqueue("good-waiting")
	r.redis.Client.ZRem(ctx, prefix+"archived", "bad-6")        // asynq's "archive all" does that
	r.redis.Client.HSet(ctx, prefix+"t:late", "result", "late") // a result after its task's end

	got, err := Queues{App: app, Queue: r.redis.Client, MaxCompleted: 3, MaxArchived: 2}.Prune(ctx)
	if err != nil || got != 4+4+2 {
		t.Errorf("pruned %d, %v; want 10", got, err)
	}
	if c, a := size("completed"), size("archived"); c != 3 || a != 2 {
		t.Errorf("kept %d completed and %d archived, want 3 and 2", c, a)
	}
	if r.state("good-6") != asynq.TaskStateCompleted || r.state("good-0") != 0 {
		t.Errorf("the oldest should go first: newest is %v, oldest %v", r.state("good-6"), r.state("good-0"))
	}
	hashes, err := r.redis.Client.Keys(ctx, prefix+"t:*").Result()
	if err != nil || len(hashes) != 3+2+1 {
		t.Errorf("%d task hashes left, want 6: %q, %v", len(hashes), hashes, err)
	}
}

// TestQueuesGone: a task is gone when no lane will ever run it again.
func TestQueuesGone(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := newRig(t)
	q := Queues{App: app, Queue: r.redis.Client}
	check := func(when string, want bool) {
		t.Helper()
		if got, err := q.Gone(ctx, "a"); err != nil || got != want {
			t.Errorf("%s: gone %v, %v; want %v", when, got, err, want)
		}
	}
	check("no queues", true)
	r.enqueue("b")
	check("never enqueued", true)
	r.enqueue("a")
	check("pending", false)
	r.lose("b")
	if err := r.redis.Client.ZAdd(ctx, "asynq:{"+queue+"}:retry", redis.Z{Score: 1, Member: "b"}).Err(); err != nil {
		t.Fatal(err)
	}
	if err := r.inspector.ArchiveTask(queue, "a"); err != nil {
		t.Fatal(err)
	}
	check("archived", true)
	if err := r.inspector.DeleteTask(queue, "a"); err != nil {
		t.Fatal(err)
	}
	check("deleted", true)
}
