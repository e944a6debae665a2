package health

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
	"github.com/alphanode/stoker/worker/release"
)

func TestDBCalls(t *testing.T) {
	for _, tt := range []struct {
		header []string
		want   int
		ok     bool
	}{
		{[]string{`db;desc="3 calls";dur=1.2`}, 3, true},
		{[]string{`db-calls;desc=3`}, 3, true},
		{[]string{`db;count=4, render;dur=8`}, 4, true},
		{[]string{`DB ; dur=1 ; DESC = "12"`}, 12, true},
		{[]string{`cache;desc="db;count=9, x", db;count=0`}, 0, true},
		{[]string{`a;desc="quote \" , db;count=7", db;count=2`}, 2, true},
		{[]string{`db;count=1, db;count=2`, `db-calls;desc="3 more"`}, 6, true},
		{[]string{`db;dur=53`}, 0, false},
		{[]string{`db;desc="none"`}, 0, false},
		{[]string{`database;count=3`}, 0, false},
		{[]string{`db;count=99999999999999999999`}, 0, false},
		{[]string{``}, 0, false},
		{[]string{`db;desc="3`}, 0, false},
		{nil, 0, false},
	} {
		h := http.Header{"Server-Timing": tt.header}
		n, ok := dbCalls(h, "db")
		if n != tt.want || ok != tt.ok {
			t.Errorf("%q: got %d %v, want %d %v", tt.header, n, ok, tt.want, tt.ok)
		}
	}
}

func FuzzDBCalls(f *testing.F) {
	for _, s := range []string{`db;desc="3 calls";dur=1.2`, `"`, `db;desc="\`, `;;,,=`, `db;count="1`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, ok := dbCalls(http.Header{"Server-Timing": {s}}, "db"); n < 0 || !ok && n != 0 {
			t.Errorf("%q: %d %v", s, n, ok)
		}
	})
}

func TestProbesValidate(t *testing.T) {
	good := Probes{Base: "https://example.org", Paths: []string{"/", "/a%20b?x=1"}}
	if err := good.Validate(); err != nil {
		t.Errorf("good probes: %v", err)
	}
	for name, p := range map[string]Probes{
		"scheme":     {Base: "ftp://example.org", Paths: good.Paths},
		"no host":    {Base: "/x", Paths: good.Paths},
		"no paths":   {Base: good.Base},
		"no slash":   {Base: good.Base, Paths: []string{"a"}},
		"other host": {Base: good.Base, Paths: []string{"@evil.example/"}},
		"unescaped":  {Base: good.Base, Paths: []string{"/%zz"}},
		"count":      {Base: good.Base, Paths: good.Paths, Count: MaxProbes + 1},
	} {
		if err := p.Validate(); !errors.Is(err, tasks.ErrInvalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// site answers like a small site: every fourth page is a miss with three database calls, /broken
// fails, /moved redirects.
func site(t *testing.T, check func(*http.Request)) *httptest.Server {
	t.Helper()
	var n atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if check != nil {
			check(r)
		}
		switch r.URL.Path {
		case "/broken":
			w.WriteHeader(http.StatusInternalServerError)
			return
		case "/moved":
			http.Redirect(w, r, "/", http.StatusFound)
			return
		}
		cache, calls := "HIT", 0
		if n.Add(1)%4 == 0 {
			cache, calls = "MISS", 3
		}
		w.Header().Set("X-Cache", cache)
		w.Header().Set("Server-Timing", fmt.Sprintf(`db;desc="%d calls"`, calls))
		_, _ = w.Write(make([]byte, 100))
	}))
	t.Cleanup(srv.Close)
	return srv
}

