package refresh

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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
	"github.com/alphanode/stoker/worker/warm"
	"github.com/alphanode/stoker/worker/warm/origin"
	"github.com/alphanode/stoker/worker/warm/query/sqltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var by = tasks.By{Actor: "ann", Reason: "a test"}

const limit = 30 * time.Second // of fills

// world is a site with its database and its cache: release r1 is active, r0 stands by.
type world struct {
	*testing.T
	server  *redistest.Server
	client  *redis.Client
	keys    tasks.Keys
	tmpl    tasks.Template
	log     *invalidation.Log
	ledger  *release.Ledger
	cache   *namespace.Cache
	applier *invalidation.Applier
	warmer  *warm.Runner
	tasks   *queue
	db      *sql.DB
	lines   *lines // that were logged
}

const plan = `version: 1
sources:
  - name: articles
    query: {driver: DRIVER, dsn_env: SITE_DSN, sql: "SELECT slug, title, author FROM posts"}
    entry: {key: "post:{{.slug}}", value: "{{.title}}", ttl: 24h, tags: ["author:{{.author}}"]}
`

func newWorld(t *testing.T, driver string) *world {
	t.Helper()
	server := redistest.Start(t)
	w := &world{T: t, server: server, client: server.Client, keys: tasks.KeysOf("site"), tasks: &queue{}, lines: &lines{}}
	var err error
	w.tmpl, err = tasks.ParseTemplate(tasks.DefaultTemplate, "site")
	w.must(err)
	w.ledger = release.Open(w.client, w.keys)
	w.log = invalidation.Open(w.client, w.keys, invalidation.Config{FillLimit: limit})
	w.cache = namespace.New(w.client, w.tmpl, w.keys, nil)
	w.applier = invalidation.NewApplier(w.log, w.client, w.tmpl, w.ledger.Live, w.cache)
	dsn := w.database(driver)
	here := origin.Default()
	here.CrawlNetworks = origin.Loopback()
	w.warmer, err = warm.New(warm.Config{WarmBatch: 8}, warm.Deps{
		Queue: w.client, Keys: w.keys, Ledger: w.ledger, Log: w.log, Check: w.log.Journal, Replay: w.applier,
		Cache: w.cache, Version: "test", Origins: origin.New(origin.Config{OriginConcurrency: 4, OriginPatience: time.Minute, CrawlNetworks: origin.Loopback()}, origin.Deps{}),
		Getenv: func(name string) string { return map[string]string{"SITE_DSN": dsn}[name] },
	})
	w.must(err)
	for _, id := range []string{"r0", "r1"} {
		w.must(w.ledger.Create(t.Context(), release.Record{ID: id, Template: tasks.DefaultTemplate}, by))
		_, err := w.ledger.Flip(t.Context(), id, release.New, by)
		w.must(err)
	}
	w.planned("r1", strings.Replace(plan, "DRIVER", driver, 1))
	return w
}

// database makes the site's database and returns its DSN.
func (w *world) database(driver string) (dsn string) {
	w.Helper()
	name := driver
	if driver == "postgres" {
		dsn, name = sqltest.Postgres(w.T), "pgx"
	} else {
		dsn = "file:" + filepath.Join(w.TempDir(), "site.db") + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(wal)&_pragma=synchronous(off)"
	}
	var err error
	w.db, err = sql.Open(name, dsn)
	w.must(err)
	w.Cleanup(func() { w.must(w.db.Close()) })
	w.exec("CREATE TABLE posts (slug VARCHAR(40) PRIMARY KEY, title TEXT, author TEXT)")
	return dsn
}

func (w *world) exec(text string) {
	w.Helper()
	_, err := w.db.ExecContext(w.Context(), text)
	w.must(err)
}

// edit sets an article's title at the origin.
func (w *world) edit(slug, title string) {
	w.Helper()
	w.exec(fmt.Sprintf("INSERT INTO posts (slug, title, author) VALUES ('%s', '%s', 'ann') ON CONFLICT (slug) DO UPDATE SET title = excluded.title", slug, title))
}

