package warm

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/warm/origin"
	"github.com/alphanode/stoker/worker/warm/source"
)

// pagesOnly is the plan of a crawl of some paths.
func (g *rig) pagesOnly(paths ...string) string {
	return fmt.Sprintf(`version: 1
sources:
  - name: pages
    crawl: {base: %q, urls: [%s], timeout: 1s}
    expect: {key: "page:{{.Path}}", header: {X-Release: "{{.Release}}"}}
`, g.site.URL, strings.Join(paths, ", "))
}

// serveAs answers as the new build's instance does that stores whatever it answers.
func (g *rig) serveAs(answer func(w http.ResponseWriter, r *http.Request)) {
	g.site.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := g.cache.Put(context.WithoutCancel(r.Context()), "r1", []namespace.Put{entryOf("page:" + r.URL.Path)}); err != nil {
			g.t.Error(err)
		}
		w.Header().Set("X-Release", "r1")
		answer(w, r)
	})
}

// TestNeverStored: answers that must not be stored are counted by kind with examples, and what the
// site's instance stored of them is gone.
func TestNeverStored(t *testing.T) {
	g := newRig(t)
	g.serveAs(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/release":
			w.Header().Set("X-Release", "r0")
		case "/status":
			w.WriteHeader(http.StatusForbidden)
		case "/redirect":
			http.Redirect(w, r, "/good", http.StatusFound)
		case "/cookie":
			w.Header().Set("Set-Cookie", "a=b")
		case "/private":
			w.Header().Set("Cache-Control", "private, max-age=60")
		case "/empty":
			return
		}
		fmt.Fprint(w, "page")
	})
	must(t, g.cache.Put(t.Context(), "r1", []namespace.Put{entryOf("page:/release")})) // there before
	bad := []string{"/status", "/redirect", "/cookie", "/private", "/empty", "/release"}
	s := g.warm(g.start("run1", "r1", g.pagesOnly(append(bad, "/good")...)))
	pages := s.Certificate.Sources[0]
	if s.Status != string(Fail) || pages.Stored != 1 || pages.Failed != 6 {
		t.Errorf("status %s: %+v", s.Status, pages)
	}
	kinds := map[source.Kind]int64{}
	for _, f := range pages.Failures {
		kinds[f.Kind] += f.Count
		if len(f.Examples) != 1 || !strings.HasPrefix(f.Examples[0], "/") {
			t.Errorf("%s: examples %q", f.Kind, f.Examples)
		}
	}
	want := map[source.Kind]int64{source.WrongRelease: 1, source.WrongStatus: 1, source.Redirected: 1, source.SetsCookie: 1, source.NoStore: 1, source.Empty: 1}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(kinds, kindsOf(s.Sources[0].Failures)); diff != "" || s.Failed() == "" {
		t.Errorf("the status tells otherwise: %q\n%s", s.Failed(), diff)
	}
	if why := s.Certificate.Reasons[0]; !strings.Contains(why, "1 no-store or private") {
		t.Errorf("reason %q does not say what is missing", why)
	}
	for _, path := range append(bad, "/good") {
		if there := g.exists("r1", "page:"+path); there != (path == "/good" || path == "/release") {
			t.Errorf("entry of %s is there: %v", path, there)
		}
	}
}

func kindsOf(all []Failures) map[source.Kind]int64 {
	kinds := map[source.Kind]int64{}
	for _, f := range all {
		kinds[f.Kind] += f.Count
	}
	return kinds
}

// TestStopsWithinASecond: a batch whose origin hangs stops when it is told to, keeps what it has, and goes
// on from there.
func TestStopsWithinASecond(t *testing.T) {
	g := newRig(t)
	var hangs atomic.Bool
	hangs.Store(true)
	reached := make(chan struct{})
	var once sync.Once
	g.serveAs(func(w http.ResponseWriter, r *http.Request) {
		if hangs.Load() && r.URL.Path == "/p70" {
			once.Do(func() { close(reached) })
			<-r.Context().Done()
			return
		}
		fmt.Fprint(w, "page")
	})
	var paths []string
	for i := range 80 {
		paths = append(paths, fmt.Sprintf("/p%d", i))
	}
	g.cfg.WarmBatch = 100
	plan := strings.Replace(g.pagesOnly(paths...), "timeout: 1s", "timeout: 10m", 1)
	_, err := g.Run(t.Context(), g.jobs.job("run"), g.start("run1", "r1", plan))
	must(t, err)
	b := g.tasks.batches()[0]
	job := g.jobs.job(BatchTaskID(b))
	var stopped time.Time
	go func() {
		<-reached
		stopped = time.Now()
		close(job.draining)
	}()
	if _, err := g.Batch(t.Context(), job, b); !errors.Is(err, tasks.ErrDraining) {
		t.Fatalf("got %v, want that it hands over", err)
	}
	if took := time.Since(stopped); took > time.Second {
		t.Errorf("stopped after %v", took)
	}
	var at cursor
	if _, err := job.Load(t.Context(), &at); err != nil || at.Next == "" {
		t.Errorf("cursor %+v, %v: want one", at, err)
	}
	hangs.Store(false)
	must(t, g.runBatches())
	if s := g.status("run1"); s.Status != string(Pass) || s.Certificate.Stored != 80 {
		t.Errorf("certificate %+v", s.Certificate)
	}
}