func TestMeasure(t *testing.T) {
	var bad atomic.Int64
	srv := site(t, func(r *http.Request) {
		if r.Header.Get("X-Stoker-Probe") != "1" || !strings.HasPrefix(r.UserAgent(), "stoker/") {
			bad.Add(1)
		}
	})
	redis := redistest.Mini(t)
	m := newMonitor(t, redis, redis, nil)
	b, err := m.measure(context.Background(), tasks.Alone("test"), Probes{
		Base: srv.URL, Paths: []string{"/", "/a", "/b", "/broken", "/moved"}, Count: 200,
	}, "r7")
	if err != nil {
		t.Fatal(err)
	}
	if n := bad.Load(); n != 0 {
		t.Errorf("%d requests were not marked as probes", n)
	}
	if diff := cmp.Diff(map[string]int{"200": 120, "302": 40, "500": 40}, b.StatusCounts); diff != "" {
		t.Error(diff)
	}
	if b.Release != "r7" || b.Requests != 200 || b.Errors != 40 || len(b.Samples) != 160 {
		t.Errorf("got %+v", b.Summary())
	}
	if b.HitRate != 0.75 || b.CacheReported != 120 || b.DBCallsPerRequest != 0.75 || b.DBReported != 120 {
		t.Errorf("cache %v of %d, db %v of %d", b.HitRate, b.CacheReported, b.DBCallsPerRequest, b.DBReported)
	}
	if b.P50 <= 0 || b.P95 < b.P50 || b.P99 < b.P95 || b.Bytes < 12_000 {
		t.Errorf("p50 %v p95 %v p99 %v bytes %d", b.P50, b.P95, b.P99, b.Bytes)
	}
}

func TestMeasureSiteDown(t *testing.T) {
	srv := site(t, nil)
	srv.Close()
	redis := redistest.Mini(t)
	m := newMonitor(t, redis, redis, nil)
	b, err := m.measure(context.Background(), tasks.Alone("test"), Probes{Base: srv.URL, Paths: []string{"/"}, Count: 10}, "r1")
	if err != nil {
		t.Fatal(err)
	}
	if b.Errors != 10 || b.StatusCounts["none"] != 10 || b.P99 != 0 || len(b.Samples) != 0 {
		t.Errorf("got %+v", b)
	}
}

// drainingJob is a job of a worker that is asked to stop after some progress.
type drainingJob struct {
	tasks.Alone
	after    int64
	draining chan struct{}
}

func (j *drainingJob) Draining() <-chan struct{} { return j.draining }

func (j *drainingJob) Progress(_ string, done, _ int64) {
	if done == j.after {
		close(j.draining)
	}
}

