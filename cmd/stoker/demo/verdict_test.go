package demo

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/kelseyhightower/envconfig"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/health"
	"github.com/alphanode/stoker/worker/redistest"
)

// What the sites of this test cost: large against a busy machine's noise, and the same in every
// release but for what is broken on purpose.
const (
	queryTakes = 3 * time.Millisecond
	pageTakes  = 4 * time.Millisecond // beside its queries
	forgotten  = 0.04                 // share of the parts that the cache has lost
	probedPath = 90
)

// broken says what is wrong with a release.
type broken struct {
	slower float64 // share of the time that it takes longer
	errors float64 // share of the answers
	calls  int     // times that each query is made; as long all together as one
}

// build is a release of the site on a server of its own, with a cache that has lost some entries.
func build(t *testing.T, id string, store *Store, seed uint64, b broken) *httptest.Server {
	t.Helper()
	times := max(b.calls, 1)
	db, err := store.Reader(32, queryTakes/time.Duration(times))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	m := newMemory()
	m.spaces[id] = map[string]memoryEntry{}
	inner, _ := m.client(id)
	// Of as many answers the same number fails, whatever the order in which requests come.
	failing, losing := &dice{rnd: rand.New(rand.NewPCG(seed, 5))}, &dice{rnd: rand.New(rand.NewPCG(seed, 6))}
	site, err := NewSite(id, db, lossy{inner, losing, times}, quiet())
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if failing.under(b.errors) {
			http.Error(w, "broken", http.StatusInternalServerError)
			return
		}
		start := time.Now()
		time.Sleep(pageTakes)
		answer := httptest.NewRecorder()
		site.ServeHTTP(answer, r)
		time.Sleep(time.Duration(b.slower * float64(time.Since(start))))
		for name, values := range answer.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
	}))
	t.Cleanup(srv.Close)
	return srv
}

// dice are shared by a site's goroutines.
type dice struct {
	mu  sync.Mutex
	rnd *rand.Rand
}

func (d *dice) under(share float64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rnd.Float64() < share
}

// lossy is a cache that has lost some entries, before a load that asks the database so many times.
type lossy struct {
	Cache
	dice  *dice
	times int
}

func (c lossy) Fetch(ctx context.Context, key string, tags []string, ttl time.Duration, load func(context.Context) ([]byte, error)) ([]byte, bool, error) {
	again := func(ctx context.Context) (value []byte, err error) {
		for range c.times {
			if value, err = load(ctx); err != nil {
				return nil, err
			}
		}
		return value, nil
	}
	if c.dice.under(forgotten) {
		value, err := again(ctx)
		return value, false, err
	}
	return c.Cache.Fetch(ctx, key, tags, ttl, again)
}

// corpusForVerdicts is the real corpus where it is there, else a made-up one.
func corpusForVerdicts(t *testing.T) Corpus {
	t.Helper()
	dir := filepath.Join("..", "..", "..", "..", "shared", "data")
	c, err := Load(filepath.Join(dir, "articles.jsonl.gz"), filepath.Join(dir, "events.jsonl.gz"))
	if err != nil {
		t.Logf("on a made-up site: %v", err)
		return Generate(1)
	}
	return c
}

// TestVerdicts: releases of the site's own code, asked in turn with the release before. One that only
// looks different is not called worse; one that is worse is. STOKER_TEST_RUNS=20 draws twenty
// pairs of each (make verdicts).
func TestVerdicts(t *testing.T) {
	runs, err := strconv.Atoi(os.Getenv("STOKER_TEST_RUNS"))
	if err != nil {
		runs = 1
	}
	store := openStore(t, corpusForVerdicts(t))
	paths, err := openSite(t, "r1", store, nil).Paths(t.Context(), &Tally{})
	if err != nil {
		t.Fatal(err)
	}
	var probed []string
	for i := range probedPath {
		probed = append(probed, paths[i*len(paths)/probedPath])
	}
	var cfg health.Config
	if err := envconfig.Process("STOKER_TEST_EMPTY", &cfg); err != nil {
		t.Fatal(err)
	}
	cfg.ProbeConcurrency = 32
	redis := redistest.Mini(t)
	monitor := health.New(health.Deps{Queue: redis, Cache: redis, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}, cfg)
	t.Cleanup(monitor.Close)

	good := []health.Outcome{health.Same, health.Better}
	worse := []health.Outcome{health.Worse}
	for _, tt := range []struct {
		name   string
		count  int
		second string // design of the second release
		broken broken
		want   []health.Outcome
	}{
		{"equal", 600, "r1", broken{}, []health.Outcome{health.Same}},
		{"good", 600, "r2", broken{}, good},
		{"30% slower", 600, "r2", broken{slower: 0.3}, worse},
		{"1% errors", 2000, "r2", broken{errors: 0.01}, worse},
		{"three times the database calls", 600, "r2", broken{calls: 3}, worse},
		{"too little traffic", 60, "r2", broken{}, []health.Outcome{health.Inconclusive}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wrong, outcomes := 0, map[health.Outcome]int{}
			for run := range runs {
				seed := uint64(2*run + 1)
				before, after := build(t, "r1", store, seed, broken{}), build(t, tt.second, store, seed+1, tt.broken)
				side := func(id string, srv *httptest.Server) health.Side {
					return health.Side{Release: id, Probes: health.Probes{Base: srv.URL, Paths: probed, Count: tt.count}}
				}
				got, err := monitor.ComparePages(t.Context(), tasks.Alone("verdict"), side("r1", before), side("r2", after))
				if err != nil {
					t.Fatal(err)
				}
				before.Close()
				after.Close()
				outcomes[got.Verdict.Verdict]++
				right := false
				for _, o := range tt.want {
					right = right || o == got.Verdict.Verdict
				}
				if !right {
					wrong++
					t.Logf("run %d: %s: %q", run, got.Verdict.Verdict, got.Verdict.Reasons)
				} else if runs == 1 {
					t.Logf("%q", got.Verdict.Reasons)
				}
			}
			t.Logf("%d runs: %v", runs, outcomes)
			if wrong*20 > runs || tt.name == "equal" && outcomes[health.Worse]+outcomes[health.Better] > 0 {
				t.Errorf("%d of %d verdicts are wrong", wrong, runs)
			}
		})
	}
}
