package worker

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const app = "site"

// patience bounds every wait of the tests.
const patience = 20 * time.Second

var by = tasks.By{Actor: "ann"}

// rig is a queue Redis with what the tests need around it.
type rig struct {
	t         *testing.T
	redis     *redistest.Server
	asynq     *asynq.Client
	inspector *asynq.Inspector
	log       *logBuffer
}

func newRig(t *testing.T, args ...string) *rig {
	t.Helper()
	s := redistest.Start(t, args...)
	return &rig{
		t: t, redis: s, log: &logBuffer{},
		asynq:     asynq.NewClientFromRedisClient(s.Client),
		inspector: asynq.NewInspectorFromRedisClient(s.Client),
	}
}

// logBuffer is a log that tests may read while it is written.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (r *rig) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (r *rig) dial() (redis.UniversalClient, error) {
	return redis.NewClient(&redis.Options{Addr: r.redis.Addr}), nil
}

func testConfig(lanes ...tasks.Lane) Config {
	return Config{
		Lanes: lanes, InvalidateConcurrency: 1, BulkConcurrency: 1, RefreshConcurrency: 1, ReleaseConcurrency: 1, WarmConcurrency: 1,
		UpkeepConcurrency: 1, HealthConcurrency: 1, NotifyConcurrency: 1, GracePeriod: 5 * time.Second,
	}
}

// start starts a worker of the release lane, which is polled often, with one handler there.
func (r *rig) start(handle Handler, change ...func(*Config, *Deps)) *Worker {
	r.t.Helper()
	cfg := testConfig(tasks.LaneRelease)
	deps := Deps{App: app, Queue: r.redis.Client, Dial: r.dial, Handlers: Handlers{tasks.TypeRollback: handle}, Log: r.logger()}
	for _, f := range change {
		f(&cfg, &deps)
	}
	w, err := New(cfg, deps)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := w.Start(context.Background()); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(w.Stop)
	return w
}

var queue = tasks.LaneRelease.Queue(app)

// enqueue puts a rollback into the release lane.
func (r *rig) enqueue(id string, opts ...asynq.Option) {
	r.t.Helper()
	body, err := tasks.Encode(tasks.Rollback{By: by})
	if err != nil {
		r.t.Fatal(err)
	}
	all := append([]asynq.Option{asynq.Queue(queue), asynq.TaskID(id), asynq.MaxRetry(3), asynq.Timeout(time.Minute)}, opts...)
	if _, err := r.asynq.Enqueue(asynq.NewTask(tasks.TypeRollback, body), all...); err != nil {
		r.t.Fatal(err)
	}
}

// lose makes a pending task one whose worker died a minute ago.
func (r *rig) lose(id string) {
	r.t.Helper()
	ctx := context.Background()
	prefix := "asynq:{" + queue + "}:"
	if err := r.redis.Client.LMove(ctx, prefix+"pending", prefix+"active", "RIGHT", "LEFT").Err(); err != nil {
		r.t.Fatal(err)
	}
	r.redis.Client.HSet(ctx, prefix+"t:"+id, "state", "active")
	r.expireLease(id)
}

func (r *rig) expireLease(id string) {
	r.t.Helper()
	then := float64(time.Now().Add(-time.Minute).Unix())
	if err := r.redis.Client.ZAdd(context.Background(), "asynq:{"+queue+"}:lease", redis.Z{Score: then, Member: id}).Err(); err != nil {
		r.t.Fatal(err)
	}
}

// state returns a task's state; 0 when the task is gone.
func (r *rig) state(id string) asynq.TaskState {
	info, err := r.inspector.GetTaskInfo(queue, id)
	if err != nil {
		return 0
	}
	return info.State
}

// until waits for a condition.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// receive waits for a value.
func receive[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("not within %v: %s", patience, what)
	}
	return v
}

var discard = slog.New(slog.NewTextHandler(io.Discard, nil))
