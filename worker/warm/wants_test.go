package warm

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/warm/source"
)

// accessLog writes a log in which each path was asked for so often, and returns its name.
func accessLog(t testing.TB, paths map[string]int) string {
	t.Helper()
	var text strings.Builder
	for path, n := range paths {
		for range n {
			fmt.Fprintf(&text, "h - - [10/Oct/2000:13:55:36 -0700] \"GET %s HTTP/1.1\" 200 1 \"-\" \"x\"\n", path)
		}
	}
	file := filepath.Join(t.TempDir(), "access.log")
	must(t, os.WriteFile(file, []byte(text.String()), 0o600))
	return file
}

// hotPlan is the site's plan with the paths that visitors want: of the crawl, and of articles.
func (g *rig) hotPlan(hot string) string {
	return strings.Replace(g.plan(), "sources:", "hot: "+hot+"\nsources:", 1)
}

func logOf(file string) string {
	return fmt.Sprintf("{access_log: %q, entries: [{path: \"/posts/{{.slug}}\", key: \"post:{{.slug}}\"}]}", file)
}

// loads collects the keys that batches bring, in their order.
func (g *rig) loads() *[]string {
	var mu sync.Mutex
	var keys []string
	g.onLoad(func(c source.Chunk) {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range c.Entries {
			keys = append(keys, e.Key)
		}
	})
	return &keys
}

