package crawl_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/crawl"
	"github.com/alphanode/stoker/worker/warm/origin"
	"github.com/alphanode/stoker/worker/warm/source"
)

// all walks some paths and returns everything as one chunk.
func all(t *testing.T, s *crawl.Source, paths ...string) source.Chunk {
	t.Helper()
	var sum source.Chunk
	err := s.Walk(t.Context(), source.Part{Items: paths}, "", func(c source.Chunk) error {
		sum.Entries, sum.Failed, sum.Unfit = append(sum.Entries, c.Entries...), append(sum.Failed, c.Failed...), append(sum.Unfit, c.Unfit...)
		sum.Again = c.Again
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// has is a namespace that has some entries.
func has(keys ...string) func(context.Context, []string) ([]bool, error) {
	return func(_ context.Context, asked []string) ([]bool, error) {
		found := make([]bool, len(asked))
		for i, key := range asked {
			found[i] = slices.Contains(keys, key)
		}
		return found, nil
	}
}

func failures(c source.Chunk) map[string]source.Kind {
	kinds := map[string]source.Kind{}
	for _, f := range c.Failed {
		kinds[f.Key] = f.Kind
	}
	return kinds
}

// TestVariants asks for every page in every variant, each with its own headers, cookies and key.
func TestVariants(t *testing.T) {
	s := serve(t)
	var mu sync.Mutex
	seen := map[string]string{}
	s.at("/a", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen[r.Header.Get("X-Device")+"|"+r.Header.Get("Cookie")] = r.Header.Get("Accept-Language")
		fmt.Fprint(w, "page")
	})
	spec := crawl.Spec{Base: s.URL, Headers: map[string]string{"Accept-Language": "de", "Cookie": "consent=1"}, Variants: []crawl.Variant{
		{Name: "desktop"},
		{Name: "mobile", Headers: map[string]string{"X-Device": "phone of {{.Release}}"}},
		{Name: "member", Headers: map[string]string{"Accept-Language": "en"}, Cookies: map[string]string{"plan": "gold", "a": "{{.Release}}"}},
	}}
	src := open(t, spec, crawl.Expect{Key: "{{.Variant}}:page:{{.Path}}"})
	c := all(t, src, "/a", "/b")
	var keys []string
	for _, e := range c.Entries {
		keys = append(keys, e.Key)
	}
	want := []string{"desktop:page:/a", "mobile:page:/a", "member:page:/a", "desktop:page:/b", "mobile:page:/b", "member:page:/b"}
	if diff := cmp.Diff(want, keys); diff != "" {
		t.Error(diff)
	}
	wantSeen := map[string]string{"|consent=1": "de", "phone of r1|consent=1": "de", "|consent=1; a=r1; plan=gold": "en"}
	if diff := cmp.Diff(wantSeen, seen); diff != "" {
		t.Error(diff)
	}
	clear(seen)
	err := src.Find(t.Context(), []string{"mobile:page:/a", "tablet:page:/a"}, func(c source.Chunk) error {
		if len(c.Entries) != 1 || !slices.Equal(c.Gone, []string{"tablet:page:/a"}) {
			t.Errorf("found %v, gone %q", c.Entries, c.Gone)
		}
		return nil
	})
	if diff := cmp.Diff(map[string]string{"phone of r1|consent=1": "de"}, seen); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

// TestBypass: a site is asked to load anew what it has, and what an edit overtook, and nothing else.
func TestBypass(t *testing.T) {
	s := serve(t)
	var mu sync.Mutex
	renewed := map[string]bool{}
	for _, path := range []string{"/old", "/new"} {
		s.at(path, func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			renewed[path] = r.Header.Get("X-Refresh") == "r1" && r.Header.Get("Cookie") == "nocache=1"
			fmt.Fprint(w, "page")
		})
	}
	spec := crawl.Spec{Base: s.URL, Bypass: &crawl.Bypass{Headers: map[string]string{"X-Refresh": "{{.Release}}"}, Cookies: map[string]string{"nocache": "1"}}}
	src := openWith(t, spec, crawl.Expect{Key: "page:{{.Path}}"}, here(), has("page:/old"))
	c := all(t, src, "/old", "/new")
	if diff := cmp.Diff(map[string]bool{"/old": true, "/new": false}, renewed); diff != "" || len(c.Entries) != 2 {
		t.Errorf("%d entries; asked to load anew:\n%s", len(c.Entries), diff)
	}
	c.Again(t.Context(), []string{"page:/new"})
	if !renewed["/new"] {
		t.Error("what an edit overtook was not asked to be loaded anew")
	}
	renewed["/new"] = false
	if err := src.Find(t.Context(), []string{"page:/new"}, func(source.Chunk) error { return nil }); err != nil || !renewed["/new"] {
		t.Errorf("what was invalidated was not asked to be loaded anew: %v", err)
	}
}

// TestRedirects are followed as often as is said, and never away from the base.
func TestRedirects(t *testing.T) {
	s := serve(t)
	foreign := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("another host was asked") }))
	defer foreign.Close()
	to := func(location string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", location)
			w.WriteHeader(http.StatusMovedPermanently)
		}
	}
	s.at("/one", to("two?x=1"))
	s.at("/two", to("https://www.example.com/page"))
	s.at("/out", to(foreign.URL+"/page"))
	s.at("/file", to("file:///etc/passwd"))
	s.at("/round", to("/round"))
	s.at("/gone", to("/missing"))
	s.at("/missing", http.NotFound)
	spec := crawl.Spec{Base: s.URL, Redirects: 2, Hosts: []string{"www.example.com"}}
	c := all(t, openWith(t, spec, crawl.Expect{Key: "page:{{.Path}}"}, here(), has()), "/one", "/out", "/file", "/round", "/gone")
	if len(c.Entries) != 1 || c.Entries[0].Key != "page:/page" {
		t.Errorf("entries %v, want the last page's", c.Entries)
	}
	want := map[string]source.Kind{"/out": source.Redirected, "/file": source.Redirected, "/round": source.Redirected, "/gone": source.WrongStatus}
	if diff := cmp.Diff(want, failures(c)); diff != "" {
		t.Error(diff)
	}
	if s.count("/round") != 3 {
		t.Errorf("asked %d times, want 3", s.count("/round"))
	}
}

