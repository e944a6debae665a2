package throttle

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/governor"
	"github.com/alphanode/stoker/worker/redistest"
)

// told is a report with something in every place.
func told(worker string, at time.Time) Report {
	return Report{
		Worker: worker, At: at.UTC(),
		Servers: []Server{{Latency: 200 * time.Microsecond, Used: 5, Limit: 9}},
		Works: []WorkReport{{"copy", tasks.PaceNormal, Figures{
			Slices: 7, Failed: 1, Items: 700, Seconds: 0.0035, Paused: 0.5, Longest: 0.001, Braked: map[governor.Reason]int64{governor.Queue: 3},
		}}},
		Brakes: map[tasks.Pace]Brake{tasks.PaceNormal: {Factor: 2.25, Why: governor.Queue}, tasks.PaceFull: {Why: governor.Full}, tasks.PaceGentle: {Factor: 1}},
	}
}

// TestReports: what a process publishes the others read, until it is an hour old.
func TestReports(t *testing.T) {
	s := Reports{Queue: redistest.Mini(t), Keys: tasks.KeysOf("site")}
	now := time.Now()
	want := []Report{told("a:1", now), told("b:2", now.Add(-10*time.Minute))}
	for _, r := range append([]Report{told("a:1", now.Add(-time.Minute)), told("c:3", now.Add(-2*time.Hour))}, want...) {
		if err := s.Put(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Queue.HSet(t.Context(), s.Keys.Works(), "d:4", "not JSON").Err(); err != nil {
		t.Fatal(err)
	}
	got, err := s.All(t.Context())
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v, reports (-want +got):\n%s", err, d)
	}
	for _, gone := range []int64{2, 0} {
		if n, err := s.Prune(t.Context()); n != gone || err != nil {
			t.Errorf("pruned %d, %v; want %d", n, err, gone)
		}
	}
	if ttl := s.Queue.TTL(t.Context(), s.Keys.Works()).Val(); ttl <= 0 || ttl > keepReports {
		t.Errorf("reports expire in %v", ttl)
	}
	lines := Braked(got, now)
	if len(lines) != 2 || !strings.Contains(lines[0], "normal on a:1 is slowed down 2.2 times: invalidations") || !strings.Contains(lines[1], "full on a:1 was ended") {
		t.Errorf("told of brakes: %q", lines)
	}
}

func TestCollector(t *testing.T) {
	s := Reports{Queue: redistest.Mini(t), Keys: tasks.KeysOf("site")}
	for worker, at := range map[string]time.Time{"a:1": time.Now(), "idle:2": time.Now().Add(-time.Minute)} {
		if err := s.Put(t.Context(), told(worker, at)); err != nil {
			t.Fatal(err)
		}
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(Collector{s})
	page := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(page, httptest.NewRequest("GET", "/metrics", nil))
	text := page.Body.String()
	for _, want := range []string{
		`slices_total{pace="normal",verb="copy",worker="a:1"} 7`,
		`failed_slices_total{pace="normal",verb="copy",worker="idle:2"} 1`,
		`items_total{pace="normal",verb="copy",worker="a:1"} 700`,
		`server_seconds_total{pace="normal",verb="copy",worker="a:1"} 0.0035`,
		`paused_seconds_total{pace="normal",verb="copy",worker="a:1"} 0.5`,
		`longest_slice_seconds{pace="normal",verb="copy",worker="a:1"} 0.001`,
		`braked_slices_total{pace="normal",reason="queue",verb="copy",worker="a:1"} 3`,
		`brake{pace="normal",reason="queue",worker="a:1"} 2.25`,
		`latency_seconds{node="",worker="a:1"} 0.0002`,
	} {
		if !strings.Contains(text, "\nstoker_work_"+want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	for _, unwanted := range []string{`brake{pace="normal",reason="queue",worker="idle:2"}`, `latency_seconds{node="",worker="idle:2"}`} {
		if strings.Contains(text, unwanted) {
			t.Errorf("%s of a process without work under way", unwanted)
		}
	}
}

// TestPublishes: while work is under way, its process's report is there for others.
func TestPublishes(t *testing.T) {
	client := redistest.Mini(t)
	s := Reports{Queue: client, Keys: tasks.KeysOf("site")}
	th := open(t, Deps{Cache: client, Publish: s.Put})
	p := th.Pacer(t.Context(), reading)
	redistest.Eventually(t, "the report", func() bool {
		slice(t, p, time.Microsecond)
		all, err := s.All(t.Context())
		return err == nil && len(all) == 1 && len(all[0].Works) == 1 && all[0].Works[0].Slices > 0
	})
}
