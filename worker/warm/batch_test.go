package warm

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/warm/source"
)

// hooked calls hooks around the namespaces' methods that a batch writes with.
type hooked struct {
	Cache
	beforePut, afterPut, afterCopy, beforeLookup func()
}

func (h *hooked) Put(ctx context.Context, id string, entries []namespace.Put) error {
	call(h.beforePut)
	err := h.Cache.Put(ctx, id, entries)
	call(h.afterPut)
	return err
}

func (h *hooked) Copy(ctx context.Context, src, dst string, families []string, cursor string, fn func(namespace.CopySlice) error) error {
	return h.Cache.Copy(ctx, src, dst, families, cursor, func(s namespace.CopySlice) error {
		call(h.afterCopy)
		return fn(s)
	})
}

func (h *hooked) Lookup(ctx context.Context, id string, keys []string) ([]namespace.Found, error) {
	call(h.beforeLookup)
	return h.Cache.Lookup(ctx, id, keys)
}

func call(fn func()) {
	if fn != nil {
		fn()
	}
}

// hookedSource calls loaded when a chunk has been read and nobody has looked at it yet.
type hookedSource struct {
	source.Source
	loaded func(source.Chunk)
}

func (h hookedSource) Walk(ctx context.Context, part source.Part, from string, fn func(source.Chunk) error) error {
	return h.Source.Walk(ctx, part, from, func(c source.Chunk) error {
		h.loaded(c)
		return fn(c)
	})
}

// KeysOf implements [source.Namer] where the source does.
func (h hookedSource) KeysOf(item string) []string {
	if namer, ok := h.Source.(source.Namer); ok {
		return namer.KeysOf(item)
	}
	return nil
}

// onLoad hooks every source that the runner opens.
func (g *rig) onLoad(loaded func(source.Chunk)) {
	inner := g.open
	g.open = func(s Source, id, from string) (source.Source, func() error, error) {
		src, closer, err := inner(s, id, from)
		return hookedSource{src, loaded}, closer, err
	}
}

// TestInvalidatedMeanwhile: an invalidation that is recorded at any point between a value's
// load and its batch's end leaves nothing stale, whatever it names. It is only recorded here, as
// if every worker that should apply it were dead: what removes the entries is the batch itself.
func TestInvalidatedMeanwhile(t *testing.T) {
	g := newRig(t)
	key := func(name string) tasks.Target { return tasks.Target{Kind: tasks.KindKey, Name: tasks.Bytes(name)} }
	tag := func(name string) tasks.Target { return tasks.Target{Kind: tasks.KindTag, Name: tasks.Bytes(name)} }
	prefix := func(name string) tasks.Target { return tasks.Target{Kind: tasks.KindPrefix, Name: tasks.Bytes(name)} }
	targets := []tasks.Target{
		key("post:a7"), tag("post:a8"), prefix("post:a23"), key("page:/p3"), prefix("page:/p2"), key("asset:7"), prefix("asset:3"),
	}
	gone := []string{"post:a7", "post:a8", "post:a23", "post:a230", "post:a239", "page:/p3", "page:/p2", "page:/p20", "asset:7", "asset:3", "asset:39"}
	moments := map[string]func(record func()){
		"between load and check": func(record func()) { g.onLoad(func(source.Chunk) { record() }) },
		"between check and put":  func(record func()) { g.deps.Cache = &hooked{Cache: g.cache, beforePut: record, afterCopy: record} },
		"between put and check":  func(record func()) { g.deps.Cache = &hooked{Cache: g.cache, afterPut: record, afterCopy: record} },
		"before the lookup":      func(record func()) { g.deps.Cache = &hooked{Cache: g.cache, beforeLookup: record} },
	}
	for name, arrange := range moments {
		t.Run(name, func(t *testing.T) {
			g.reset()
			defer func(cache Cache, open opener) { g.deps.Cache, g.open = cache, open }(g.deps.Cache, g.open)
			arrange(func() { g.invalidate(targets...) })
			s := g.warm(g.start("run1", "r1", g.plan()))
			for _, key := range gone {
				if g.exists("r1", key) {
					t.Errorf("%s is still there", key)
				}
			}
			if !g.exists("r1", "post:a9") || !g.exists("r1", "page:/p4") || !g.exists("r1", "asset:8") {
				t.Error("a neighbour is gone as well")
			}
			if s.Status != string(Pass) || s.Certificate.Failed != 0 || s.Certificate.Coverage != 1 {
				t.Errorf("certificate %+v: an edit is no failure", s.Certificate)
			}
			if name == "between load and check" && s.Certificate.Invalidated == 0 {
				t.Error("nothing was counted as invalidated")
			}
		})
	}
}

// TestTagOfCarriedEntry: the tags of a carried entry are known to its index only; replay sees to
// them, and until then the release cannot become ready.
func TestTagOfCarriedEntry(t *testing.T) {
	g := newRig(t)
	g.deps.Cache = &hooked{Cache: g.cache, afterCopy: func() { g.invalidate(tasks.Target{Kind: tasks.KindTag, Name: "asset"}) }}
	s := g.warm(g.start("run1", "r1", g.plan()))
	if g.exists("r1", "asset:1") || g.entries("r1") != articles+pages {
		t.Errorf("a carried entry outlived its tag: %d entries", g.entries("r1"))
	}
	if s.Status != string(Pass) {
		t.Errorf("certificate %+v: sampled entries that were invalidated are no failure", s.Certificate)
	}
}

