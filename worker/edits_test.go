package worker

import (
	"bufio"
	"compress/gzip"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/redistest"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/warm"
)

const realEdits = "../../shared/data/events.jsonl.gz"

// change is what an edit did to one article.
type change struct{ Op, Slug, From string }

// readEdits returns the edit history of a real site, oldest first.
func readEdits(t *testing.T) (edits [][]change) {
	t.Helper()
	f, err := os.Open(realEdits)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("%s is absent", realEdits)
	}
	must(t, err)
	defer func() { _ = f.Close() }()
	zip, err := gzip.NewReader(f)
	must(t, err)
	lines := bufio.NewScanner(zip)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e struct{ Changes []change }
		must(t, json.Unmarshal(lines.Bytes(), &e))
		edits = append(edits, e.Changes)
	}
	must(t, lines.Err())
	return edits
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// article is what the origin holds under a slug. Its tag changes with every edit.
type article struct {
	Slug    string `json:"slug"`
	Version int64  `json:"version"`
	Tag     string `json:"tag"`
	gone    bool
}

// articles is a site's database with what it holds, for those who must not wait for a query.
type articles struct {
	db  *sql.DB
	dsn string
	mu  sync.Mutex
	now map[string]article

	edits  int           // so far
	edited chan struct{} // closed by the next edit
}

func newArticles(t *testing.T) *articles {
	t.Helper()
	o := &articles{now: map[string]article{}, edited: make(chan struct{})}
	o.dsn = "file:" + filepath.Join(t.TempDir(), "site.db") + "?_pragma=busy_timeout(20000)&_pragma=journal_mode(WAL)&_pragma=synchronous(OFF)"
	var err error
	o.db, err = sql.Open("sqlite", o.dsn)
	must(t, err)
	t.Cleanup(func() { _ = o.db.Close() })
	_, err = o.db.ExecContext(t.Context(), "CREATE TABLE posts (slug TEXT PRIMARY KEY, version INTEGER, tag TEXT)")
	must(t, err)
	return o
}

// publish puts articles into the database that nobody has cached.
func (o *articles) publish(t *testing.T, slugs []string) {
	t.Helper()
	var changes []change
	for _, slug := range slugs {
		changes = append(changes, change{Op: "A", Slug: slug})
	}
	_, err := o.edit(t.Context(), changes)
	must(t, err)
}

