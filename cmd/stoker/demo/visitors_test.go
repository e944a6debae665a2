package demo

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTruth(t *testing.T) {
	truth := NewTruth([]Article{{Slug: "a"}, {Slug: "b"}})
	truth.Begin(Edit{Number: 1, Tags: []string{"latest", "post:a"}, Alive: map[string]bool{"a": true}})
	truth.Begin(Edit{Number: 2, Tags: []string{"latest", "post:b"}, Alive: map[string]bool{"b": false}})
	for _, tc := range []struct {
		settled int64
		stamp   Stamp
		stale   bool
	}{
		{0, Stamp{"post:a", 0}, false}, // its edit was still under way
		{1, Stamp{"post:a", 0}, true},
		{1, Stamp{"post:a", 1}, false},
		{2, Stamp{"post:a", 1}, false},
		{1, Stamp{"latest", 1}, false},
		{2, Stamp{"latest", 1}, true},
		{2, Stamp{"post:b", 0}, true}, // shown after its deletion
		{2, Stamp{"tag:x", 0}, false},
	} {
		if what, stale := truth.Stale(tc.settled, []Stamp{tc.stamp}); stale != tc.stale {
			t.Errorf("%v when %d edits have settled: stale %v (%s)", tc.stamp, tc.settled, stale, what)
		}
	}
	for _, tc := range []struct {
		settled     int64
		slug        string
		alive, sure bool
	}{{0, "a", true, false}, {1, "a", true, true}, {1, "b", false, false}, {2, "b", false, true}, {0, "never", false, true}} {
		if alive, sure := truth.Exists(tc.settled, tc.slug); alive != tc.alive || sure != tc.sure {
			t.Errorf("%q at %d: alive %v, sure %v", tc.slug, tc.settled, alive, sure)
		}
	}
	truth.Settle(2)
	truth.Settle(1)
	if truth.Settled() != 2 {
		t.Errorf("settled went back to %d", truth.Settled())
	}
	alive, gone := truth.Slugs()
	if !cmp.Equal(alive, []string{"a"}) || !cmp.Equal(gone, []string{"b"}) {
		t.Errorf("alive %q, gone %q", alive, gone)
	}
}

func TestStampsSurviveThePage(t *testing.T) {
	page := fmt.Sprintf(`<i>%v</i> v[0] [[v broken]] [[v x=y]] %v [[v `, Stamp{"post:a/b", 12}, Stamp{"tag:x=y", 3})
	want := []Stamp{{"post:a/b", 12}}
	if d := cmp.Diff(want, ParseStamps([]byte(page))); d != "" {
		t.Error(d)
	}
}

func TestVisitorsJudge(t *testing.T) {
	truth := NewTruth([]Article{{Slug: "a"}, {Slug: "b"}, {Slug: "gone"}})
	truth.Begin(Edit{Number: 5, Tags: []string{"post:a", "post:gone"}, Alive: map[string]bool{"a": true, "gone": false}})
	truth.Settle(5)
	for _, tc := range []struct {
		name, slug    string
		status        int
		body          string
		stale, errors int64
	}{
		{"fresh", "a", 200, "[[v post:a=5]]", 0, 0},
		{"stale", "a", 200, "[[v post:a=4]]", 1, 0},
		{"missing", "b", 404, "", 0, 1},
		{"rightly missing", "gone", 404, "", 0, 0},
		{"back from the dead", "gone", 200, "", 1, 0},
		{"broken", "a", 500, "oh", 0, 1},
		{"no release", "", 503, "oh", 0, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set(CacheHeader, "HIT")
				w.Header().Set("Server-Timing", `db;desc="3 calls";dur=0.1`)
				w.WriteHeader(tc.status)
				fmt.Fprint(w, tc.body)
			}))
			defer web.Close()
			v := newCrowd(web.URL, truth, Corpus{}, 1)
			v.client = web.Client()
			v.visit(t.Context(), "/"+tc.slug, tc.slug)
			got := v.phase()
			if got.Stale != tc.stale || got.Errors != tc.errors || got.Requests != 1 || got.HitRate != 1 || got.Calls != 3 || got.P99 == 0 {
				t.Errorf("got %+v", got)
			}
			if got := v.phase(); got.Requests != 0 {
				t.Errorf("the next phase began with %d requests", got.Requests)
			}
			web.Close()
			v.visit(t.Context(), "/a", "a")
			if got := v.phase(); got.Errors != 1 {
				t.Errorf("no answer at all: %+v", got)
			}
		})
	}
}

func TestVisitorsChooseBySeed(t *testing.T) {
	c := small(50, 1)
	choices := func(seed uint64) (paths []string) {
		one := newCrowd("", NewTruth(c.Articles), c, seed).visitor(seed)
		for range 200 {
			path, _ := one.choose()
			paths = append(paths, path)
		}
		return paths
	}
	if !cmp.Equal(choices(1), choices(1)) {
		t.Error("two visitors of the same seed differ")
	}
	count := map[string]int{}
	for _, p := range choices(2) {
		kind := "article"
		for _, k := range []string{"/" + tagPath, "/" + authorPath, "/" + apiPath} {
			if strings.HasPrefix(p, k) {
				kind = k
			}
		}
		if p == "/" {
			kind = p
		}
		count[kind]++
	}
	if len(count) != 5 || count["article"] < 100 {
		t.Errorf("choices: %v", count)
	}
}

func TestMeterKeepsAFewExamples(t *testing.T) {
	m := newMeter()
	for i := range 2 * maxExamples {
		m.stale(fmt.Sprint(i))
	}
	m.answered(http.Header{}, time.Hour)
	got := m.read()
	if got.Stale != 2*maxExamples || len(got.Examples) != maxExamples || got.P99 < 50*time.Second {
		t.Errorf("got %+v", got)
	}
}

func TestReportFails(t *testing.T) {
	fault := Settled{Stale: 1, Examples: []string{"/a: old"}}
	for _, tc := range []struct {
		name string
		p    Phase
		bad  bool
	}{
		{"all well", Phase{}, false},
		{"stale at rest", Phase{Name: "x", Stoker: Side{Rest: fault}}, true},
		{"an error at rest", Phase{Stoker: Side{Rest: Settled{Errors: 1}}}, true},
		{"a visitor's error", Phase{Stoker: Side{Seen: Figures{Errors: 1}}}, true},
		{"the plain site's faults", Phase{Plain: Side{Seen: Figures{Errors: 1, Stale: 1}, Rest: fault}}, false},
	} {
		err := Report{Phases: []Phase{{}, tc.p}}.Err()
		if errors.Is(err, ErrFaults) != tc.bad {
			t.Errorf("%s: %v", tc.name, err)
		}
		if tc.p.Stoker.Rest.Stale > 0 && !strings.Contains(err.Error(), "x: /a: old") {
			t.Errorf("%s: no example in %v", tc.name, err)
		}
	}
}
