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
	}, "r7", true, MaxSamples)
	if err != nil {
		t.Fatal(err)
	}
	if n := bad.Load(); n != 0 {
		t.Errorf("%d requests were not marked as probes", n)
	}
	if diff := cmp.Diff(map[string]int{"200": 120, "302": 40, "500": 40}, b.StatusCounts); diff != "" {
		t.Error(diff)
	}
	if b.Release != "r7" || b.Requests != 200 || b.Errors != 40 || len(b.Samples.MS) != 160 || b.First == nil {
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
	b, err := m.measure(context.Background(), tasks.Alone("test"), Probes{Base: srv.URL, Paths: []string{"/"}, Count: 10}, "r1", true, MaxSamples)
	if err != nil {
		t.Fatal(err)
	}
	if b.Errors != 10 || b.StatusCounts["none"] != 10 || b.P99 != 0 || len(b.Samples.MS) != 0 {
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
	if _, err := m.measure(context.Background(), job, p, "r1", true, MaxSamples); !errors.Is(err, tasks.ErrDraining) {
		t.Errorf("draining: got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := m.measure(ctx, tasks.Alone("test"), p, "r1", true, MaxSamples); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
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
	xs := make([]float64, 9001)
	for i := range xs {
		xs[i] = float64(i)
	}
	got := thin(xs, MaxSamples)
	if len(got) != MaxSamples || got[0] != 0 || got[MaxSamples-1] < 8990 {
		t.Errorf("%d samples from %v to %v", len(got), got[0], got[len(got)-1])
	}
	if got := thin(xs[:7], MaxSamples); len(got) != 7 {
		t.Errorf("%d samples of 7", len(got))
	}
}

func TestTallyQuantiles(t *testing.T) {
	sum := newTally("r1", testNow)
	for i := 1; i <= 1000; i++ {
		sum.add("/", false, answer{latency: time.Duration(i) * time.Millisecond, status: 200})
	}
	b := sum.baseline(MaxSamples)
	for _, q := range []struct{ got, want float64 }{{b.P50, 500}, {b.P95, 950}, {b.P99, 990}} {
		if q.got < q.want*0.99 || q.got > q.want*1.01 {
			t.Errorf("quantile %v, want %v within 1%%", q.got, q.want)
		}
	}
}