// TestOriginsThatFail: whatever becomes of an origin in mid-run, the run ends by itself, and its certificate
// says what is missing.
func TestOriginsThatFail(t *testing.T) {
	for name, c := range map[string]struct {
		fails func(w http.ResponseWriter, r *http.Request)
		kinds []source.Kind
	}{
		"asks for an hour": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusServiceUnavailable)
		}, []source.Kind{source.Away, source.WrongStatus}},
		"hangs": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, []source.Kind{source.Away, source.NoAnswer}},
		"resets": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			[]source.Kind{source.Away, source.NoAnswer}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t)
			cfg := local()
			cfg.OriginPatience = time.Second
			g.deps.Origins = origin.New(cfg, origin.Deps{Share: origin.Shared{Queue: g.client, Keys: g.keys, Worker: "one"}})
			var asked, failed atomic.Int32
			g.serveAs(func(w http.ResponseWriter, r *http.Request) {
				if asked.Add(1) > 100 {
					failed.Add(1)
					c.fails(w, r)
					return
				}
				fmt.Fprint(w, "page")
			})
			var paths []string
			for i := range 1_000 {
				paths = append(paths, fmt.Sprintf("/p%d", i))
			}
			s := g.warm(g.start("run1", "r1", g.pagesOnly(paths...)))
			pages := s.Certificate.Sources[0]
			if s.Status != string(Fail) || pages.Stored < 50 || pages.Planned != 1_000 {
				t.Errorf("status %s: %+v", s.Status, pages)
			}
			for _, f := range pages.Failures {
				ok := false
				for _, kind := range c.kinds {
					ok = ok || kind == f.Kind
				}
				if !ok || len(f.Examples) == 0 {
					t.Errorf("%d failures of kind %s: %q", f.Count, f.Kind, f.Examples)
				}
			}
			if failed.Load() > 100 {
				t.Errorf("an origin that fails was asked %d times", failed.Load())
			}
		})
	}
}

// TestManyURLs crawls a sitemap index of 50 files: with STOKER_TEST_URLS=1000000 a million addresses. What
// the worker holds does not grow with how many it has visited.
func TestManyURLs(t *testing.T) {
	total := 5_000
	if n, err := strconv.Atoi(os.Getenv("STOKER_TEST_URLS")); err == nil {
		total = n
	}
	const files = 50
	g := newRig(t)
	g.cfg.WarmBatch = 1_000
	g.site.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var file int
		switch {
		case r.URL.Path == "/sitemap.xml":
			fmt.Fprint(w, "<sitemapindex>")
			for i := range files {
				fmt.Fprintf(w, "<sitemap><loc>https://www.example.com/sitemap-%d.xml.gz</loc></sitemap>", i)
			}
			fmt.Fprint(w, "</sitemapindex>")
		case scan(r.URL.Path, "/sitemap-%d.xml.gz", &file):
			z := gzip.NewWriter(w)
			defer z.Close()
			fmt.Fprint(z, "<urlset>")
			for i := range total / files {
				fmt.Fprintf(z, "<url><loc>https://www.example.com/articles/%d/a-title-of-usual-length-%d</loc></url>", file, i)
			}
			fmt.Fprint(z, "</urlset>")
		default:
			io.WriteString(w, "page")
		}
	})
	plan := fmt.Sprintf("version: 1\nsources:\n  - name: pages\n    crawl: {base: %q, sitemap: /sitemap.xml}\n", g.site.URL)
	before := g.memory()
	_, err := g.Run(t.Context(), g.jobs.job("run"), g.start("run1", "r1", plan))
	must(t, err)
	batches := g.tasks.batches()
	listed := g.memory() - before
	var early, late uint64
	for i, b := range batches {
		if _, err := g.Batch(t.Context(), g.jobs.job(BatchTaskID(b)), b); err != nil {
			t.Fatal(err)
		}
		delete(g.jobs.cursors, BatchTaskID(b)) // in Redis, where there is one
		switch i {
		case len(batches) / 10:
			early = heap()
		case len(batches) - 2:
			late = heap()
		}
	}
	s := g.status("run1")
	if s.Status != string(Pass) || s.Certificate.Planned != int64(total) {
		t.Errorf("certificate %+v", s.Certificate)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	t.Logf("%d addresses: %d bytes each in the queue Redis; heap %d MiB after a tenth, %d MiB at the end; %d MiB taken from the system, site and test included", total, listed/int64(total), early>>20, late>>20, m.Sys>>20)
	if late > early+16<<20 {
		t.Errorf("heap grew from %d to %d bytes", early, late)
	}
}

func scan(path, format string, n *int) bool {
	got, err := fmt.Sscanf(path, format, n)
	return err == nil && got == 1
}

// heap returns the bytes in use.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
