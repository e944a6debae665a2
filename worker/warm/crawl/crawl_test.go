package crawl_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/crawl"
	"github.com/alphanode/stoker/worker/warm/origin"
	"github.com/alphanode/stoker/worker/warm/source"
	"github.com/alphanode/stoker/worker/warm/source/sourcetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is an instance of the site: pages by path, "" for what a page answers by itself.
type site struct {
	*httptest.Server
	mu    sync.Mutex
	hits  map[string]int
	pages map[string]http.HandlerFunc
}

func serve(t *testing.T) *site {
	s := &site{hits: map[string]int{}, pages: map[string]http.HandlerFunc{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.hits[r.URL.RequestURI()]++
		page := s.pages[r.URL.Path]
		s.mu.Unlock()
		w.Header().Set("X-Release", r.Header.Get("X-Want"))
		if page != nil {
			page(w, r)
			return
		}
		fmt.Fprint(w, "page")
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *site) at(path string, page http.HandlerFunc) { s.pages[path] = page }

func (s *site) body(path, text string) {
	s.at(path, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) })
}

func (s *site) count(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hits[path]
}

func open(t testing.TB, spec crawl.Spec, expect crawl.Expect) *crawl.Source {
	t.Helper()
	return openWith(t, spec, expect, here(), nil)
}

// here is the default configuration with this machine allowed.
func here() origin.Config {
	cfg := origin.Default()
	cfg.CrawlNetworks = origin.Loopback()
	return cfg
}

// openWith is open with the origin's ceilings, and a namespace.
func openWith(t testing.TB, spec crawl.Spec, expect crawl.Expect, cfg origin.Config, exist func(context.Context, []string) ([]bool, error)) *crawl.Source {
	t.Helper()
	client := crawl.NewClient(cfg.OriginConcurrency, cfg.CrawlNetworks, nil)
	s, err := crawl.New(spec, expect, "r1", crawl.Deps{Version: "1.2.3", Client: client, Origins: origin.New(cfg, origin.Deps{}), Exist: exist})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer client.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// walk visits one path and returns its key or its failure.
func walk(t *testing.T, s *crawl.Source, path string) (key, failure string) {
	t.Helper()
	err := s.Walk(t.Context(), source.Part{Items: []string{path}}, "", func(c source.Chunk) error {
		if len(c.Failed) > 0 {
			failure = c.Failed[0].Error
		} else {
			key = c.Entries[0].Key
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return key, failure
}

func TestContract(t *testing.T) {
	s := serve(t)
	var spec crawl.Spec
	spec.Base = s.URL
	h := sourcetest.Harness{
		Written: source.BySite, Resumes: true,
		Gone:    []string{"page:/p8", "page:/gone", "page:p1", "page:", "post:/p1", "#page:/p1"},
		Failing: []string{"page:/forbidden?q=1"},
	}
	s.at("/gone", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) })
	s.at("/forbidden?q=1", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	for i := range 70 {
		path := fmt.Sprintf("/p%d", i)
		spec.URLs = append(spec.URLs, path)
		h.Keys = append(h.Keys, path)
		if i%9 == 8 {
			s.at(path, http.NotFound)
			h.Failed++
		} else {
			h.Entries = append(h.Entries, "page:"+path)
		}
	}
	h.Open = func(t *testing.T) source.Source { return open(t, spec, crawl.Expect{Key: "page:{{.Path}}"}) }
	sourcetest.Run(t, h)
}

func TestRequest(t *testing.T) {
	s := serve(t)
	var got http.Header
	s.at("/a b", func(w http.ResponseWriter, r *http.Request) {
		got = r.Header
		fmt.Fprint(w, "page")
	})
	spec := crawl.Spec{Base: s.URL, Headers: map[string]string{"X-Want": "{{.Release}}", "Accept-Language": "de"}}
	key, failure := walk(t, open(t, spec, crawl.Expect{Key: "page:{{.Release}}:{{.Path}}?{{.Query}}"}), "/a%20b?c=%20d")
	if failure != "" || key != "page:r1:/a b?c=%20d" {
		t.Errorf("key %q, failure %q", key, failure)
	}
	for name, want := range map[string]string{"User-Agent": "stoker/1.2.3", crawl.WarmHeader: "1", "X-Want": "r1", "Accept-Language": "de"} {
		if got.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, got.Get(name), want)
		}
	}
}

func TestExpectations(t *testing.T) {
	s := serve(t)
	s.at("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) })
	s.at("/gone", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) })
	s.at("/empty", func(http.ResponseWriter, *http.Request) {})
	s.at("/large", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, strings.Repeat("x", 1025)) })
	s.at("/cookie", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Set-Cookie", "session=1")
		io.WriteString(w, "page")
	})
	s.at("/private", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Add("Cache-Control", "max-age=60")
		w.Header().Add("Cache-Control", "stale-if-error=1, Private=\"Set-Cookie\"")
		io.WriteString(w, "page")
	})
	s.at("/no-store", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-cache, no-store, must-revalidate")
		io.WriteString(w, "page")
	})
	s.at("/no-cache", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-cache, max-age=0")
		io.WriteString(w, "page")
	})
	s.at("/partial", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusPartialContent)
		io.WriteString(w, "page")
	})
	s.at("/torn", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "half")
	})
	right := map[string]string{"X-Want": "{{.Release}}"}
	header := map[string]string{"X-Release": "{{.Release}}"}
	tests := []struct {
		name, path string
		headers    map[string]string
		expect     crawl.Expect
		want       string
	}{
		{"page", "/", right, crawl.Expect{Header: header}, ""},
		{"another release", "/", nil, crawl.Expect{Header: header}, `X-Release "", not "r1"`},
		{"redirect", "/moved", right, crawl.Expect{}, "302 Found, not 200"},
		{"wanted status", "/partial", right, crawl.Expect{Status: 206}, ""},
		{"not the wanted status", "/", right, crawl.Expect{Status: 206}, "200 OK, not 206"},
		{"gone", "/gone", right, crawl.Expect{}, "410 Gone, not 200"},
		{"torn", "/torn", right, crawl.Expect{}, "read page"},
		{"empty", "/empty", right, crawl.Expect{}, "empty page"},
		{"empty and right", "/empty", right, crawl.Expect{Accept: []source.Kind{source.Empty}}, ""},
		{"large", "/large", right, crawl.Expect{MaxSize: "1KiB"}, "larger than 1024"},
		{"not too large", "/large", right, crawl.Expect{MaxSize: "1025B"}, ""},
		{"cookie", "/cookie", right, crawl.Expect{}, "cookie"},
		{"cookie and right", "/cookie", right, crawl.Expect{Accept: []source.Kind{source.SetsCookie}}, ""},
		{"private", "/private", right, crawl.Expect{}, "Private"},
		{"no-store", "/no-store", right, crawl.Expect{}, "no-store"},
		{"no-store and right", "/no-store", right, crawl.Expect{Accept: []source.Kind{source.NoStore}}, ""},
		{"no-cache may be stored", "/no-cache", right, crawl.Expect{}, ""},
		{"reserved key", "/", right, crawl.Expect{Key: "{{if .Path}}#{{end}}"}, "reserved"},
		{"no such name", "/", right, crawl.Expect{Key: "{{.None}}"}, "None"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, failure := walk(t, open(t, crawl.Spec{Base: s.URL, Headers: tt.headers}, tt.expect), tt.path)
			if (failure == "") != (tt.want == "") || !strings.Contains(failure, tt.want) {
				t.Errorf("failure %q, want %q", failure, tt.want)
			}
		})
	}
	if s.count("/elsewhere") != 0 {
		t.Error("a redirect was followed")
	}
}

