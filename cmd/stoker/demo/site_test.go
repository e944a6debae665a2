package demo

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func tiny() Corpus {
	return Corpus{
		Articles: []Article{
			{Slug: "blog/a", Title: "First & best", Body: "# Head\n\n<b>text</b>\n\nmore", Tags: []string{"css", "docs/x"}, Authors: []string{"ann"}, Updated: "2024-01-01"},
			{Slug: "b", Title: "Second", Body: "text", Tags: []string{"css"}, Authors: []string{"ann", "bob"}, Updated: "2024-01-02"},
		},
		Events: []Event{{Changes: []Change{{Op: Modify, Slug: "b"}}}},
	}
}

func ask(t *testing.T, h http.Handler, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "http://site.test"+path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestSiteTellsHowAnAnswerWasMade(t *testing.T) {
	m := newMemory()
	m.spaces["r1"] = map[string]memoryEntry{}
	cache, _ := m.client("r1")
	site := openSite(t, "r1", openStore(t, tiny()), cache)
	for i, tc := range []struct {
		path, header, value string
		status              int
		cache, calls        string
	}{
		{"/blog/a", "Cache-Control", "no-store", 200, "MISS", "6 calls"}, // two each for article, nav, author
		{"/blog/a", "", "", 200, "MISS", "6 calls"},
		{"/blog/a", "", "", 200, "HIT", "0 calls"},
		{"/b", "", "", 200, "MISS", "4 calls"}, // nav and ann are there
		{"/tag/docs/x", "", "", 200, "MISS", "3 calls"},
		{"/author/bob", "", "", 200, "MISS", "3 calls"},
		{"/", "", "", 200, "MISS", "2 calls"},
		{"/api/b", "", "", 200, "MISS", "1 calls"},
		{"/api/b", "", "", 200, "HIT", "0 calls"},
		{"/sitemap.xml", "", "", 200, "BYPASS", "2 calls"},
		{"/none", "", "", 404, "MISS", "1 calls"},
		{"/none", "", "", 404, "MISS", "1 calls"},
		{"/tag/none", "", "", 404, "MISS", "2 calls"},
	} {
		w := ask(t, site, tc.path, tc.header, tc.value)
		h := w.Header()
		if w.Code != tc.status || h.Get(CacheHeader) != tc.cache || !strings.Contains(h.Get("Server-Timing"), tc.calls) || h.Get(ReleaseHeader) != "r1" {
			t.Errorf("%d: %s: got %d %s %s %s, want %d %s %s", i, tc.path, w.Code, h.Get(CacheHeader), h.Get("Server-Timing"), h.Get(ReleaseHeader), tc.status, tc.cache, tc.calls)
		}
	}
}

func TestSitePages(t *testing.T) {
	store := openStore(t, tiny())
	one, two := openSite(t, "r1", store, nil), openSite(t, "r2", store, nil)
	a, b := ask(t, one, "/blog/a"), ask(t, two, "/blog/a")
	if a.Body.String() == b.Body.String() {
		t.Error("both releases show the same HTML")
	}
	for _, want := range []string{"First &amp; best", "<h2>Head</h2>", "&lt;b&gt;text", `href="/tag/docs/x"`, "By <a href=\"/author/ann\">ann</a>, author of 2", "css (2)"} {
		if !strings.Contains(a.Body.String(), want) {
			t.Errorf("no %q in %s", want, a.Body)
		}
	}
	want := []Stamp{{"post:blog/a", 0}, {"nav", 0}, {"author:ann", 0}}
	if d := cmp.Diff(want, ParseStamps(a.Body.Bytes())); d != "" {
		t.Error(d)
	}
	if w := ask(t, one, "/blog/a", "If-None-Match", a.Header().Get("ETag")); w.Code != http.StatusNotModified {
		t.Errorf("the same ETag: status %d", w.Code)
	}
	if w := ask(t, two, "/blog/a", "If-None-Match", a.Header().Get("ETag")); w.Code != http.StatusOK {
		t.Errorf("another release's ETag: status %d", w.Code)
	}
	if w := ask(t, one, "/sitemap.xml"); strings.Count(w.Body.String(), "<loc>http://site.test/") != 7 {
		t.Errorf("sitemap: %s", w.Body)
	}
	if w := ask(t, one, "/api/b"); !strings.Contains(w.Body.String(), `"authors":"ann,bob"`) || !strings.Contains(w.Body.String(), "[[v post:b=0]]") {
		t.Errorf("api: %s", w.Body)
	}
	post := httptest.NewRequest(http.MethodPost, "/", nil)
	w := httptest.NewRecorder()
	if one.ServeHTTP(w, post); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: status %d", w.Code)
	}
}

func TestTagsAndKeysAreInverse(t *testing.T) {
	for _, key := range []string{"page:/", "page:/a/b", "post:a/b", "nav:tags", "frag:author/x/y", "page:/author/x", "page:/tag/x/y"} {
		found := false
		for _, k := range keysOf(tagOf(key)) {
			found = found || k == key
			if tagOf(k) != tagOf(key) {
				t.Errorf("%q and %q share the tag %q and do not", key, k, tagOf(key))
			}
		}
		if !found {
			t.Errorf("key %q is not among those of its tag %q", key, tagOf(key))
		}
	}
}