// edit commits one edit and returns what it invalidates: every other article by its keys, the rest
// by the tag that they had before.
func (o *articles) edit(ctx context.Context, changes []change) (targets []tasks.Target, err error) {
	tx, err := o.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }()
	next := map[string]article{}
	set := func(slug string, gone bool) error {
		if slug == "" {
			return nil
		}
		was := o.get(slug)
		is := article{Slug: slug, Version: was.Version + 1, Tag: fmt.Sprintf("%s#%d", slug, (was.Version+1)%3), gone: gone}
		next[slug] = is
		if is.Version%2 == 0 && was.Tag != "" {
			targets = append(targets, tasks.Target{Kind: tasks.KindTag, Name: tasks.Bytes(was.Tag)})
		} else {
			targets = append(targets, tasks.Target{Kind: tasks.KindKey, Name: tasks.Bytes("post:" + slug)}, tasks.Target{Kind: tasks.KindKey, Name: tasks.Bytes("page:" + slug)})
		}
		if gone {
			_, err := tx.ExecContext(ctx, "DELETE FROM posts WHERE slug = ?", slug)
			return err
		}
		_, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO posts VALUES (?, ?, ?)", slug, is.Version, is.Tag)
		return err
	}
	for _, c := range changes {
		err := set(c.Slug, c.Op == "D")
		if c.Op == "R" && c.From != c.Slug {
			err = errors.Join(err, set(c.From, true))
		}
		if err != nil {
			return nil, err
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for slug, a := range next {
		o.now[slug] = a
	}
	o.edits++
	close(o.edited)
	o.edited = make(chan struct{})
	return targets, tx.Commit()
}

// await returns when there were some more edits, or no more come.
func (o *articles) await(ctx context.Context, edits int) {
	for range edits {
		o.mu.Lock()
		edited := o.edited
		o.mu.Unlock()
		select {
		case <-edited:
		case <-ctx.Done():
		}
	}
}

func (o *articles) get(slug string) article {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.now[slug]
}

// rollout is a site in the middle of a release: r1 on standby, r2 active, r3 being warmed.
type rollout struct {
	*articles
	t       *testing.T
	rdb     *redis.Client
	cfg     tasks.Config
	ns      *namespace.Cache
	clients map[string]*tasks.Client
	stored  atomic.Int64 // fills that stayed
	dropped atomic.Int64 // fills that an invalidation overtook
}

func newRollout(t *testing.T) *rollout {
	t.Helper()
	r := &rollout{
		articles: newArticles(t), t: t, rdb: redistest.Start(t).Client, clients: map[string]*tasks.Client{},
		cfg: tasks.Config{App: app, KeyTemplate: tasks.DefaultTemplate, FillLimit: 30 * time.Second},
	}
	tmpl, err := r.cfg.Template()
	must(t, err)
	ledger := release.Open(r.rdb, r.cfg.Keys())
	for _, id := range []string{"r1", "r2", "r3"} {
		cfg := r.cfg
		cfg.Release = id
		r.clients[id], err = tasks.NewClientFrom(r.rdb, r.rdb, cfg)
		must(t, err)
		t.Cleanup(func() { _ = r.clients[id].Close() })
		must(t, ledger.Create(t.Context(), release.Record{ID: id, Template: tasks.DefaultTemplate}, by))
		if id != "r3" {
			_, err = ledger.Flip(t.Context(), id, release.New, by)
			must(t, err)
		}
	}
	log := invalidation.Open(r.rdb, r.cfg.Keys(), invalidation.Config{FillLimit: r.cfg.FillLimit})
	r.ns = namespace.New(r.rdb, tmpl, r.cfg.Keys(), nil)
	applier := invalidation.NewApplier(log, r.rdb, tmpl, ledger.Live, r.ns)
	warmer, err := warm.New(warm.Config{WarmBatch: 100}, warm.Deps{
		Queue: r.rdb, Keys: r.cfg.Keys(), Ledger: ledger, Log: log, Check: log.Journal, Replay: applier,
		Cache: r.ns, Tasks: r.clients["r2"], Version: "test", Getenv: func(string) string { return r.dsn },
	})
	must(t, err)
	queues := Queues{App: app, Queue: r.rdb, MaxCompleted: 100, MaxArchived: 100}
	w, err := New(Config{
		Lanes: tasks.Lanes(), InvalidateConcurrency: 8, RefreshConcurrency: 1, BulkConcurrency: 1, ReleaseConcurrency: 1, WarmConcurrency: 2,
		UpkeepConcurrency: 1, HealthConcurrency: 1, NotifyConcurrency: 1, GracePeriod: time.Second,
	}, Deps{
		App: app, Queue: r.rdb,
		Dial: func() (redis.UniversalClient, error) {
			return redis.NewClient(&redis.Options{Addr: r.rdb.Options().Addr}), nil
		},
		Handlers: Handlers{
			tasks.TypeInvalidate: Invalidate(applier), tasks.TypeInvalidateBulk: InvalidateBulk(applier),
			tasks.TypeWarmRun: WarmRun(warmer), tasks.TypeWarmBatch: WarmBatch(warmer),
		},
		Applier: applier,
		Reaper:  Marks{Ledger: ledger, Log: log, Applier: applier, Tags: r.ns, Gone: queues.Gone},
		Log:     slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	must(t, err)
	must(t, w.Start(t.Context()))
	t.Cleanup(w.Stop)
	return r
}

// visit is an app server that reads articles through its cache until ctx ends: those that are about
// to be edited, and now and then it takes its time over it.
func (r *rollout) visit(ctx context.Context, id string, edits [][]change, dice *rand.Rand) error {
	for ctx.Err() == nil {
		loaded := false
		r.mu.Lock()
		edit := edits[min(r.edits-1+dice.IntN(4), len(edits)-1)]
		r.mu.Unlock()
		slug, slow := edit[dice.IntN(len(edit))].Slug, []int{0, 0, 0, 0, 3, 100}[dice.IntN(6)]
		family := []string{"post:", "page:"}[dice.IntN(2)]
		found, err := r.clients[id].FetchTagged(context.WithoutCancel(ctx), family+slug, 24*time.Hour, func(context.Context) ([]byte, []string, error) {
			a := r.get(slug)
			loaded = true
			r.await(ctx, slow)
			if a.Version == 0 || a.gone {
				return nil, nil, fs.ErrNotExist
			}
			value, err := json.Marshal(a)
			return value, []string{a.Tag}, err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if found.Stored {
			r.stored.Add(1)
		} else if loaded && err == nil {
			r.dropped.Add(1)
		}
	}
	return nil
}

// fill caches all articles in a namespace.
func (r *rollout) fill(id string, slugs []string) {
	r.t.Helper()
	var puts []namespace.Put
	later := time.Now().Add(time.Hour).UnixMilli()
	for _, slug := range slugs {
		a := r.get(slug)
		value, err := json.Marshal(a)
		must(r.t, err)
		for _, family := range []string{"post:", "page:"} {
			e := tasks.Entry{Key: family + slug, Type: tasks.EntryString, Value: string(value), ExpiresAt: later}
			puts = append(puts, namespace.Put{Entry: e, Tags: []string{a.Tag}})
		}
	}
	must(r.t, r.ns.Put(r.t.Context(), id, puts))
}

const warmPlan = `version: 1
sources:
  - name: posts
    query: {driver: sqlite, dsn_env: SITE_DSN, sql: "SELECT slug, version, tag FROM posts", page: {by: slug, size: 200}}
    entry: {key: "post:{{.slug}}", value: json, ttl: 24h, jitter: 10%, tags: ["{{.tag}}"]}
  - name: pages
    carry: {from: active, families: ["page:"]}
certificate: {coverage: 0%, sample: 0}
`

// warmAgain warms r3 until ctx ends, and returns how often it did.
func (r *rollout) warmAgain(ctx context.Context) (runs int, err error) {
	for ctx.Err() == nil {
		run, _, err := r.clients["r3"].Warm(r.t.Context(), tasks.WarmRequest{Release: "r3", Plan: []byte(warmPlan), By: by})
		if err != nil {
			return runs, err
		}
		runs++
		redistest.Eventually(r.t, "end of the warm run", func() bool {
			s, err := warm.Status(r.t.Context(), r.rdb, r.cfg.Keys(), run)
			return err == nil && s.Over()
		})
	}
	return runs, nil
}

// stale returns how many entries a namespace holds, and those that are not what the origin has.
func (r *rollout) stale(id string) (entries int, wrong []string) {
	err := r.ns.Read(r.t.Context(), id, func(found []tasks.Entry) error {
		for _, e := range found {
			family, slug, ok := strings.Cut(e.Key, ":")
			if !ok || family != "post" && family != "page" {
				continue
			}
			var held article
			must(r.t, json.Unmarshal([]byte(e.Value), &held))
			entries++
			if is := r.get(slug); held.Version != is.Version || is.gone {
				wrong = append(wrong, fmt.Sprintf("%s holds version %d of %d (gone: %v)", e.Key, held.Version, is.Version, is.gone))
			}
		}
		return nil
	})
	must(r.t, err)
	return entries, wrong
}

// TestRealEditHistory replays the edits that a real site saw in years, as fast as they go, while
// visitors fill three releases and the third is warmed again and again: nothing stale stays.
func TestRealEditHistory(t *testing.T) {
	edits := readEdits(t)
	r := newRollout(t)
	var slugs []string
	changes := 0
	for _, e := range edits {
		changes += len(e)
		for _, c := range e {
			slugs = append(slugs, c.Slug) // what is edited often is visited often
		}
	}
	r.publish(t, slugs)
	for _, id := range []string{"r1", "r2"} {
		r.fill(id, slugs)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var others sync.WaitGroup
	warms := 0
	for i := range 48 {
		id := []string{"r1", "r2", "r3"}[i%3]
		others.Go(func() {
			if err := r.visit(ctx, id, edits, rand.New(rand.NewPCG(uint64(i), 0))); err != nil {
				t.Errorf("visitor of %s: %v", id, err)
			}
		})
	}
	others.Go(func() {
		var err error
		if warms, err = r.warmAgain(ctx); err != nil {
			t.Errorf("warm: %v", err)
		}
	})
	began := time.Now()
	var calls sync.WaitGroup
	most, targets := make(chan struct{}, 64), 0
	for _, e := range edits {
		named, err := r.edit(t.Context(), e)
		must(t, err)
		targets += len(named)
		most <- struct{}{}
		calls.Go(func() {
			defer func() { <-most }()
			if _, err := r.clients["r2"].Invalidate(t.Context(), tasks.Invalidation{Targets: named, By: by}); err != nil {
				t.Errorf("invalidate: %v", err)
			}
		})
	}
	calls.Wait()
	took := time.Since(began)
	stop()
	others.Wait()
	redistest.Eventually(t, "nothing pending", func() bool { return r.rdb.ZCard(t.Context(), r.cfg.Keys().Pending()).Val() == 0 })
	t.Logf("%d edits, %d changes, %d targets in %v; meanwhile %d warm runs, %d fills that stayed, %d that did not",
		len(edits), changes, targets, took.Round(time.Millisecond), warms, r.stored.Load(), r.dropped.Load())
	if r.dropped.Load() == 0 || warms == 0 {
		t.Error("no edit overtook a fill, or nothing was warmed: nothing was tested")
	}
	for _, id := range []string{"r1", "r2", "r3"} {
		entries, wrong := r.stale(id)
		t.Logf("%s: %d entries, %d stale", id, entries, len(wrong))
		if len(wrong) > 0 {
			t.Errorf("%s: stale: %s", id, strings.Join(wrong[:min(5, len(wrong))], "; "))
		}
	}
}
