package origin_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
	"github.com/alphanode/stoker/worker/warm/origin"
)

// TestPublishes: a limiter in use tells how it stands every two seconds, and when its use ends.
func TestPublishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var told []origin.Report
		deps := origin.Deps{Publish: func(_ context.Context, r origin.Report) error {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, r)
			return context.DeadlineExceeded // nobody's concern
		}}
		l := origin.New(origin.Default(), deps).Open("site:80")
		s := &site{serve: func(at time.Duration, _ int) answer {
			if at > 5*time.Second {
				return answer{idle, origin.Troubled, time.Minute}
			}
			return answer{after: idle}
		}}
		s.visit(t, []*origin.Limiter{l}, 4, 9*time.Second)
		l.Close()
		if len(told) != 6 { // at 0, 2, 4, 6, 8 and the end
			t.Fatalf("told %d times", len(told))
		}
		if early := told[2]; early.Origin != "site:80" || early.Limit <= 1 || early.Idle != idle || early.Answered == 0 || early.Troubled != 0 || early.Held != 0 || early.Granted != 32 {
			t.Errorf("in use: %+v", early)
		}
		if end := told[5]; end.Busy != 0 || end.Troubled == 0 || end.Held < 50*time.Second || end.At.Before(told[4].At) {
			t.Errorf("at the end: %+v", end)
		}
	})
}

func TestReports(t *testing.T) {
	s := origin.Reports{Queue: redistest.Mini(t), Keys: tasks.KeysOf("site")}
	now := time.Now().UTC()
	state := origin.State{Limit: 4.5, Granted: 16, Busy: 3, Idle: 20 * time.Millisecond, Brake: 2, Held: time.Minute, Open: true, Answered: 100, Troubled: 7, Dropped: 1}
	want := []origin.Report{
		{Worker: "a:1", Origin: "site:80", At: now, State: state},
		{Worker: "b:2", Origin: "site:80", At: now.Add(-time.Minute), State: origin.State{Answered: 9, Limit: 1}},
	}
	for _, r := range append([]origin.Report{{Worker: "a:1", Origin: "site:80"}, {Worker: "c:3", Origin: "site:80", At: now.Add(-2 * time.Hour)}}, want...) {
		if err := s.Put(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	s.Queue.HSet(t.Context(), s.Keys.Origins(), "another version's", "not JSON")
	got, err := s.All(t.Context())
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v, reports (-want +got):\n%s", err, d)
	}
	if n := s.Queue.HLen(t.Context(), s.Keys.Origins()).Val(); n != 2 {
		t.Errorf("%d reports are kept", n)
	}
	if err := testutil.CollectAndCompare(origin.Collector{Reports: s}, strings.NewReader(`
# HELP stoker_origin_limit Requests at a time that a worker's limiter lets to an origin; absent while nothing warms from it.
# TYPE stoker_origin_limit gauge
stoker_origin_limit{origin="site:80",worker="a:1"} 4.5
# HELP stoker_origin_requests_total Requests that ended: answered, troubled (429, 5xx, no answer) or dropped by who asked.
# TYPE stoker_origin_requests_total counter
stoker_origin_requests_total{origin="site:80",outcome="answered",worker="a:1"} 100
stoker_origin_requests_total{origin="site:80",outcome="answered",worker="b:2"} 9
stoker_origin_requests_total{origin="site:80",outcome="dropped",worker="a:1"} 1
stoker_origin_requests_total{origin="site:80",outcome="dropped",worker="b:2"} 0
stoker_origin_requests_total{origin="site:80",outcome="troubled",worker="a:1"} 7
stoker_origin_requests_total{origin="site:80",outcome="troubled",worker="b:2"} 0
`), "stoker_origin_limit", "stoker_origin_requests_total"); err != nil {
		t.Error(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(origin.Collector{Reports: s})
	families, err := registry.Gather()
	if err != nil || len(families) != 8 {
		t.Errorf("%d metrics, %v", len(families), err)
	}
}