func TestEditsOfEveryKind(t *testing.T) {
	store := openStore(t, tiny())
	site := openSite(t, "r1", store, nil)
	apply := func(want Edit, changes ...Change) {
		t.Helper()
		begun := Edit{}
		got, err := store.Apply(t.Context(), Event{changes}, func(e Edit) { begun = e })
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff(got, begun); d != "" {
			t.Errorf("told before the commit: %s", d)
		}
	}
	apply(Edit{1, []string{"author:ann", "author:bob", "latest", "post:b", "tag:css"}, map[string]bool{"b": true}}, Change{Op: Modify, Slug: "b"})
	apply(Edit{2, []string{"author:ann", "latest", "nav", "post:blog/a", "tag:css", "tag:docs/x"}, map[string]bool{"blog/a": false}}, Change{Op: Delete, Slug: "blog/a"})
	if w := ask(t, site, "/tag/docs/x"); w.Code != http.StatusNotFound {
		t.Errorf("the tag of a deleted article: status %d", w.Code)
	}
	apply(Edit{3, []string{"author:ann", "author:bob", "latest", "nav", "post:b", "post:c/d", "tag:css"}, map[string]bool{"b": false, "c/d": true}}, Change{Op: Rename, Slug: "c/d", From: "b"})
	if w := ask(t, site, "/c/d"); !strings.Contains(w.Body.String(), "Revised by edit 1") {
		t.Errorf("a renamed article: %s", w.Body)
	}
	apply(Edit{4, []string{"latest"}, map[string]bool{}}, Change{Op: Delete, Slug: "never"})
	apply(Edit{5, []string{"author:ann", "author:bob", "author:desk", "latest", "nav", "post:b", "post:e", "tag:css"}, map[string]bool{"b": true, "e": true}},
		Change{Op: Rename, Slug: "e", From: "never"}, Change{Op: Add, Slug: "b"})
}

// Every edit must invalidate every page that it changes, in every release; a forgotten tag
// must be found.
func TestNoEditLeavesAStalePage(t *testing.T) {
	const events, steps = 40, 2
	c := small(12, events)
	for _, forget := range []string{"\x00", "post:", "tag:", "author:", latestTag, navTag} {
		t.Run(fmt.Sprintf("%q lost", forget), func(t *testing.T) {
			t.Parallel()
			m := newMemory()
			m.forget = forget
			m.spaces["r1"] = map[string]memoryEntry{}
			cache, _ := m.client("r1")
			store := openStore(t, c)
			site := openSite(t, "r1", store, cache)
			web := httptest.NewServer(site)
			defer web.Close()
			truth := NewTruth(c.Articles)
			e := &editor{store: store, truth: truth, caches: []Cache{cache}, history: c.Events}
			check := &inspector{truth, map[string]*Site{"r1": openSite(t, "r1", store, nil)}, web.Client()}
			stale := int64(0)
			for range steps {
				paths, err := site.Paths(t.Context(), new(Tally))
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range paths {
					ask(t, site, p)
				}
				if err := e.storm(t.Context(), events/steps, 1e6, func(int64, int64) {}); err != nil {
					t.Fatal(err)
				}
				found, err := check.compare(t.Context(), "r1", web.URL)
				if err != nil || found[0].Errors != 0 {
					t.Fatalf("compare: %+v, %v", found, err)
				}
				got := found[0]
				if got.Cached == 0 {
					t.Error("nothing was cached: the comparison shows nothing")
				}
				stale += got.Stale
				if forget == "\x00" && got.Stale != 0 {
					t.Fatalf("stale: %+v", got)
				}
			}
			if forget != "\x00" && stale == 0 {
				t.Error("the lost invalidations were not noticed")
			}
		})
	}
}

func TestLookingDoesNotWarm(t *testing.T) {
	m := newMemory()
	m.spaces["r1"] = map[string]memoryEntry{}
	cache, _ := m.client("r1")
	store := openStore(t, tiny())
	web := httptest.NewServer(openSite(t, "r1", store, cache))
	defer web.Close()
	check := &inspector{NewTruth(tiny().Articles), map[string]*Site{"r1": openSite(t, "r1", store, nil)}, web.Client()}
	for range 2 {
		got, err := check.compare(t.Context(), "r1", web.URL)
		if want := []Settled{{Pages: 9}}; err != nil || !cmp.Equal(got, want) {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}
	if _, err := check.compare(t.Context(), "r9", web.URL); err == nil {
		t.Error("a release nobody built was compared")
	}
}

func TestComposePutsFragmentsInPlace(t *testing.T) {
	site := openSite(t, "r1", openStore(t, tiny()), nil)
	got, err := site.compose(t.Context(), new(answer), []byte(`x<include key="frag:author/ann"/>y`))
	if err != nil || !bytes.HasPrefix(got, []byte("x<aside")) || !bytes.HasSuffix(got, []byte("</aside>y")) {
		t.Errorf("got %s, %v", got, err)
	}
}