// TestHotFirst: what visitors want most comes first, of every source, and nothing comes twice.
func TestHotFirst(t *testing.T) {
	g := newRig(t)
	keys := g.loads()
	file := accessLog(t, map[string]int{"/p7": 9, "/posts/a30": 8, "/p3": 7, "/posts/a200": 6, "/other": 5, "/posts/none": 4})
	s := g.warm(g.start("run1", "r1", g.hotPlan(logOf(file))))
	if s.Status != string(Pass) {
		t.Fatalf("run %+v, certificate %+v", s, s.Certificate)
	}
	if diff := cmp.Diff([]string{"post:a30", "post:a200", "page:/p7", "page:/p3"}, (*keys)[:4]); diff != "" {
		t.Errorf("first (-want +got):\n%s", diff)
	}
	sorted := slices.Sorted(slices.Values(*keys))
	if n := len(slices.Compact(sorted)); n != len(*keys) || n != articles+pages+assets {
		t.Errorf("%d loads of %d keys, want each of %d once", len(*keys), n, articles+pages+assets)
	}
	for i, want := range []int64{articles, pages, assets} {
		if f := s.Sources[i].Figures; f != (Figures{Planned: want, Stored: want}) || s.Certificate.Sources[i].Figures != f {
			t.Errorf("source %d: %+v, want %d", i, f, want)
		}
	}
	// /other is no page of the cache's, /posts/none no article: neither release has them.
	h := s.Certificate.Hot
	if h == nil || h.Items != 6 || h.Judged != 4 || h.Active != "r0" || h.ActiveCoverage != 0 || !h.Counted || h.From != "access log" {
		t.Fatalf("hot figures %+v", h)
	}
	if h.Coverage != 1 || len(h.Missing) > 0 || h.Traffic != 30.0/39 {
		t.Errorf("coverage %v, missing %v, traffic %v", h.Coverage, h.Missing, h.Traffic)
	}
	left, err := g.client.Keys(t.Context(), g.keys.Run("run1")+":*").Result()
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// TestHotPaths: a crawl may visit what the list names and no sitemap does.
func TestHotPaths(t *testing.T) {
	g := newRig(t)
	file := accessLog(t, map[string]int{"/p7": 9, "/unlisted?a=1": 8})
	plan := strings.Replace(g.hotPlan(logOf(file)), "sitemap: /sitemap.xml", "hot: true", 1)
	s := g.warm(g.start("run1", "r1", plan))
	if s.Status != string(Pass) || s.Sources[1].Stored != 2 || !g.exists("r1", "page:/unlisted") || !g.exists("r1", "page:/p7") {
		t.Errorf("run %+v, certificate %+v", s, s.Certificate)
	}
}

// TestMostUsedKeys: the list may be the most used keys of the active release, which a carry takes
// over, and a query begins with.
func TestMostUsedKeys(t *testing.T) {
	g := newRig(t)
	for _, policy := range []string{"volatile-lfu", "noeviction"} {
		t.Run(policy, func(t *testing.T) {
			g.reset()
			must(t, g.client.ConfigSet(t.Context(), "maxmemory-policy", policy).Err())
			g.put("r0", "post:a50", "post:a60", "page:/p5")
			for range 300 {
				must(t, g.client.Get(t.Context(), "site:r0:post:a60").Err())
			}
			defer func(open opener) { g.open = open }(g.open)
			keys := g.loads()
			plan := strings.Replace(g.hotPlan("{keys_of: active, top: 40}"), `families: ["asset:"]`, `families: ["asset:", "other:"], hot: true`, 1)
			s := g.warm(g.start("run1", "r1", plan))
			if s.Status != string(Pass) {
				t.Fatalf("run %+v, certificate %+v", s, s.Certificate)
			}
			h := s.Certificate.Hot
			if h.From != "keys of r0" || h.Items != 40 || h.Counted != (policy == "volatile-lfu") || h.ActiveCoverage != 1 {
				t.Errorf("hot figures %+v", h)
			}
			if n := s.Sources[2].Stored; n < 37 || n > 40 || n != g.count("r1", "asset:")+g.count("r1", "other:") {
				t.Errorf("carried %d of %d entries", n, 2*assets)
			}
			if policy == "volatile-lfu" && (*keys)[0] != "post:a60" {
				t.Errorf("the first of %q is not the most used", (*keys)[:3])
			}
		})
	}
}

func (g *rig) put(id string, keys ...string) {
	g.t.Helper()
	for _, key := range keys {
		must(g.t, g.cache.Put(g.t.Context(), id, []namespace.Put{entryOf(key)}))
	}
}

func (g *rig) count(id, prefix string) int64 {
	g.t.Helper()
	found, err := g.client.Keys(g.t.Context(), "site:"+id+":"+prefix+"*").Result()
	must(g.t, err)
	return int64(len(found))
}

// TestSampleByTraffic: a small sample takes what visitors want most, and no more than its share.
func TestSampleByTraffic(t *testing.T) {
	g := newRig(t)
	paths := map[string]int{"/posts/a1": 5000, "/p1": 5000}
	for i := 2; i < 100; i++ {
		paths[fmt.Sprint("/posts/a", i)] = 1
	}
	s := g.warm(g.hotSample("run1", g.hotPlan(logOf(accessLog(t, paths))), 0.1))
	if !g.exists("r1", "post:a1") || !g.exists("r1", "page:/p1") {
		t.Error("what is asked for most is not in the sample")
	}
	if n := s.Sources[0].Planned; n > articles/10 {
		t.Errorf("the sample of 10%% has %d of %d articles", n, articles)
	}
	if s.Status != string(Inconclusive) || len(s.Certificate.Reasons) != 1 || s.Certificate.Reasons[0] != "sampled 10%" {
		t.Errorf("certificate %+v", s.Certificate)
	}
}

func (g *rig) hotSample(run, plan string, share float64) tasks.WarmRun {
	p := g.start(run, "r1", plan)
	p.Sample = share
	must(g.t, g.client.HSet(g.t.Context(), g.keys.Run(run), "sample", share).Err())
	return p
}

// TestPicker: a small sample is half by traffic, holds at most its share, and a larger one holds it.
func TestPicker(t *testing.T) {
	const n, listed = 10_000, 500
	w := noWants()
	for i := range listed {
		w.items = append(w.items, &want{Key: tasks.Bytes(fmt.Sprint("k", i)), Weight: float64(1 + 100/(i+1))})
	}
	all := func(string) bool { return true }
	taken := map[string]bool{}
	for _, share := range []float64{0.001, 0.01, 0.05, 0.2, 1} {
		keys := w.keysOf(share, n, all)
		rest := 0
		for i := listed; i < n; i++ {
			if source.Picks(w.restOf(share), fmt.Sprint("k", i)) {
				rest++
			}
		}
		if got := len(keys) + rest; float64(got) > share*n*1.3+5 {
			t.Errorf("a sample of %v takes %d of %d", share, got, n)
		}
		if share >= 0.01 && (keys[0] != "k0" || len(keys) < min(listed, int(share*n/4))) {
			t.Errorf("a sample of %v takes %d of the %d that visitors want, from %s on", share, len(keys), listed, keys[0])
		}
		for _, key := range keys {
			taken[key] = true
		}
		if len(taken) != len(keys) {
			t.Errorf("a sample of %v lacks some of a smaller one", share)
		}
	}
}

// TestThenTheRest: the run after a sampled one visits and puts nothing that the sample stored, except
// what was invalidated or will not live long enough; after one that passed everything is done anew.
func TestThenTheRest(t *testing.T) {
	g := newRig(t)
	puts := map[string]int{}
	g.deps.Cache = countingPuts{g.cache, puts}
	sample := g.warm(g.sampledStart("run1", "r1", 0.5))
	stored := map[string]int{}
	for key := range puts {
		stored[key] = 1
	}
	if len(stored) < articles/3 || sample.Certificate.Stored == 0 {
		t.Fatalf("sample: %+v", sample.Certificate)
	}
	var gone, short string
	for _, i := range []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9} {
		key := fmt.Sprint("post:a", i)
		if stored[key] == 1 && gone == "" {
			gone = key
		} else if stored[key] == 1 && short == "" {
			short = key
		}
	}
	if _, err := g.cache.Remove(t.Context(), "r1", []string{gone}); err != nil {
		t.Fatal(err)
	}
	must(t, g.client.PExpire(t.Context(), "site:r1:"+short, time.Hour).Err())
	must(t, g.client.HSet(t.Context(), g.keys.Run("run1"), "started_at", time.Now().Add(-2*time.Hour).UnixMicro()).Err())
	clear(puts)
	visits := g.countVisits()
	g.tasks.all, g.jobs.cursors = nil, nil
	s := g.warm(g.start("run2", "r1", g.plan()))
	if s.Status != string(Pass) || s.Sources[0].Stored != articles || s.Sources[1].Stored != pages || s.Certificate.Sampled != 50 {
		t.Errorf("run2 %+v, certificate %+v", s, s.Certificate)
	}
	for key := range stored {
		if again := puts[key] > 0; again != (key == gone || key == short) {
			t.Errorf("%s was put again: %v (invalidated: %s, ends soon: %s)", key, again, gone, short)
		}
	}
	if kept := s.Certificate.Sources[1].Kept; kept != sample.Sources[1].Stored || int64(len(*visits)) != pages-kept {
		t.Errorf("%d pages kept of the sample's %d, %d visited of %d", kept, sample.Sources[1].Stored, len(*visits), pages)
	}
	clear(puts)
	*visits = nil
	g.tasks.all, g.jobs.cursors = nil, nil
	if s := g.warm(g.start("run3", "r1", g.plan())); s.Status != string(Pass) || len(puts) != articles || len(*visits) != pages {
		t.Errorf("after a run that passed: %s, %d articles put, %d pages visited", s.Status, len(puts), len(*visits))
	}
}