// TestEvicted: the certificate notices that stored entries are gone though nobody invalidated
// them.
func TestEvicted(t *testing.T) {
	g := newRig(t)
	_, err := g.Run(t.Context(), g.jobs.job("run"), g.start("run1", "r1", g.plan()))
	must(t, err)
	batches := g.tasks.batches()
	for _, b := range batches[:len(batches)-1] {
		_, err := g.Batch(t.Context(), g.jobs.job(BatchTaskID(b)), b)
		must(t, err)
	}
	_, err = g.cache.Unlink(t.Context(), "r1", "page:/p1") // 11 of 24 pages
	must(t, err)
	must(t, g.runBatches())
	s := g.status("run1")
	if s.Status != string(Fail) || s.Certificate.SampleMissing == 0 || !strings.Contains(s.Certificate.Reasons[0], "evict") {
		t.Errorf("certificate %+v", s.Certificate)
	}
}

// TestMissingEntry: a page that answered but left no entry behind is not warm.
func TestMissingEntry(t *testing.T) {
	g := newRig(t)
	plan := strings.Replace(g.plan(), `key: "page:{{.Path}}"`, `key: "html:{{.Path}}"`, 1)
	s := g.warm(g.start("run1", "r1", plan))
	crawl := s.Certificate.Sources[1]
	if s.Status != string(Fail) || crawl.Failed != pages || !strings.Contains(crawl.Examples[0], "not in the namespace") {
		t.Errorf("crawl: %+v", crawl)
	}
}

// TestEditDuringAVisit: a page whose load an edit overtook answers and stores nothing; visited
// again it is warm.
func TestEditDuringAVisit(t *testing.T) {
	g := newRig(t)
	var first sync.Map
	inner := g.site.Config.Handler
	g.site.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, again := first.LoadOrStore(r.URL.Path, true); !again && r.URL.Path != "/sitemap.xml" {
			io.WriteString(w, "page") // answered, not stored
			return
		}
		inner.ServeHTTP(w, r)
	})
	s := g.warm(g.start("run1", "r1", g.plan()))
	crawl := s.Certificate.Sources[1]
	if s.Status != string(Pass) || crawl.Stored != pages {
		t.Errorf("status %s, crawl: %+v", s.Status, crawl)
	}
}

// TestDraining: a worker that stops at every chunk finishes with the same figures.
func TestDraining(t *testing.T) {
	const most = 100
	g := newRig(t)
	_, err := g.Run(t.Context(), g.jobs.job("run"), g.start("run1", "r1", g.plan()))
	must(t, err)
	stops := 0
	for _, b := range g.tasks.batches() {
		for stops < most {
			g.jobs.drainAt = g.jobs.saves + 1
			_, err := g.Batch(t.Context(), g.jobs.job(BatchTaskID(b)), b)
			if err == nil {
				break
			}
			if !errors.Is(err, tasks.ErrDraining) {
				t.Fatal(err)
			}
			stops++
		}
	}
	if stops < 5 || stops == most {
		t.Errorf("stopped %d times, want one stop in each chunk", stops)
	}
	g.checkWarm(g.status("run1"))
}

// TestKilledInMidBatch: a worker that is gone between a put and everything after it leaves a mark open, under
// which the next one ends the batch with the figures of an undisturbed run.
func TestKilledInMidBatch(t *testing.T) {
	g := newRig(t)
	for _, at := range []int{1, 2, 3} { // the pages of articles
		g.reset()
		_, err := g.Run(t.Context(), g.jobs.job("run"), g.start("run1", "r1", g.plan()))
		must(t, err)
		ctx, kill := context.WithCancel(t.Context())
		puts := 0
		g.deps.Cache = &hooked{Cache: g.cache, afterPut: func() {
			if puts++; puts == at {
				kill()
			}
		}}
		b := g.tasks.batches()[0]
		if _, err := g.Batch(ctx, g.jobs.job(BatchTaskID(b)), b); !errors.Is(err, context.Canceled) {
			t.Fatalf("put %d: got %v, want a worker that is gone", at, err)
		}
		if g.openMarks("r1") != 1 || g.entries("r1") == 0 {
			t.Errorf("put %d: %d open marks, %d entries", at, g.openMarks("r1"), g.entries("r1"))
		}
		g.deps.Cache = g.cache
		must(t, g.runBatches())
		g.checkWarm(g.status("run1"))
	}
}

// TestTwice: a batch that is delivered again counts once.
func TestTwice(t *testing.T) {
	g := newRig(t)
	_, err := g.Run(t.Context(), g.jobs.job("run"), g.start("run1", "r1", g.plan()))
	must(t, err)
	first := g.tasks.batches()[0]
	for range 2 {
		_, err := g.Batch(t.Context(), g.jobs.job(BatchTaskID(first)), first)
		must(t, err)
	}
	must(t, g.runBatches())
	g.checkWarm(g.status("run1"))
	must(t, g.runBatches()) // the run is over
	g.checkWarm(g.status("run1"))
}

