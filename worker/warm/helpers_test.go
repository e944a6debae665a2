package warm

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/redistest"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/warm/origin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var by = tasks.By{Actor: "ann", Reason: "a test"}

const (
	articles = 240 // rows of the site's database: three pages
	pages    = 24  // of the site: three batches
	assets   = 40  // entries of family asset: in release r0
)

// rig is a site with its cache: one Redis for everything, a database, the new build's instance,
// release r0 active, release r1 new. The instance writes an entry for every page it answers.
type rig struct {
	*Runner
	t       testing.TB
	client  *redis.Client
	keys    tasks.Keys
	ledger  *release.Ledger
	log     *invalidation.Log
	applier *invalidation.Applier
	cache   *namespace.Cache
	tasks   *taskStore
	jobs    *jobStore
	site    *httptest.Server
	broken  atomic.Bool // the instance answers 404
}

const sitePlan = `version: 1
sources:
  - name: articles
    query: {driver: sqlite, dsn_env: SITE_DSN, sql: "SELECT slug, title FROM posts", page: {by: slug, size: 100}}
    entry: {key: "post:{{.slug}}", ttl: 24h, jitter: 10%, tags: ["all", "post:{{.slug}}"]}
  - name: pages
    crawl: {base: "SITE", sitemap: /sitemap.xml}
    expect: {key: "page:{{.Path}}"}
  - name: assets
    carry: {from: active, families: ["asset:"]}
certificate: {coverage: 99%, sample: 50}
`

// fillDatabase makes the site's database and returns its DSN.
func fillDatabase(t testing.TB) string {
	t.Helper()
	dsn := "file:" + filepath.Join(t.TempDir(), "site.db")
	db, err := sql.Open("sqlite", dsn)
	must(t, err)
	defer db.Close()
	_, err = db.ExecContext(t.Context(), "CREATE TABLE posts (slug TEXT PRIMARY KEY, title TEXT)")
	must(t, err)
	_, err = db.ExecContext(t.Context(), fmt.Sprintf(
		"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n WHERE i < %d) INSERT INTO posts SELECT 'a'||i, 'Title '||i FROM n", articles-1))
	must(t, err)
	return dsn
}

// local is the configuration of origins on this machine.
func local() origin.Config {
	cfg := origin.Default()
	cfg.CrawlNetworks = origin.Loopback()
	return cfg
}

func newRig(t testing.TB) *rig {
	t.Helper()
	server := redistest.Start(t)
	g := &rig{t: t, client: server.Client, keys: tasks.KeysOf("site"), tasks: &taskStore{}, jobs: &jobStore{}}
	tmpl, err := tasks.ParseTemplate(tasks.DefaultTemplate, "site")
	must(t, err)
	g.ledger = release.Open(g.client, g.keys)
	g.log = invalidation.Open(g.client, g.keys, invalidation.Config{})
	g.cache = namespace.New(g.client, tmpl, g.keys, nil)
	g.applier = invalidation.NewApplier(g.log, g.client, tmpl, g.ledger.Live, g.cache)
	g.site = httptest.NewServer(http.HandlerFunc(g.answer))
	t.Cleanup(g.site.Close)
	dsn := fillDatabase(t)
	g.Runner, err = New(Config{WarmBatch: 8}, Deps{
		Queue: g.client, Keys: g.keys, Ledger: g.ledger, Log: g.log, Check: g.log.Journal, Replay: g.applier,
		Cache: g.cache, Tasks: g.tasks, Version: "test", Origins: origin.New(local(), origin.Deps{}),
		Getenv: func(name string) string { return map[string]string{"SITE_DSN": dsn}[name] },
	})
	must(t, err)
	t.Cleanup(g.Runner.Close)
	g.reset()
	return g
}

// reset brings everything but the database back to the beginning.
func (g *rig) reset() {
	g.t.Helper()
	ctx := g.t.Context()
	must(g.t, g.client.FlushAllAsync(ctx).Err())
	g.tasks.all, g.jobs.cursors = nil, nil
	for _, id := range []string{"r0", "r1"} {
		must(g.t, g.ledger.Create(ctx, release.Record{ID: id, Template: tasks.DefaultTemplate}, by))
	}
	_, err := g.ledger.Flip(ctx, "r0", release.New, by)
	must(g.t, err)
	var puts []namespace.Put
	for i := range assets {
		puts = append(puts, entryOf(fmt.Sprintf("asset:%d", i), "asset"), entryOf(fmt.Sprintf("other:%d", i), "v"))
	}
	must(g.t, g.cache.Put(ctx, "r0", puts))
}

func entryOf(key string, tags ...string) namespace.Put {
	return namespace.Put{Entry: tasks.Entry{Key: key, Type: tasks.EntryString, Value: "old"}, Tags: tags}
}

// answer is the new build's instance: it fills its own cache, release r1's.
func (g *rig) answer(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/sitemap.xml" {
		fmt.Fprint(w, "<urlset>")
		for i := range pages {
			fmt.Fprintf(w, "<url><loc>https://www.example.com/p%d</loc></url>", i)
		}
		fmt.Fprint(w, "</urlset>")
		return
	}
	if g.broken.Load() {
		http.NotFound(w, r)
		return
	}
	if err := g.cache.Put(context.WithoutCancel(r.Context()), "r1", []namespace.Put{entryOf("page:"+r.URL.Path, "page")}); err != nil {
		w.WriteHeader(http.StatusTeapot) // not a status that is tried again
	}
	fmt.Fprint(w, "page")
}