// TestThenAnotherPlan: what a sample stored by another definition of its source is no use.
func TestThenAnotherPlan(t *testing.T) {
	g := newRig(t)
	puts := map[string]int{}
	g.deps.Cache = countingPuts{g.cache, puts}
	g.warm(g.sampledStart("run1", "r1", 0.5))
	clear(puts)
	g.tasks.all, g.jobs.cursors = nil, nil
	plan := strings.Replace(g.plan(), `ttl: 24h, jitter`, `value: "column:title", ttl: 24h, jitter`, 1)
	s := g.warm(g.start("run2", "r1", plan))
	if s.Status != string(Pass) || len(puts) != articles || s.Certificate.Sources[1].Kept == 0 {
		t.Errorf("%s: %d of %d articles put anew, %d pages kept", s.Status, len(puts), articles, s.Certificate.Sources[1].Kept)
	}
}

// countingPuts counts how often each key is put.
type countingPuts struct {
	Cache
	puts map[string]int
}

func (c countingPuts) Put(ctx context.Context, id string, entries []namespace.Put) error {
	for _, e := range entries {
		c.puts[e.Key]++
	}
	return c.Cache.Put(ctx, id, entries)
}

// countVisits collects the paths that the instance is asked for.
func (g *rig) countVisits() *[]string {
	var mu sync.Mutex
	var paths []string
	inner := g.site.Config.Handler
	g.site.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/sitemap.xml" {
			mu.Lock()
			paths = append(paths, r.URL.Path)
			mu.Unlock()
		}
		inner.ServeHTTP(w, r)
	})
	return &paths
}