func TestMeasureStops(t *testing.T) {
	srv := site(t, nil)
	redis := redistest.Mini(t)
	m := newMonitor(t, redis, redis, nil)
	p := Probes{Base: srv.URL, Paths: []string{"/"}, Count: MaxProbes}
	job := &drainingJob{after: 5, draining: make(chan struct{})}
	if _, err := m.measure(context.Background(), job, p, "r1"); !errors.Is(err, tasks.ErrDraining) {
		t.Errorf("draining: got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := m.measure(ctx, tasks.Alone("test"), p, "r1"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
}

func TestBaselineThenWatch(t *testing.T) {
	ctx := context.Background()
	var broken atomic.Bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	t.Cleanup(srv.Close)
	redis := redistest.Mini(t)
	probes := Probes{Base: srv.URL, Paths: []string{"/"}, Count: 150}
	m := newMonitor(t, redis, redis, func(d *Deps) {
		d.Probes = func(context.Context, string) (Probes, error) { return probes, nil }
	})
	l := m.d.Ledger
	addRelease(t, l, "r1", true)
	addRelease(t, l, "r2", false)

	if _, err := m.Baseline(ctx, tasks.Alone("b"), tasks.Baseline{Release: "r9", By: testBy}); !errors.Is(err, tasks.ErrNotFound) {
		t.Errorf("unknown release: got %v", err)
	}
	b, err := m.Baseline(ctx, tasks.Alone("b"), tasks.Baseline{Release: "r1", By: testBy})
	if err != nil {
		t.Fatal(err)
	}
	r, err := l.Get(ctx, "r1")
	if err != nil {
		t.Fatal(err)
	}
	var stored Baseline
	if ok, err := r.Doc(release.DocBaseline, &stored); !ok || err != nil {
		t.Fatalf("stored baseline: %v %v", ok, err)
	}
	if diff := cmp.Diff(b, stored); diff != "" {
		t.Error(diff)
	}

	watch := func(p tasks.Watch) Verdict {
		t.Helper()
		p.By = testBy
		v, err := m.Watch(ctx, tasks.Alone("w"), p)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if v := watch(tasks.Watch{Release: "r2", Before: "r1"}); v.Verdict != Inconclusive {
		t.Errorf("not the active release: got %s %v", v.Verdict, v.Reasons)
	}
	if _, err := l.Flip(ctx, "r2", release.New, testBy); err != nil {
		t.Fatal(err)
	}
	if v := watch(tasks.Watch{Release: "r2", Before: "r0"}); v.Verdict != Inconclusive || v.After.Requests != 150 {
		t.Errorf("nothing to compare with: got %s %v", v.Verdict, v.Reasons)
	}
	broken.Store(true)
	v := watch(tasks.Watch{Release: "r2", Before: "r1"})
	if v.Verdict != Worse || v.Before.Release != "r1" || v.After.Errors != 150 || v.Before.Samples != nil {
		t.Errorf("broken site: got %+v", v)
	}
	if r, err = l.Get(ctx, "r2"); err != nil {
		t.Fatal(err)
	}
	var kept Verdict
	if ok, err := r.Doc(release.DocVerdict, &kept); !ok || err != nil || kept.Verdict != Worse {
		t.Errorf("stored verdict: %v %v %+v", ok, err, kept)
	}
}

// TestWatchReleaseChanges switches the active release while it is being measured.
func TestWatchReleaseChanges(t *testing.T) {
	ctx := context.Background()
	redis := redistest.Mini(t)
	var m *Monitor
	var flipped atomic.Bool
	srv := site(t, func(*http.Request) {
		if flipped.CompareAndSwap(false, true) {
			if _, err := m.d.Ledger.Flip(ctx, "r2", release.New, testBy); err != nil {
				t.Error(err)
			}
		}
	})
	m = newMonitor(t, redis, redis, func(d *Deps) {
		d.Probes = func(context.Context, string) (Probes, error) {
			return Probes{Base: srv.URL, Paths: []string{"/"}, Count: 120}, nil
		}
	})
	addRelease(t, m.d.Ledger, "r1", true)
	addRelease(t, m.d.Ledger, "r2", false)
	v, err := m.Watch(ctx, tasks.Alone("w"), tasks.Watch{Release: "r1", By: testBy})
	if err != nil || v.Verdict != Inconclusive {
		t.Errorf("got %s %v, %v; want inconclusive", v.Verdict, v.Reasons, err)
	}
}

func TestBaselineWithoutProbes(t *testing.T) {
	redis := redistest.Mini(t)
	m := newMonitor(t, redis, redis, nil)
	addRelease(t, m.d.Ledger, "r1", true)
	if _, err := m.Baseline(context.Background(), tasks.Alone("b"), tasks.Baseline{Release: "r1", By: testBy}); !errors.Is(err, tasks.ErrInvalid) {
		t.Errorf("got %v, want invalid input", err)
	}
	v, err := m.Watch(context.Background(), tasks.Alone("w"), tasks.Watch{Release: "r1", By: testBy})
	if err != nil || v.Verdict != Inconclusive {
		t.Errorf("watch: got %s, %v; want inconclusive", v.Verdict, err)
	}
}

func TestThin(t *testing.T) {
	xs := make([]float64, 5001)
	for i := range xs {
		xs[i] = float64(i)
	}
	got := thin(xs, MaxSamples)
	if len(got) != MaxSamples || got[0] != 0 || got[MaxSamples-1] < 4990 {
		t.Errorf("%d samples from %v to %v", len(got), got[0], got[len(got)-1])
	}
	if got := thin(xs[:7], MaxSamples); len(got) != 7 {
		t.Errorf("%d samples of 7", len(got))
	}
}

func TestTallyQuantiles(t *testing.T) {
	sum := newTally("r1", testNow)
	for i := 1; i <= 1000; i++ {
		sum.add(answer{latency: time.Duration(i) * time.Millisecond, status: 200})
	}
	b := sum.baseline()
	for _, q := range []struct{ got, want float64 }{{b.P50, 500}, {b.P95, 950}, {b.P99, 990}} {
		if q.got < q.want*0.99 || q.got > q.want*1.01 {
			t.Errorf("quantile %v, want %v within 1%%", q.got, q.want)
		}
	}
}