func (g *rig) plan() string { return strings.Replace(sitePlan, "SITE\"", g.site.URL+"\"", 1) }

// start stores a run's record as [tasks.Client.Warm] does, and returns its first task.
func (g *rig) start(run, id, plan string) tasks.WarmRun {
	g.t.Helper()
	ctx := g.t.Context()
	must(g.t, g.client.HSet(ctx, g.keys.Run(run), "release", id, "plan", plan, "sample", 0, "status", "queued", "created_at", 1).Err())
	must(g.t, g.client.ZAdd(ctx, g.keys.Runs(id), redis.Z{Score: 1, Member: run}).Err())
	return tasks.WarmRun{Run: run, Release: id, By: by}
}

// sampledStart is start for a share of the keys.
func (g *rig) sampledStart(run, id string, share float64) tasks.WarmRun {
	g.t.Helper()
	p := g.start(run, id, g.plan())
	p.Sample = share
	must(g.t, g.client.HSet(g.t.Context(), g.keys.Run(run), "sample", share).Err())
	return p
}

// runBatches runs every batch that was enqueued, in order, and returns the first error.
func (g *rig) runBatches() error {
	for _, b := range g.tasks.batches() {
		if _, err := g.Batch(g.t.Context(), g.jobs.job(BatchTaskID(b)), b); err != nil {
			return err
		}
	}
	return nil
}

// warm does a whole run.
func (g *rig) warm(p tasks.WarmRun) RunStatus {
	g.t.Helper()
	_, err := g.Run(g.t.Context(), g.jobs.job("run"), p)
	must(g.t, err)
	must(g.t, g.runBatches())
	return g.status(p.Run)
}

func (g *rig) status(run string) RunStatus {
	g.t.Helper()
	s, err := Status(g.t.Context(), g.client, g.keys, run)
	must(g.t, err)
	return s
}

func (g *rig) record1() release.Record {
	g.t.Helper()
	rec, err := g.ledger.Get(g.t.Context(), "r1")
	must(g.t, err)
	return rec
}

func (g *rig) invalidate(targets ...tasks.Target) int64 {
	n, err := g.log.Record(context.Background(), tasks.Record{ID: fmt.Sprint(time.Now()), Calls: []tasks.Invalidation{{Targets: targets, By: by}}})
	must(g.t, err)
	return n
}

func (g *rig) exists(id, key string) bool {
	g.t.Helper()
	found, err := g.cache.Lookup(g.t.Context(), id, []string{key})
	must(g.t, err)
	return found[0].Exists
}

func (g *rig) entries(id string) int64 {
	g.t.Helper()
	u, err := g.cache.Usage(g.t.Context(), id)
	must(g.t, err)
	return u.Entries
}

func (g *rig) openMarks(id string) int64 {
	g.t.Helper()
	n, err := g.client.ZCard(g.t.Context(), g.keys.Marks(id)).Result()
	must(g.t, err)
	return n
}

// taskStore is a queue that keeps batches by their task ID.
type taskStore struct {
	mu     sync.Mutex
	all    []tasks.WarmBatch
	calls  int
	broken func(call int) (before, after error)
}

var _ Enqueuer = (*taskStore)(nil)

func (s *taskStore) Enqueue(_ context.Context, p tasks.Payload, opts ...asynq.Option) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, id := p.(tasks.WarmBatch), ""
	for _, o := range opts {
		if o.Type() == asynq.TaskIDOpt {
			id = o.Value().(string)
		}
	}
	s.calls++
	var before, after error
	if s.broken != nil {
		before, after = s.broken(s.calls)
	}
	if before != nil {
		return id, before
	}
	for _, have := range s.all {
		if BatchTaskID(have) == id {
			return id, asynq.ErrTaskIDConflict
		}
	}
	s.all = append(s.all, b)
	return id, after
}

func (s *taskStore) batches() []tasks.WarmBatch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]tasks.WarmBatch(nil), s.all...)
}

// jobStore keeps the cursors of jobs.
type jobStore struct {
	mu      sync.Mutex
	cursors map[string][]byte
	saves   int
	drainAt int // the save at which the worker begins to stop; 0 for never
}

func (s *jobStore) job(id string) *testJob {
	return &testJob{store: s, id: id, draining: make(chan struct{})}
}

type testJob struct {
	store    *jobStore
	id       string
	draining chan struct{}
}

var _ tasks.Job = (*testJob)(nil)

func (j *testJob) ID() string { return j.id }

func (j *testJob) Load(_ context.Context, v any) (bool, error) {
	j.store.mu.Lock()
	defer j.store.mu.Unlock()
	raw, ok := j.store.cursors[j.id]
	if !ok {
		return false, nil
	}
	return true, json.Unmarshal(raw, v)
}

func (j *testJob) Save(_ context.Context, v any) error {
	j.store.mu.Lock()
	defer j.store.mu.Unlock()
	raw, err := json.Marshal(v)
	if j.store.cursors == nil {
		j.store.cursors = map[string][]byte{}
	}
	j.store.cursors[j.id] = raw
	if j.store.saves++; j.store.saves == j.store.drainAt {
		close(j.draining)
	}
	return err
}

func (j *testJob) Progress(string, int64, int64) {}

func (j *testJob) Draining() <-chan struct{} { return j.draining }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
