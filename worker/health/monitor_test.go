package health

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/snapshot"
)

func TestCheckRealRedis(t *testing.T) {
	ctx := context.Background()
	queue := redistest.Start(t, "--appendonly", "yes")
	cache := redistest.Start(t, "--maxmemory", "64mb", "--maxmemory-policy", "volatile-lfu")
	counts := 0
	m := newMonitor(t, queue.Client, cache.Client, func(d *Deps) {
		d.Count = func(_ context.Context, id string) (int64, error) { counts++; return 40, nil }
		d.Rollback = func(context.Context) (string, error) { return "flip to r1", nil }
	})
	l := m.d.Ledger
	addRelease(t, l, "r1", true)
	addRelease(t, l, "r2", true)
	if err := l.SetDoc(ctx, "r2", release.DocCertificate, map[string]any{"entries": 100}); err != nil {
		t.Fatal(err)
	}
	if err := l.SetDoc(ctx, "r1", release.DocSnapshot, snapshot.Descriptor{Release: "r1", VerifiedAt: time.Now()}); err != nil {
		t.Fatal(err)
	}
	stop := serveLanes(t, m)
	enqueueArchived(t, m)

	r, err := m.Check(ctx, tasks.Alone("test"), tasks.Health{By: testBy})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]Status{"tasks.archived": Warn, "active.entries": Warn} // 40 of 100 entries
	for _, c := range r.Checks {
		if s, ok := want[c.Name]; ok && c.Status != s || !ok && c.Status != OK {
			t.Errorf("%s: got %s: %s", c.Name, c.Status, c.Detail)
		}
	}
	if r.Status != Warn {
		t.Errorf("status %s, want warn", r.Status)
	}

	// The count is kept until it is old.
	for range 2 {
		if _, err := m.Check(ctx, tasks.Alone("test"), tasks.Health{By: testBy}); err != nil {
			t.Fatal(err)
		}
	}
	if counts != 1 {
		t.Errorf("counted %d times, want once", counts)
	}
	later := time.Now().Add(m.cfg.HealthCountEvery + time.Second)
	m.now = func() time.Time { return later }
	if _, err := m.Check(ctx, tasks.Alone("test"), tasks.Health{By: testBy}); err != nil {
		t.Fatal(err)
	}
	if counts != 2 {
		t.Errorf("counted %d times, want twice", counts)
	}

	// A cache Redis that is gone fails its own check and makes the others about it unknown.
	stop()
	cache.Stop()
	m.cfg.HealthTimeout = time.Second
	r, err = m.Check(ctx, tasks.Alone("test"), tasks.Health{By: testBy})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]Status{
		"cache.answers": Fail, "cache.tags": Unknown, "cache.memory": Unknown, "cache.evictions": Unknown,
		"queue.answers": OK, "queue.persistence": OK, "workers": Fail,
	} {
		if c := find(t, r.Checks, name); c.Status != want {
			t.Errorf("%s: got %s (%s), want %s", name, c.Status, c.Detail, want)
		}
	}
	if latest, err := m.Latest(ctx); err != nil || latest.Status != Fail || !latest.At.Equal(r.At) {
		t.Errorf("latest report: %v %v %v, want the one just made", latest.At, latest.Status, err)
	}
}

// serveLanes starts one asynq server for every lane and returns its stop.
func serveLanes(t *testing.T, m *Monitor) (stop func()) {
	t.Helper()
	queues := make(map[string]int)
	for _, l := range tasks.Lanes() {
		queues[l.Queue(testApp)] = 1
	}
	srv := asynq.NewServerFromRedisClient(m.d.Queue, asynq.Config{Queues: queues, Concurrency: 1, LogLevel: asynq.FatalLevel, ShutdownTimeout: time.Second})
	if err := srv.Start(asynq.NewServeMux()); err != nil {
		t.Fatal(err)
	}
	await(t, "the lanes' server in the list", func() bool {
		n, err := m.laneServers(context.Background())
		return err == nil && len(n) == len(queues)
	})
	return srv.Shutdown
}