// planned gives a release a run with a plan.
func (w *world) planned(id, text string) {
	w.Helper()
	run := "run-" + id
	w.must(w.client.HSet(w.Context(), w.keys.Run(run), "release", id, "plan", text, "status", "pass").Err())
	w.must(w.client.ZAdd(w.Context(), w.keys.Runs(id), redis.Z{Score: 1, Member: run}).Err())
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// refresher returns one worker's refresher; change may alter what it works with.
func (w *world) refresher(change ...func(*Deps)) *Refresher {
	w.Helper()
	deps := Deps{
		Queue: w.client, Cache: w.client, Keys: w.keys, Template: w.tmpl, Live: w.ledger.Live,
		Sources: func(ctx context.Context, id string) (Sources, error) { return w.warmer.Lookup(ctx, id) },
		Fill:    tasks.NewFiller(w.log.Journal, w.client, w.tmpl, limit), Check: w.log.Journal, Tasks: w.tasks,
		Log: slog.New(slog.NewTextHandler(w.lines, nil)),
	}
	for _, c := range change {
		c(&deps)
	}
	r, err := New(Config{RefreshLimit: 10_000}, deps)
	w.must(err)
	r.rest = 100 * time.Millisecond
	return r
}

// put stores an entry as the site has it before an edit.
func (w *world) put(id, key, value string, tags ...string) {
	w.Helper()
	w.must(w.cache.Put(w.Context(), id, []namespace.Put{{Entry: tasks.Entry{Key: key, Type: tasks.EntryString, Value: value}, Tags: tags}}))
}

// value returns an entry's value; "-" when it is not there.
func (w *world) value(id, key string) string {
	w.Helper()
	v, err := w.client.Get(w.Context(), w.tmpl.Key(id, key)).Result()
	if err == redis.Nil {
		return "-"
	}
	w.must(err)
	return v
}

func (w *world) record(targets []tasks.Target) int64 {
	w.Helper()
	n, err := w.log.Record(w.Context(), tasks.Record{ID: rand.Text(), Calls: []tasks.Invalidation{{Targets: targets, By: by}}})
	w.must(err)
	return n
}

// apply carries out all that is pending.
func (w *world) apply(r *Refresher) {
	w.Helper()
	a := invalidation.NewApplier(w.log, w.client, w.tmpl, w.ledger.Live, w.cache)
	if r != nil {
		a.Refresh = r
	}
	_, err := a.Sweep(w.Context(), 0)
	w.must(err)
}

// invalidate records a call with refresh and applies it.
func (w *world) invalidate(r *Refresher, targets ...tasks.Target) {
	w.Helper()
	_, err := w.log.Record(w.Context(), tasks.Record{ID: rand.Text(), Calls: []tasks.Invalidation{{Targets: targets, Refresh: true, By: by}}})
	w.must(err)
	w.apply(r)
}

func (w *world) drain(r *Refresher, id string) Refreshed {
	w.Helper()
	got, err := r.Refresh(w.Context(), tasks.Alone("test"), tasks.Refresh{Release: id})
	w.must(err)
	return got
}

// dirtyKeys returns the keys of a release that are dirty.
func (w *world) dirtyKeys(id string) []string {
	w.Helper()
	keys, err := w.client.HKeys(w.Context(), w.keys.Dirty(id)).Result()
	w.must(err)
	slices.Sort(keys)
	return keys
}

// clean checks that a drain has left nothing behind.
func (w *world) clean(id string) {
	w.Helper()
	n, err := w.client.Exists(w.Context(), w.keys.Dirty(id), w.keys.DirtyQueue(id), w.keys.DirtyRest(id), w.keys.DirtyLease(id)).Result()
	w.must(err)
	if n != 0 || w.client.SIsMember(w.Context(), w.keys.DirtyReleases(), id).Val() {
		w.Errorf("release %s: %d of the refresh's keys are left", id, n)
	}
}

func key(name string) tasks.Target { return tasks.Target{Kind: tasks.KindKey, Name: tasks.Bytes(name)} }
func tag(name string) tasks.Target { return tasks.Target{Kind: tasks.KindTag, Name: tasks.Bytes(name)} }
func prefix(name string) tasks.Target {
	return tasks.Target{Kind: tasks.KindPrefix, Name: tasks.Bytes(name)}
}

// queue is where refreshes are asked for.
type queue struct {
	mu    sync.Mutex
	asked []string // releases
	err   error
}

func (q *queue) Enqueue(_ context.Context, p tasks.Payload, _ ...asynq.Option) (string, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return "", q.err
	}
	q.asked = append(q.asked, p.(tasks.Refresh).Release)
	return "id", nil
}

// lines is a log for a test to look into.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// hooked are sources that do something before and after each load.
type hooked struct {
	Sources
	before func(keys []string)
	after  func(warm.Found)
}

func (h hooked) Find(ctx context.Context, keys []string, fn func(warm.Found) error) error {
	h.before(keys)
	return h.Sources.Find(ctx, keys, func(f warm.Found) error {
		if h.after != nil {
			h.after(f)
		}
		return fn(f)
	})
}

// hook returns a change of a refresher's sources.
func (w *world) hook(before func(keys []string), after func(warm.Found)) func(*Deps) {
	return func(d *Deps) {
		open := d.Sources
		d.Sources = func(ctx context.Context, id string) (Sources, error) {
			s, err := open(ctx, id)
			if err != nil {
				return nil, err
			}
			return hooked{s, before, after}, nil
		}
	}
}
