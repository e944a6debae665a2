package scheduler

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
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

// rig is a queue Redis with what the tests need around it.
type rig struct {
	t         *testing.T
	redis     *redis.Client
	client    *tasks.Client
	inspector *asynq.Inspector
	log       *logBuffer

	mu    sync.Mutex
	warms map[string]tasks.WarmRequest
}

func newRig(t *testing.T) *rig {
	t.Helper()
	c := redistest.Mini(t)
	client, err := tasks.NewClientFrom(c, c, tasks.Config{App: app, FillLimit: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return &rig{t: t, redis: c, client: client, inspector: asynq.NewInspectorFromRedisClient(c), log: &logBuffer{}, warms: map[string]tasks.WarmRequest{}}
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

func (r *rig) deps() Deps {
	return Deps{
		App: app, Queue: r.redis, Client: r.client,
		Dial: func() (redis.UniversalClient, error) {
			return redis.NewClient(&redis.Options{Addr: r.redis.Options().Addr}), nil
		},
		Warm: func(_ context.Context, run string, w tasks.WarmRequest) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.warms[run] = w
			return nil
		},
		Log: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

// scheduler returns one that has not been started, at a time of the test's choice.
func (r *rig) scheduler(path string, now *time.Time) *Scheduler {
	r.t.Helper()
	s, err := New(Config{Schedule: path}, r.deps())
	if err != nil {
		r.t.Fatal(err)
	}
	if now != nil {
		s.now = func() time.Time { return *now }
	}
	r.t.Cleanup(s.Stop)
	return s
}

// file writes a schedule into a file that tests may change.
func (r *rig) file(text string) string {
	r.t.Helper()
	path := filepath.Join(r.t.TempDir(), "schedule.yaml")
	r.rewrite(path, text)
	return path
}

func (r *rig) rewrite(path, text string) {
	r.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// pending returns the IDs of the tasks that wait in a lane, oldest first.
func (r *rig) pending(lane tasks.Lane) []string {
	r.t.Helper()
	list, err := r.inspector.ListPendingTasks(lane.Queue(app))
	if err != nil && !errors.Is(err, asynq.ErrQueueNotFound) {
		r.t.Fatal(err)
	}
	ids := []string{}
	for _, t := range list {
		ids = append(ids, t.ID)
	}
	return ids
}

// activate makes a release the active one.
func (r *rig) activate(id string) {
	r.t.Helper()
	if err := r.redis.Set(context.Background(), tasks.KeysOf(app).Active(), id, 0).Err(); err != nil {
		r.t.Fatal(err)
	}
}

func at(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return t
}

// until waits for a condition.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func contains(text string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(text, p) {
			return false
		}
	}
	return true
}