// enqueueArchived leaves one task in the warm lane that was given up.
func enqueueArchived(t *testing.T, m *Monitor) {
	t.Helper()
	c := asynq.NewClientFromRedisClient(m.d.Queue)
	queue := tasks.LaneWarm.Queue(testApp)
	info, err := c.Enqueue(asynq.NewTask("x", nil), asynq.Queue(queue), asynq.ProcessIn(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.inspector.ArchiveTask(queue, info.ID); err != nil {
		t.Fatal(err)
	}
}

// await polls a condition that something outside the test brings about.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-limit.C:
			t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

func TestEvictionsAreNoticed(t *testing.T) {
	ctx := context.Background()
	queue := redistest.Start(t)
	cache := redistest.Start(t, "--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru")
	m := newMonitor(t, queue.Client, cache.Client, nil)
	r, err := m.Check(ctx, tasks.Alone("test"), tasks.Health{By: testBy})
	if err != nil {
		t.Fatal(err)
	}
	if c := find(t, r.Checks, "cache.tags"); c.Status != Fail {
		t.Errorf("tags: got %s, want fail", c.Status)
	}
	value := strings.Repeat("x", 10_000)
	for i := range 400 {
		if err := cache.Client.Set(ctx, fmt.Sprint(i), value, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []Status{Warn, OK} { // then nothing grows any more
		r, err = m.Check(ctx, tasks.Alone("test"), tasks.Health{By: testBy})
		if err != nil {
			t.Fatal(err)
		}
		if c := find(t, r.Checks, "cache.evictions"); c.Status != want {
			t.Errorf("report %d: got %s (%s), want %s", i, c.Status, c.Detail, want)
		}
	}
}

func TestCheckEmbeddedRedis(t *testing.T) {
	ctx := context.Background()
	client := redistest.Mini(t)
	m := newMonitor(t, client, client, nil)
	m.cfg.HealthKeep = 3
	if _, err := m.Latest(ctx); !errors.Is(err, tasks.ErrNotFound) {
		t.Errorf("no report yet: got %v", err)
	}
	var last Report
	for range 5 {
		r, err := m.Check(ctx, tasks.Alone("test"), tasks.Health{By: testBy})
		if err != nil {
			t.Fatal(err)
		}
		last = r
	}
	for _, name := range []string{"queue.policy", "queue.persistence", "queue.memory", "cache.tags", "cache.persistence", "cache.memory", "cache.evictions"} {
		if c := find(t, last.Checks, name); c.Status != Unknown {
			t.Errorf("%s: got %s (%s), want unknown", name, c.Status, c.Detail)
		}
	}
	for _, c := range last.Checks {
		if c.Status == Fail && c.Name != "workers" { // none runs in this test
			t.Errorf("%s failed: %s", c.Name, c.Detail)
		}
	}
	reports, err := m.History(ctx, 10)
	if err != nil || len(reports) != 3 || !reports[0].At.Equal(last.At) {
		t.Errorf("history: %d reports, %v; want the newest 3", len(reports), err)
	}
	if _, err := m.History(ctx, 0); !errors.Is(err, tasks.ErrInvalid) {
		t.Errorf("history of 0: got %v", err)
	}
}

func TestCheckWithoutQueue(t *testing.T) {
	queue := redistest.Start(t)
	cache := redistest.Mini(t)
	m := newMonitor(t, queue.Client, cache, nil)
	queue.Kill()
	m.cfg.HealthTimeout = 300 * time.Millisecond
	r, err := m.Check(context.Background(), tasks.Alone("test"), tasks.Health{By: testBy})
	if err == nil {
		t.Error("a report that cannot be stored must be an error")
	}
	if c := find(t, r.Checks, "queue.answers"); c.Status != Fail {
		t.Errorf("got %s, want fail", c.Status)
	}
	if c := find(t, r.Checks, "cache.answers"); c.Status != OK {
		t.Errorf("got %s (%s), want ok", c.Status, c.Detail)
	}
}

func TestCheckCacheRedis(t *testing.T) {
	ctx := context.Background()
	cfg := defaults(t)
	bad := redistest.Start(t, "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru")
	err := CheckCacheRedis(ctx, bad.Client, cfg)
	if !errors.Is(err, tasks.ErrRefused) || !strings.Contains(err.Error(), "STOKER_ALLOW_TAG_INDEX_EVICTION") {
		t.Errorf("allkeys-lru: got %v, want a refusal that names the setting", err)
	}
	cfg.AllowTagIndexEviction = true
	if err := CheckCacheRedis(ctx, bad.Client, cfg); err != nil {
		t.Errorf("accepted: %v", err)
	}
	cfg.AllowTagIndexEviction = false
	if err := bad.Client.ConfigSet(ctx, "maxmemory-policy", "volatile-lru").Err(); err != nil {
		t.Fatal(err)
	}
	if err := CheckCacheRedis(ctx, bad.Client, cfg); err != nil {
		t.Errorf("volatile-lru: %v", err)
	}
	if err := CheckCacheRedis(ctx, redistest.Mini(t), cfg); err != nil {
		t.Errorf("embedded: %v", err)
	}
}