// TestHosts: addresses of other hosts are counted, and visited nowhere.
func TestHosts(t *testing.T) {
	s := serve(t)
	s.body("/sitemap.xml", urlset("https://www.example.com/a", "https://evil.example.com/b", s.URL+"/c", "http://169.254.169.254/latest"))
	spec := crawl.Spec{Base: s.URL, Sitemap: "/sitemap.xml", Hosts: []string{"www.example.com"}}
	listed, err := keys(t, spec)
	if err != nil {
		t.Fatal(err)
	}
	c := all(t, open(t, spec, crawl.Expect{}), listed...)
	want := map[string]source.Kind{"https://evil.example.com/b": source.Foreign, "http://169.254.169.254/latest": source.Foreign}
	if diff := cmp.Diff(want, failures(c)); diff != "" || len(c.Entries) != 2 || s.count("/b") != 0 {
		t.Errorf("%d entries\n%s", len(c.Entries), diff)
	}
	s.body("/sitemap.xml", index("https://evil.example.com/sitemap2.xml"))
	if _, err := keys(t, spec); !errors.Is(err, tasks.ErrInvalid) {
		t.Errorf("a sitemap on another host: %v, want that it is refused", err)
	}
}

// TestPrivateBase: an address that is not allowed ends the walk with the way out, and is not asked.
func TestPrivateBase(t *testing.T) {
	s := serve(t)
	port := s.URL[strings.LastIndex(s.URL, ":"):]
	for _, host := range []string{"127.0.0.1", "localhost", "0.0.0.0"} {
		src := openWith(t, crawl.Spec{Base: "http://" + host + port}, crawl.Expect{}, origin.Default(), nil)
		err := src.Walk(t.Context(), source.Part{Items: []string{"/", "/a"}}, "", func(source.Chunk) error { return nil })
		if !errors.Is(err, tasks.ErrRefused) || !strings.Contains(err.Error(), "STOKER_CRAWL_NETWORKS") || s.count("/a")+s.count("/") != 0 {
			t.Errorf("%s: got %v, want that it is refused", host, err)
		}
		if err := src.Probe(t.Context()); err == nil || !strings.Contains(err.Error(), "STOKER_CRAWL_NETWORKS") {
			t.Errorf("%s: plan check says %v", host, err)
		}
	}
	if _, failure := walk(t, open(t, crawl.Spec{Base: "http://localhost" + port}, crawl.Expect{}), "/"); failure != "" {
		t.Errorf("allowed: %s", failure)
	}
}

// TestUnfit: what a visit that does not count has left behind is named; what was there before is left
// alone, but where the site was asked to replace it and has answered for the page.
func TestUnfit(t *testing.T) {
	s := serve(t)
	answers := map[string]http.HandlerFunc{
		"/ok":       func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "page") },
		"/404":      http.NotFound,
		"/501":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotImplemented) },
		"/redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) },
		"/release": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Release", "r0")
			io.WriteString(w, "page")
		},
		"/cookie": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Set-Cookie", "a=b")
			io.WriteString(w, "page")
		},
		"/no-store": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "no-store")
			io.WriteString(w, "page")
		},
		"/empty": func(http.ResponseWriter, *http.Request) {},
		"/large": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, strings.Repeat("x", 2000)) },
	}
	for path, answer := range answers {
		s.at(path, answer)
	}
	paths := slices.Sorted(maps.Keys(answers))
	spec := crawl.Spec{Base: s.URL, Headers: map[string]string{"X-Want": "{{.Release}}"}}
	expect := crawl.Expect{Key: "page:{{.Path}}", MaxSize: "1KiB", Header: map[string]string{"X-Release": "{{.Release}}"}}
	want := map[string]source.Kind{
		"/404": source.WrongStatus, "/501": source.WrongStatus, "/redirect": source.Redirected, "/release": source.WrongRelease, "/cookie": source.SetsCookie,
		"/no-store": source.NoStore, "/empty": source.Empty, "/large": source.TooLarge,
	}
	var every []string
	for _, path := range paths {
		every = append(every, "page:"+path)
	}
	without := func(keys ...string) []string {
		return slices.DeleteFunc(slices.Clone(every), func(key string) bool { return slices.Contains(keys, key) })
	}
	for name, c := range map[string]struct {
		exist  func(context.Context, []string) ([]bool, error)
		bypass *crawl.Bypass
		unfit  []string
	}{
		"new entries":                    {has(), nil, without("page:/ok")},
		"all there before":               {has(every...), nil, nil},
		"all there, asked to be renewed": {has(every...), &crawl.Bypass{Headers: map[string]string{"X-Refresh": "1"}}, without("page:/ok", "page:/release", "page:/501")},
		"nobody can tell":                {nil, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			spec.Bypass = c.bypass
			got := all(t, openWith(t, spec, expect, here(), c.exist), paths...)
			if diff := cmp.Diff(want, failures(got)); diff != "" {
				t.Errorf("kinds (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.unfit, got.Unfit, cmpopts.EquateEmpty(), cmpopts.SortSlices(strings.Compare)); diff != "" {
				t.Errorf("unfit (-want +got):\n%s", diff)
			}
		})
	}
}