// TestRetry: a busy site is asked again, as often as is bounded, and told so by its own header.
func TestRetry(t *testing.T) {
	s := serve(t)
	var tries atomic.Int32
	s.at("/busy", func(w http.ResponseWriter, _ *http.Request) {
		if tries.Add(1) < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprint(w, "page")
	})
	s.at("/down", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	s.at("/later", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	if _, failure := walk(t, open(t, crawl.Spec{Base: s.URL}, crawl.Expect{}), "/busy"); failure != "" || tries.Load() != 3 {
		t.Errorf("failure %q after %d tries, want none after 3", failure, tries.Load())
	}
	if _, failure := walk(t, open(t, crawl.Spec{Base: s.URL}, crawl.Expect{}), "/down"); !strings.Contains(failure, "503") || s.count("/down") != 4 {
		t.Errorf("failure %q after %d tries, want 503 after 4", failure, s.count("/down"))
	}
	src := open(t, crawl.Spec{Base: s.URL}, crawl.Expect{})
	for _, path := range []string{"/later", "/busy"} {
		if _, failure := walk(t, src, path); !strings.Contains(failure, "1h0m0s") {
			t.Errorf("%s: failure %q, want that the origin asks for an hour", path, failure)
		}
	}
	if s.count("/later") != 1 || tries.Load() != 3 {
		t.Error("a site was asked again that asked to be left alone")
	}
}

// TestHangs: a page that does not answer in time fails, once, and holds up no other.
func TestHangs(t *testing.T) {
	s := serve(t)
	s.at("/hangs", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	src := open(t, crawl.Spec{Base: s.URL, Timeout: "100ms"}, crawl.Expect{})
	if _, failure := walk(t, src, "/hangs"); !strings.Contains(failure, "took too long") || s.count("/hangs") != 1 {
		t.Errorf("failure %q after %d tries, want one that took too long", failure, s.count("/hangs"))
	}
	if _, failure := walk(t, src, "/"); failure != "" {
		t.Errorf("the next page: %s", failure)
	}
}

// TestConcurrency: the first requests go alone, later ones together, up to the bound.
func TestConcurrency(t *testing.T) {
	s := serve(t)
	const bound, ramp = 3, 40
	var now, most, early atomic.Int32
	full := make(chan struct{}) // closed once as many as may are inside
	var items []string
	for i := range ramp + 12 {
		path := fmt.Sprintf("/c%d", i)
		items = append(items, path)
		s.at(path, func(w http.ResponseWriter, _ *http.Request) {
			n := now.Add(1)
			defer now.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			if i < 6 {
				early.Store(max(early.Load(), n))
			}
			if i >= ramp && i < ramp+bound {
				if n == bound {
					close(full)
				}
				<-full
			}
			fmt.Fprint(w, "page")
		})
	}
	src := open(t, crawl.Spec{Base: s.URL, Concurrency: bound}, crawl.Expect{})
	if err := src.Walk(t.Context(), source.Part{Items: items}, "", func(source.Chunk) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if most.Load() != bound || early.Load() != 1 {
		t.Errorf("%d requests at a time, %d at first, want %d and 1", most.Load(), early.Load(), bound)
	}
}

// TestCancelledMidway: a page that does not answer holds nothing up once the batch is to end.
func TestCancelledMidway(t *testing.T) {
	s := serve(t)
	ctx, cancel := context.WithCancel(t.Context())
	s.at("/slow", func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	err := open(t, crawl.Spec{Base: s.URL}, crawl.Expect{}).Walk(ctx, source.Part{Items: []string{"/slow"}}, "", func(source.Chunk) error {
		t.Error("a chunk of a page that did not answer")
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want a cancelled context", err)
	}
}

func keys(t *testing.T, spec crawl.Spec) ([]string, error) {
	t.Helper()
	var got []string
	err := open(t, spec, crawl.Expect{}).Keys(t.Context(), func(key string) error { got = append(got, key); return nil })
	return got, err
}

func zipped(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func urlset(addrs ...string) string {
	var b strings.Builder
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:image="http://www.google.com/schemas/sitemap-image/1.1">`)
	for _, a := range addrs {
		fmt.Fprintf(&b, "<url>\n <loc> %s </loc><lastmod>2026-01-01</lastmod><image:image><image:loc>https://www.example.com/a.png</image:loc></image:image></url>", a)
	}
	return b.String() + "</urlset>"
}

func index(addrs ...string) string {
	text := "<sitemapindex>"
	for _, a := range addrs {
		text += "<sitemap><loc>" + a + "</loc></sitemap>"
	}
	return text + "</sitemapindex>"
}

func TestSitemap(t *testing.T) {
	s := serve(t)
	// Addresses of the public site: what is visited is always the base.
	s.body("/sitemap.xml", index("https://www.example.com/one.xml", "https://www.example.com/two.xml.gz", "/sitemap.xml"))
	s.body("/one.xml", urlset("https://www.example.com/", "https://www.example.com/a?b=1&amp;c=2", "https://www.example.com"))
	s.body("/two.xml.gz", zipped(t, urlset("https://www.example.com/a", "https://other.example.com//evil.example.com/x", "https://www.example.com/%C3%A9")))
	file := filepath.Join(t.TempDir(), "urls")
	if err := os.WriteFile(file, []byte("\n/from-file\n https://www.example.com/a \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := keys(t, crawl.Spec{Base: s.URL, Sitemap: "/sitemap.xml", URLs: []string{"/listed", "/"}, URLsFile: file})
	want := []string{"/", "/a?b=1&c=2", "/a", "//evil.example.com/x", "/%C3%A9", "/listed", "/from-file"}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for _, path := range want {
		if _, failure := walk(t, open(t, crawl.Spec{Base: s.URL}, crawl.Expect{}), path); failure != "" || s.count(path) != 1 {
			t.Errorf("%s: %q, visited %d times", path, failure, s.count(path))
		}
	}
}

func TestSitemapRefused(t *testing.T) {
	s := serve(t)
	s.body("/html", "<html><body>Not found</body></html>")
	s.body("/torn", "<urlset><url><loc>/a</loc></url>")
	s.body("/empty", "")
	s.body("/nested", "<urlset>"+strings.Repeat("<url>", 1_000))
	s.body("/gz", "\x1f\x8bnothing")
	s.at("/gone", http.NotFound)
	for i := range 6 {
		s.body(fmt.Sprintf("/deep%d", i), index(fmt.Sprintf("/deep%d", i+1)))
	}
	for path, want := range map[string]string{
		"/html": "<html>", "/torn": "unexpected EOF", "/empty": "EOF", "/nested": "in one another", "/gz": "gzip", "/gone": "404", "/deep0": "levels",
	} {
		if _, err := keys(t, crawl.Spec{Base: s.URL, Sitemap: path}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", path, err, want)
		}
	}
	if _, err := keys(t, crawl.Spec{Base: s.URL, URLsFile: "missing"}); !errors.Is(err, tasks.ErrInvalid) {
		t.Errorf("got %v, want invalid input", err)
	}
}

// TestNoAddress: what is listed and is no address fails, and stops nothing.
func TestNoAddress(t *testing.T) {
	s := serve(t)
	s.body("/sitemap.xml", urlset("/a", "mailto:ann@example.com", "/"+strings.Repeat("x", 9_000), "http://%zz/", "/b"))
	spec := crawl.Spec{Base: s.URL, Sitemap: "/sitemap.xml"}
	var c source.Chunk
	err := open(t, spec, crawl.Expect{}).Walk(t.Context(), source.Part{}, "", func(got source.Chunk) error { c = got; return nil })
	if err != nil || len(c.Entries) != 2 || len(c.Failed) != 3 || s.count("/a")+s.count("/b") != 2 {
		t.Fatalf("%v: %+v", err, c)
	}
	if f := c.Failed[0]; f.Key != "not an address: mailto:ann@example.com" || f.Kind != source.Unreadable || len(c.Failed[1].Key) > 300 {
		t.Errorf("%+v", c.Failed)
	}
}

// TestRealSitemap reads the sitemap of a real site.
func TestRealSitemap(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "shared", "data", "sitemap.xml"))
	if err != nil {
		t.Skip("no real sitemap: ../shared/data is absent")
	}
	s := serve(t)
	s.body("/sitemap.xml", string(text))
	got, err := keys(t, crawl.Spec{Base: s.URL, Sitemap: "/sitemap.xml"})
	if err != nil || len(got) < 1_774 {
		t.Errorf("%d addresses (%v), want 1,774 or more", len(got), err)
	}
}

func FuzzSitemap(f *testing.F) {
	f.Add([]byte(urlset("https://www.example.com/a")))
	f.Add([]byte(index("/a")))
	f.Add([]byte("<urlset></urlset></urlset>"))
	var body atomic.Pointer[[]byte]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/sitemap.xml" {
			w.Write(*body.Load())
			return
		}
		http.NotFound(w, r)
	}))
	f.Cleanup(server.Close)
	f.Fuzz(func(t *testing.T, text []byte) {
		body.Store(&text)
		got, _ := keys(t, crawl.Spec{Base: server.URL, Sitemap: "/sitemap.xml"})
		for _, key := range got {
			if !strings.HasPrefix(key, "/") && !strings.HasPrefix(key, "not an address: ") {
				t.Errorf("address %q is no path", key)
			}
		}
	})
}

// TestFind asks for single pages that the plan does not list.
func TestFind(t *testing.T) {
	s := serve(t)
	c := open(t, crawl.Spec{Base: s.URL, URLs: []string{"/"}}, crawl.Expect{Key: "{{.Release}}:page:{{.Path}}?{{.Query}}"})
	keys := map[string]string{ // and the address that is asked for
		"r1:page:/a?":          "/a",
		"r1:page:/ä b?x=1&y=?": "/%C3%A4%20b?x=1&y=?",
		"r1:page://host/x?":    "//host/x",
		"r1:page:/a%2Fb?":      "/a%252Fb",
	}
	found := 0
	err := c.Find(t.Context(), slices.Collect(maps.Keys(keys)), func(c source.Chunk) error {
		found += len(c.Entries)
		for _, f := range c.Failed {
			t.Errorf("%q: %s", f.Key, f.Error)
		}
		return nil
	})
	if err != nil || found != len(keys) {
		t.Errorf("found %d of %d keys: %v", found, len(keys), err)
	}
	for key, address := range keys {
		if s.count(address) != 1 {
			t.Errorf("%q: %s was asked for %d times, want once (of %v)", key, address, s.count(address), s.hits)
		}
	}
	for _, expect := range []crawl.Expect{{}, {Key: "start"}, {Key: "page:{{.Query}}"}} {
		err := open(t, crawl.Spec{Base: s.URL, URLs: []string{"/"}}, expect).Find(t.Context(), []string{"start"}, nil)
		if !errors.Is(err, tasks.ErrInvalid) {
			t.Errorf("%+v: got %v, want invalid input", expect, err)
		}
	}
}