// TestUnfinishedWriter: somebody else's open mark delays the end of the run and does not fail it.
func TestUnfinishedWriter(t *testing.T) {
	g := newRig(t)
	_, err := g.log.OpenMark(t.Context(), "r1", "somebody")
	must(t, err)
	_, err = g.Run(t.Context(), g.jobs.job("run"), g.start("run1", "r1", g.plan()))
	must(t, err)
	if err := g.runBatches(); err == nil || hopeless(err) || !strings.Contains(err.Error(), "writers") {
		t.Errorf("got %v, want an error that is worth another try", err)
	}
	if g.record1().State != release.Warming {
		t.Errorf("release is %s", g.record1().State)
	}
	must(t, g.log.CloseMark(t.Context(), "r1", "somebody"))
	must(t, g.runBatches())
	g.checkWarm(g.status("run1"))
}

// TestReleaseGone: a release that leaves in the middle of a warm gets nothing stored.
func TestReleaseGone(t *testing.T) {
	g := newRig(t)
	_, err := g.Run(t.Context(), g.jobs.job("run"), g.start("run1", "r1", g.plan()))
	must(t, err)
	must(t, g.ledger.Move(t.Context(), "r1", release.Warming, release.New, by))
	must(t, g.ledger.Move(t.Context(), "r1", release.New, release.Expired, by))
	b := g.tasks.batches()[0]
	if _, err := g.Batch(t.Context(), g.jobs.job(BatchTaskID(b)), b); !errors.Is(err, tasks.ErrRefused) {
		t.Errorf("got %v, want a refusal", err)
	}
	if s := g.status("run1"); s.Status != string(Fail) || g.record1().State != release.Expired || g.entries("r1") != 0 {
		t.Errorf("run %s, release %s, %d entries", s.Status, g.record1().State, g.entries("r1"))
	}
}

// TestReleaseGoneInMidBatch: an expiry that overtakes a put ends the run, which says so, and is asked to
// look for what the put left behind.
func TestReleaseGoneInMidBatch(t *testing.T) {
	g := newRig(t)
	_, err := g.Run(t.Context(), g.jobs.job("run"), g.start("run1", "r1", g.plan()))
	must(t, err)
	puts := 0
	g.deps.Cache = &hooked{Cache: g.cache, beforePut: func() {
		if puts++; puts != 2 {
			return
		}
		must(t, g.ledger.Move(t.Context(), "r1", release.Warming, release.New, by))
		must(t, g.ledger.Move(t.Context(), "r1", release.New, release.Expired, by))
		must(t, g.ledger.SetDoc(t.Context(), "r1", release.DocPurge, map[string]time.Time{"finished_at": time.Now()}))
		_, err := g.cache.Unlink(t.Context(), "r1", "")
		must(t, err)
	}}
	b := g.tasks.batches()[0]
	if _, err := g.Batch(t.Context(), g.jobs.job(BatchTaskID(b)), b); !errors.Is(err, tasks.ErrRefused) {
		t.Errorf("got %v, want a refusal", err)
	}
	s := g.status("run1")
	if s.Status != string(Fail) || !strings.Contains(s.Certificate.Reasons[0], `release "r1" is expired now`) || g.entries("r1") != 0 || g.openMarks("r1") != 0 || puts != 2 {
		t.Errorf("run %+v, certificate %+v, %d entries, %d open marks, %d puts", s, s.Certificate, g.entries("r1"), g.openMarks("r1"), puts)
	}
	var purge struct {
		FinishedAt time.Time `json:"finished_at"`
	}
	rec := g.record1()
	if _, err := rec.Doc(release.DocPurge, &purge); err != nil || !purge.FinishedAt.IsZero() {
		t.Errorf("the purge counts as finished: %+v, %v", purge, err)
	}
}

// TestLostLog: a queue Redis that came back without its log proves nothing: the run fails, and
// the batch's mark stays open, so that the release cannot become ready by another way.
func TestLostLog(t *testing.T) {
	g := newRig(t)
	_, err := g.Run(t.Context(), g.jobs.job("run"), g.start("run1", "r1", g.plan()))
	must(t, err)
	lose := func() {
		must(t, g.client.Del(t.Context(), g.keys.LogMeta()).Err())
		_, err := g.log.Mark(t.Context())
		must(t, err)
	}
	g.deps.Cache = &hooked{Cache: g.cache, afterPut: lose}
	b := g.tasks.batches()[0]
	if _, err := g.Batch(t.Context(), g.jobs.job(BatchTaskID(b)), b); !errors.Is(err, tasks.ErrNotFresh) {
		t.Errorf("got %v, want not fresh", err)
	}
	if s := g.status("run1"); s.Status != string(Fail) || g.openMarks("r1") != 1 {
		t.Errorf("run %s, %d open marks", s.Status, g.openMarks("r1"))
	}
}