// TestHotFails: a release that lacks what visitors ask for most, and the active one has, does not pass.
func TestHotFails(t *testing.T) {
	g := newRig(t)
	g.put("r0", "extra:1", "page:/p1")
	file := accessLog(t, map[string]int{"/p1": 50, "/extra/1": 50})
	hot := fmt.Sprintf("{access_log: %q, entries: [{path: \"/extra/{{.id}}\", key: \"extra:{{.id}}\"}]}", file)
	s := g.warm(g.start("run1", "r1", g.hotPlan(hot)))
	if s.Status != string(Fail) || len(s.Certificate.Reasons) != 1 || s.Certificate.Reasons[0] != "50% of what visitors ask for most would be found, where r0 has 100%: it lacks [extra:1]" {
		t.Errorf("certificate %+v, %+v", s.Certificate, s.Certificate.Hot)
	}
	if g.record1().State != release.New {
		t.Errorf("release is %s", g.record1().State)
	}
	// An edit of it that nobody could have warmed excuses the release.
	g.tasks.all, g.jobs.cursors = nil, nil
	g.deps.Cache = &hooked{Cache: g.cache, beforeLookup: func() {
		g.invalidate(tasks.Target{Kind: tasks.KindKey, Name: "extra:1"})
		g.put("r0", "extra:1") // its visitors have it again at once
	}}
	s = g.warm(g.start("run2", "r1", g.hotPlan(hot)))
	if s.Status != string(Pass) || s.Certificate.Hot.Edited != 0.5 {
		t.Errorf("certificate %+v, %+v", s.Certificate, s.Certificate.Hot)
	}
}

// TestNoHotList: without requests, or without one that the cache is for, there is no verdict.
func TestNoHotList(t *testing.T) {
	g := newRig(t)
	for name, tt := range map[string]struct {
		paths map[string]int
		want  string
	}{
		"an empty log": {nil, "nothing is in it"},
		"other paths":  {map[string]int{"/style.css": 3}, "none of it is for the cache"},
	} {
		g.reset()
		s := g.warm(g.start("run1", "r1", g.hotPlan(logOf(accessLog(t, tt.paths)))))
		if s.Status != string(Inconclusive) || !strings.Contains(s.Certificate.Reasons[0], tt.want) {
			t.Errorf("%s: %s, %+v", name, s.Status, s.Certificate)
		}
	}
	g.reset()
	_, err := g.Run(t.Context(), g.jobs.job("run"), g.start("run1", "r1", g.hotPlan(logOf("/nowhere/access.log"))))
	if s := g.status("run1"); !hopeless(err) || s.Status != string(Fail) || !strings.Contains(s.Certificate.Reasons[0], "no such file") {
		t.Errorf("no log: %v, %+v", err, s.Certificate)
	}
}
