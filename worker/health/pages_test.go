package health

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

func TestTitle(t *testing.T) {
	for in, want := range map[string]string{
		"<title>One &amp; two</title>":                 "One & two",
		"<html><head><TITLE lang=en>\n a\n b </TITLE>": "a b",
		"<title></title>":                              "",
		"<p>no title</p>":                              "",
		"<title>cut":                                   "cut",
		`{"title": "json"}`:                            "",
	} {
		if got := title([]byte(in)); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// TestComparePages: two instances that differ on some pages are asked in turn, marked, and what
// differs comes first.
func TestComparePages(t *testing.T) {
	var mu sync.Mutex
	var order []string
	instance := func(release string) *httptest.Server {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get(ProbeHeader) != "1" || r.Header.Get("X-Release") != release {
				t.Errorf("request of %s with headers %v", release, r.Header)
			}
			mu.Lock()
			order = append(order, release)
			mu.Unlock()
			w.Header().Set("X-Cache", "HIT")
			w.Header().Set("Server-Timing", "db;count=2")
			switch {
			case r.URL.Path == "/gone" && release == "r2":
				w.WriteHeader(http.StatusNotFound)
			case r.URL.Path == "/renamed":
				fmt.Fprintf(w, "<title>as %s</title>", release)
			case r.URL.Path == "/longer" && release == "r2":
				fmt.Fprint(w, "<title>same</title>more")
			default:
				fmt.Fprint(w, "<title>same</title>")
			}
		}))
		t.Cleanup(srv.Close)
		return srv
	}
	redis := redistest.Mini(t)
	m := newMonitor(t, redis, redis, nil)
	m.cfg.ProbeConcurrency = 1
	side := func(id string) Side {
		return Side{id, Probes{Base: instance(id).URL, Paths: []string{"/", "/longer", "/renamed", "/gone"}, Count: 400, Headers: http.Header{"X-Release": {id}}}}
	}
	got, err := m.ComparePages(context.Background(), tasks.Alone("c"), side("r1"), side("r2"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, p := range got.Pages {
		lines = append(lines, fmt.Sprintf("%s %s: %s→%s %d→%d", p.Path, strings.Join(p.Differs, ","), p.A.Status, p.B.Status, p.A.Requests, p.B.Requests))
	}
	want := []string{
		"/gone status,title,size: 200→404 100→100", "/renamed title: 200→200 100→100", "/longer size: 200→200 100→100", "/ : 200→200 100→100",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
	if last := got.Pages[3]; last.A.HitRate != 1 || last.A.DBCalls != 2 || last.A.Title != "same" {
		t.Errorf("got %+v", last.A)
	}
	if got.Verdict.Verdict != Worse {
		t.Errorf("a quarter of the pages is gone: %s %q", got.Verdict.Verdict, got.Verdict.Reasons)
	}
	// Both have the same luck: whichever comes first changes from round to round.
	if order[0] != "r1" || order[1] != "r2" || order[8] != "r2" || order[9] != "r1" {
		t.Errorf("asked in the order %v …", order[:10])
	}
}
