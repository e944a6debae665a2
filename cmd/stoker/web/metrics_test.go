package web

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/alphanode/stoker/worker/redistest"
)

func TestMetrics(t *testing.T) {
	queue := redistest.Mini(t)
	if _, err := asynq.NewClientFromRedisClient(queue).Enqueue(asynq.NewTask("warm:batch", nil), asynq.Queue("alpha.warm")); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, Config{}, queue)
	page := body(t, s.ask("GET", "/metrics"))
	for _, want := range []string{
		`stoker_releases{state="standby"} 1`, `stoker_releases{state="expired"} 0`, `stoker_active_release_info{release="r42"} 1`,
		"stoker_pending_invalidations 2", "stoker_oldest_pending_seconds 3", "stoker_log_targets 48210",
		`stoker_invalidation_lag_seconds{percentile="99"} 0.002`, `stoker_invalidation_lag_seconds{percentile="100"} 0.004`, `stoker_up{part="lag"} 1`,
		`stoker_invalidation_removal_seconds{percentile="99",release="r41"} 0.003`, `stoker_invalidation_removal_seconds{percentile="100",release="r41"} 0.005`,
		`stoker_queue_size{lane="warm",state="pending"} 1`, `stoker_queue_size{lane="release",state="archived"} 0`,
		`stoker_queue_latency_seconds{lane="health"} 0`, `stoker_queue_paused{lane="warm"} 0`,
		"stoker_snapshot_age_seconds 18000", "stoker_rollback_ready 1", "stoker_health_report_age_seconds 40",
		`stoker_health_check{check="queue.policy"} 1`, `stoker_health_check{check="queue.persistence"} 0.5`,
		`stoker_freshness_compared{place="live",release="r41"} 7200`, `stoker_freshness_suspects{place="live",release="r41"} 2`,
		`stoker_freshness_stale{place="live",release="r41"} 1`, `stoker_freshness_nines{place="live",release="r41"} 3.4`,
		`stoker_freshness_stale{place="archive",release="r40"} 0`, "stoker_freshness_report_age_seconds 300",
		`stoker_watch_verdict{release="r42",verdict="worse"} 1`, `stoker_watch_looks{release="r42"} 2`, `stoker_watch_running{release="r42"} 1`,
		`stoker_certificate_verdict{release="r42",verdict="pass"} 1`, `stoker_certificate_coverage_ratio{release="r41"} 0.9994`,
		`stoker_certificate_hit_ratio{release="r42"} 0.93`, `stoker_site_hit_ratio{release="r42"} 0.88`, `stoker_site_hit_ratio{release="r41"} 0.95`,
		`asynq_tasks_enqueued_total{queue="alpha.warm",state="pending"} 1`, `asynq_queue_size{queue="alpha.warm"} 1`,
		`asynq_tasks_processed_total{queue="alpha.warm"} 0`, `asynq_tasks_failed_total{queue="alpha.release"} 0`,
		`asynq_queue_latency_seconds{queue="alpha.health"} 0`, `asynq_queue_memory_usage_approx_bytes{queue="alpha.warm"} `,
		`stoker_up{part="ledger"} 1`, "go_goroutines ", "process_open_fds ",
	} {
		if !strings.Contains(page, "\n"+want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(page, `stoker_freshness_nines{place="archive"`) {
		t.Error("nines of nothing have a value")
	}
	if strings.Contains(page, "cache.memory") {
		t.Error("a check with no answer has a value")
	}
}

// TestCacheMetrics reads what a real server counts.
func TestCacheMetrics(t *testing.T) {
	cache := redistest.Start(t).Client
	cache.Set(t.Context(), "a", "b", 0)
	cache.MGet(t.Context(), "a", "a", "absent")
	page := body(t, newSite(t, Config{}, nil, func(d *Deps) { d.Cache = cache }).ask("GET", "/metrics"))
	for _, want := range []string{`stoker_cache_hits_total{node=""} 2`, `stoker_cache_misses_total{node=""} 1`, `stoker_cache_evicted_total{node=""} 0`, `stoker_up{part="cache"} 1`} {
		if !strings.Contains(page, "\n"+want) {
			t.Errorf("no %s", want)
		}
	}
}

// asynqGauge is a name of asynq's own exporter, which asynqmon's page asks for: none for a gauge, and not our choice.
const asynqGauge = "asynq_tasks_enqueued_total"

// TestMetricsLint: names, units and help are in the field's manner.
func TestMetricsLint(t *testing.T) {
	s := newSite(t, Config{}, redistest.Start(t).Client)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(&collector{server: s.Server})
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if p.Metric != asynqGauge {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func TestMetricsWithoutAnswers(t *testing.T) {
	s := newSite(t, Config{}, nil, func(d *Deps) {
		d.Ledger = &fakeLedger{err: errors.New("down")}
		d.Rollback = func(context.Context) (Readiness, error) { return Readiness{}, errors.New("down") }
	})
	page := body(t, s.ask("GET", "/metrics"))
	for _, want := range []string{`stoker_up{part="ledger"} 0`, `stoker_up{part="rollback"} 0`, `stoker_up{part="log"} 1`, "stoker_pending_invalidations 2"} {
		if !strings.Contains(page, "\n"+want) {
			t.Errorf("no %s", want)
		}
	}
	for _, unwanted := range []string{"\nstoker_releases{", "\nstoker_rollback_ready "} {
		if strings.Contains(page, unwanted) {
			t.Errorf("%s has a value that was not read", unwanted)
		}
	}
}

// counted is a collector of another room.
func counted() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "stoker_work_brake", Help: "x"}, func() float64 { return 3 })
}

// TestWorkOnNamespaces: the other rooms' metrics are served beside the console's own, and the first
// page says which work is slowed down.
func TestWorkOnNamespaces(t *testing.T) {
	s := newSite(t, Config{}, nil, func(d *Deps) {
		d.Collectors = []prometheus.Collector{counted()}
		d.Braked = func(context.Context) ([]string, error) {
			return []string{"work at normal on a<b>:1 is slowed down"}, nil
		}
	})
	if page := body(t, s.ask("GET", "/metrics")); !strings.Contains(page, "\nstoker_work_brake 3") {
		t.Error("no stoker_work_brake")
	}
	if page := body(t, s.ask("GET", "/")); !strings.Contains(page, "work at normal on a&lt;b&gt;:1 is slowed down") {
		t.Error("the page does not tell of the brake")
	}
}
