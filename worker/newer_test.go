package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/alphanode/stoker/tasks"
)

// enqueueNewer puts a rollback of a newer version into the release lane.
func (r *rig) enqueueNewer(id string, opts ...asynq.Option) {
	r.t.Helper()
	all := append([]asynq.Option{asynq.Queue(queue), asynq.TaskID(id), asynq.MaxRetry(3), asynq.Timeout(time.Minute)}, opts...)
	if _, err := r.asynq.Enqueue(asynq.NewTask(tasks.TypeRollback, []byte(`{"v":2,"novelty":true}`)), all...); err != nil {
		r.t.Fatal(err)
	}
}

// old is a worker's handler that reads what this stoker reads.
func old(begun chan<- string) Handler {
	return decoded(func(_ context.Context, j tasks.Job, _ tasks.Rollback) (any, error) {
		begun <- j.ID()
		return nil, nil
	})
}

// What only a newer worker can read stays in its queue, at no cost, and says why; such a worker carries it out.
func TestNewerIsLeft(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	begun := make(chan string, 10)
	w := r.start(old(begun))
	r.enqueueNewer("new")
	until(t, "left", func() bool { return r.state("new") == asynq.TaskStateRetry })
	info, err := r.inspector.GetTaskInfo(queue, "new")
	if err != nil || info.Retried != 0 {
		t.Errorf("left as %+v, %v; want no retry spent", info, err)
	}
	for _, want := range []string{"version 2", "up to version 1", "upgrade this worker"} {
		if !strings.Contains(info.LastErr, want) || !strings.Contains(r.log.String(), want) {
			t.Errorf("%q is not said: %s", want, info.LastErr)
		}
	}
	if soon := time.Until(info.NextProcessAt); soon > 2*time.Second {
		t.Errorf("it rests for %v", soon)
	}
	r.enqueue("known")
	if got := receive(t, "the next task", begun); got != "known" {
		t.Errorf("%s was begun", got)
	}
	w.Stop()
	r.start(func(_ context.Context, j tasks.Job, _ []byte) (any, error) { begun <- j.ID(); return nil, nil })
	if got := receive(t, "the newer worker", begun); got != "new" {
		t.Errorf("%s was begun", got)
	}
}

// Where no newer worker comes, what was left comes back ever less often.
func TestLeftRestsEverLonger(t *testing.T) {
	newer := fmt.Errorf("decode: %w", tasks.ErrNewer)
	before := time.Duration(0)
	for times := 1; times <= 100; times++ {
		d := retryDelay(0, left{newer, times}, nil)
		switch {
		case d < leaveFor || d > leaveAtMax+leaveAtMax/4:
			t.Errorf("the time %d: %v", times, d)
		case times <= leaveSoon && d > 2*leaveFor:
			t.Errorf("the time %d: %v, while a newer worker may be starting", times, d)
		case times > 2*leaveSoon && d < before*3/4:
			t.Errorf("the time %d: %v, after %v", times, d, before)
		}
		before = d
	}
	if !errors.Is(left{newer, 1}, tasks.ErrNewer) || isFailure(left{newer, 1}) {
		t.Error("what was left costs a retry")
	}
}

// A type that there is not yet is something newer, too.
func TestNewTypeIsLeft(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(old(nil))
	task := asynq.NewTask("release:novelty", []byte(`{"v":1}`))
	if _, err := r.asynq.Enqueue(task, asynq.Queue(queue), asynq.TaskID("new"), asynq.MaxRetry(3), asynq.Timeout(time.Minute)); err != nil {
		t.Fatal(err)
	}
	until(t, "left", func() bool { return r.state("new") == asynq.TaskStateRetry })
	if info, err := r.inspector.GetTaskInfo(queue, "new"); err != nil || info.Retried != 0 || !strings.Contains(info.LastErr, `"release:novelty"`) {
		t.Errorf("left as %+v, %v", info, err)
	}
}

// asynq archives a task on its last try for any error: the next round brings back one that was only left.
func TestNewerOnItsLastTryIsRevived(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := context.Background()
	w := r.start(func(ctx context.Context, j tasks.Job, payload []byte) (any, error) {
		if j.ID() == "bad" {
			return nil, tasks.ErrRefused
		}
		return old(nil)(ctx, j, payload)
	})
	r.enqueueNewer("new", asynq.MaxRetry(0))
	r.enqueue("bad")
	until(t, "archived", func() bool {
		return r.state("new") == asynq.TaskStateArchived && r.state("bad") == asynq.TaskStateArchived
	})
	w.Stop()
	if n, err := (Queues{App: app, Queue: r.redis.Client}).Revive(ctx); err != nil || n != 1 {
		t.Errorf("revived %d, %v; want the one that is newer", n, err)
	}
	if got := r.state("bad"); got != asynq.TaskStateArchived {
		t.Errorf("what was refused is %v", got)
	}
	begun := make(chan string, 1)
	r.start(func(_ context.Context, j tasks.Job, _ []byte) (any, error) { begun <- j.ID(); return nil, nil })
	if got := receive(t, "the newer worker", begun); got != "new" {
		t.Errorf("%s was begun", got)
	}
}

// A worker that starts revives by itself.
func TestRevivedAtTheStart(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.enqueueNewer("new", asynq.MaxRetry(0))
	first := r.start(old(nil))
	until(t, "archived", func() bool { return r.state("new") == asynq.TaskStateArchived })
	first.Stop()
	begun := make(chan string, 1)
	r.start(func(_ context.Context, j tasks.Job, _ []byte) (any, error) { begun <- j.ID(); return nil, nil })
	if got := receive(t, "the newer worker", begun); got != "new" {
		t.Errorf("%s was begun", got)
	}
}

// A task that a newer worker has begun is not taken up by an older one: it would misread the cursor.
func TestCursorsOfEveryVersion(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := context.Background()
	j := &job{id: "a", cursor: tasks.KeysOf(app).Cursor("a"), queue: r.redis.Client}
	for cursor, newer := range map[string]bool{`{"Next":7}`: false, `{"v":1,"Next":7}`: false, `{"v":2,"Next":"seven"}`: true} {
		r.redis.Client.Set(ctx, j.cursor, cursor, 0)
		var at struct{ Next int }
		ok, err := j.Load(ctx, &at)
		switch {
		case newer && (!errors.Is(err, tasks.ErrNewer) || !strings.Contains(err.Error(), "version 2")):
			t.Errorf("%s: %v", cursor, err)
		case !newer && (err != nil || !ok || at.Next != 7):
			t.Errorf("%s: %+v, %v, %v", cursor, at, ok, err)
		}
	}
	if err := j.Save(ctx, struct{ Next int }{7}); err != nil {
		t.Fatal(err)
	}
	if got := r.redis.Client.Get(ctx, j.cursor).Val(); got != fmt.Sprintf(`{"v":%d,"Next":7}`, tasks.Cursors.For(1)) {
		t.Errorf("saved %s", got)
	}
	if err := j.Save(ctx, 7); err == nil {
		t.Error("a cursor without room for a version was saved")
	}
}
