package web

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/alphanode/stoker/worker/release"
)

// metrics returns /metrics, with a registry of its own.
func (s *Server) metrics() http.Handler {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(
		&collector{server: s},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	registry.MustRegister(s.deps.Collectors...)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(s.deps.Log.Handler(), slog.LevelWarn),
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 4,
		Timeout:             3 * readLimit,
	})
}

// The metrics that a scrape reads from the records. What cannot be read is left out, and its
// stoker_up is 0: a figure that is missing must not look like a zero.
var (
	descUp            = desc("up", "1 where that part could be read for this scrape.", "part")
	descReleases      = desc("releases", "Releases in that state.", "state")
	descActive        = desc("active_release_info", "1 for the release that is served.", "release")
	descPending       = desc("pending_invalidations", "Invalidations recorded and not yet applied everywhere.")
	descOldestPending = desc("oldest_pending_seconds", "Age of the oldest pending invalidation, 0 without one.")
	descLag           = desc("invalidation_lag_seconds", "Time from call to gone everywhere, of the calls applied in the last 10 minutes; absent without any.", "quantile")
	descRemoval       = desc("invalidation_removal_seconds", "Time that the removal took in one namespace, of the calls applied in the last 10 minutes: 99th percentile and maximum.", "release", "quantile")
	descTargets       = desc("log_targets", "Targets that the invalidation log remembers.")
	descQueueSize     = desc("queue_size", "Tasks of a lane's queue in that state.", "lane", "state")
	descQueueLatency  = desc("queue_latency_seconds", "Age of a lane's oldest pending task.", "lane")
	descQueuePaused   = desc("queue_paused", "1 where a lane is paused.", "lane")
	descSnapshotAge   = desc("snapshot_age_seconds", "Age of the newest verified snapshot; absent without one.")
	descDrillAge      = desc("drill_age_seconds", "Age of the last good drill; absent before the first.")
	descDrillSeconds  = desc("drill_rollback_seconds", "What a rollback would have taken at the last drill that was good; absent before the first.")
	descWatchVerdict  = desc("watch_verdict", "1 for the verdict over a live release since its last switch.", "release", "verdict")
	descWatchLooks    = desc("watch_looks", "Looks taken since that switch.", "release")
	descWatching      = desc("watch_running", "1 while further looks will follow.", "release")
	descRollback      = desc("rollback_ready", "1 when a rollback would be safe now.")
	descHealth        = desc("health_check", "Last answer of that check: 1 ok, 0.5 warn, 0 fail; absent when unknown.", "check")
	descCompared      = desc("freshness_compared", "Entries of that release (archive: as a rollback would restore them) compared with their origin in a day.", "release", "place")
	descSuspects      = desc("freshness_suspects", "Entries that differ from their origin and are looked at again before they count.", "release", "place")
	descStale         = desc("freshness_stale", "Entries that differ from their origin, confirmed after 1 and 5 minutes.", "release", "place")
	descNines         = desc("freshness_nines", "Nines of freshness at least, with 95 % confidence, of a day's samples; absent when nothing was compared.", "release", "place")
	descFreshnessAge  = desc("freshness_report_age_seconds", "Age of the newest freshness report.")
	descHealthAge     = desc("health_report_age_seconds", "Age of the newest health report.")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("stoker_"+name, help, labels, nil)
}

// collector reads the records when it is scraped.
type collector struct{ server *Server }

var _ prometheus.Collector = (*collector)(nil)

// Describe implements [prometheus.Collector].
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descUp, descReleases, descActive, descPending, descOldestPending, descLag, descRemoval, descTargets, descQueueSize,
		descQueueLatency, descQueuePaused, descSnapshotAge, descWatchVerdict, descWatchLooks, descWatching, descDrillAge, descDrillSeconds, descRollback, descHealth, descHealthAge,
		descCompared, descSuspects, descStale, descNines, descFreshnessAge,
	} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector]. The parts are read at once, each within its limit.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	var parts sync.WaitGroup
	for name, read := range map[string]func(context.Context) ([]prometheus.Metric, error){
		"ledger": c.ledger, "log": c.log, "lag": c.lag, "lanes": c.lanes, "rollback": c.rollback, "health": c.health, "freshness": c.freshness,
	} {
		parts.Go(func() {
			found, err := within(context.Background(), readLimit, read)
			if err != nil {
				c.server.deps.Log.Warn("scrape lacks a part", "part", name, "err", err)
			}
			ch <- gauge(descUp, truth(err == nil), name)
			for _, m := range found {
				ch <- m
			}
		})
	}
	parts.Wait()
}

func (c *collector) ledger(ctx context.Context) (found []prometheus.Metric, err error) {
	records, err := c.server.deps.Ledger.List(ctx)
	if err != nil {
		return nil, err
	}
	active, err := c.server.deps.Ledger.Active(ctx)
	if err != nil {
		return nil, err
	}
	if active != "" {
		found = append(found, gauge(descActive, 1, active))
	}
	number := map[release.State]int{}
	var newest time.Time
	var drilled drill
	for _, r := range records {
		number[r.State]++
		row := newRow(r, active)
		if row.Drill.LastGood.After(drilled.LastGood) {
			drilled = row.Drill
		}
		if row.Watch != nil && r.State.Live() && row.Verdict.Verdict != "" {
			found = append(found,
				gauge(descWatchVerdict, 1, r.ID, row.Verdict.Verdict),
				gauge(descWatchLooks, float64(len(row.Watch.Looks)), r.ID),
				gauge(descWatching, truth(!row.Watch.Next.IsZero()), r.ID))
		}
		if row.Archive() && row.Snapshot.Created.After(newest) {
			newest = row.Snapshot.Created
		}
	}
	for _, state := range release.States() {
		found = append(found, gauge(descReleases, float64(number[state]), string(state)))
	}
	if !newest.IsZero() {
		found = append(found, gauge(descSnapshotAge, c.server.deps.Now().Sub(newest).Seconds()))
	}
	if !drilled.LastGood.IsZero() {
		found = append(found,
			gauge(descDrillAge, c.server.deps.Now().Sub(drilled.LastGood).Seconds()),
			gauge(descDrillSeconds, drilled.Seconds))
	}
	return found, nil
}

// drill is what the console reads of release.DocDrill.
type drill struct {
	At        time.Time `json:"at"`
	Good      bool      `json:"good"`
	Why       string    `json:"why"`
	LastGood  time.Time `json:"last_good"`
	Compared  int64     `json:"compared"`
	Different int64     `json:"different"`
	Replayed  int64     `json:"replayed"`
	Seconds   float64   `json:"rollback_seconds"`
}

// Takes is how long a rollback would take.
func (d drill) Takes() time.Duration { return time.Duration(d.Seconds * float64(time.Second)) }

func (c *collector) log(ctx context.Context) ([]prometheus.Metric, error) {
	status, err := c.server.deps.Status(ctx)
	if err != nil {
		return nil, err
	}
	return []prometheus.Metric{
		gauge(descPending, float64(status.Pending)),
		gauge(descOldestPending, status.OldestPending.Seconds()),
		gauge(descTargets, float64(status.Targets)),
	}, nil
}

func (c *collector) lag(ctx context.Context) ([]prometheus.Metric, error) {
	lag, err := c.server.deps.Lag(ctx)
	if err != nil || lag.Calls == 0 {
		return nil, err
	}
	found := []prometheus.Metric{
		gauge(descLag, lag.P50.Seconds(), "0.5"),
		gauge(descLag, lag.P99.Seconds(), "0.99"),
		gauge(descLag, lag.Max.Seconds(), "1"),
	}
	for _, n := range lag.Namespaces {
		found = append(found, gauge(descRemoval, n.P99.Seconds(), n.Release, "0.99"), gauge(descRemoval, n.Max.Seconds(), n.Release, "1"))
	}
	return found, nil
}

func (c *collector) lanes(ctx context.Context) (found []prometheus.Metric, err error) {
	all, err := c.server.lanes.read(ctx)
	for _, l := range all {
		name := string(l.Lane)
		for state, n := range map[string]int{
			"pending": l.Pending, "active": l.Active, "scheduled": l.Scheduled, "retry": l.Retry,
			"archived": l.Archived, "completed": l.Completed,
		} {
			found = append(found, gauge(descQueueSize, float64(n), name, state))
		}
		found = append(found,
			gauge(descQueueLatency, l.Latency.Seconds(), name),
			gauge(descQueuePaused, truth(l.Paused), name))
	}
	return found, err
}

func (c *collector) rollback(ctx context.Context) ([]prometheus.Metric, error) {
	ready, err := c.server.deps.Rollback(ctx)
	if err != nil {
		return nil, err
	}
	return []prometheus.Metric{gauge(descRollback, truth(ready.Ready))}, nil
}

func (c *collector) health(ctx context.Context) ([]prometheus.Metric, error) {
	r, err := c.server.report(ctx)
	if err != nil || r == nil {
		return nil, err
	}
	found := []prometheus.Metric{gauge(descHealthAge, c.server.deps.Now().Sub(r.At).Seconds())}
	values := map[string]float64{"ok": 1, "warn": 0.5, "fail": 0}
	for _, ch := range r.Checks {
		if v, known := values[ch.Status]; known {
			found = append(found, gauge(descHealth, v, ch.Name))
		}
	}
	return found, nil
}

// freshReport is what a scrape reads of a freshness report.
type freshReport struct {
	At     time.Time `json:"at"`
	Places []struct {
		Release  string `json:"release"`
		Archive  string `json:"archive"`
		Suspects int    `json:"suspects"`
		Stale    int    `json:"stale"`
		Day      struct {
			Compared int     `json:"compared"`
			Nines    float64 `json:"nines"`
		} `json:"day"`
	} `json:"places"`
}

func (c *collector) freshness(ctx context.Context) ([]prometheus.Metric, error) {
	raw, err := c.server.deps.Freshness(ctx)
	if err != nil || len(raw) == 0 {
		return nil, err
	}
	var r freshReport
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, fmt.Errorf("read freshness report: %w", err)
	}
	found := []prometheus.Metric{gauge(descFreshnessAge, c.server.deps.Now().Sub(r.At).Seconds())}
	for _, n := range r.Places {
		place := "live"
		if n.Archive != "" {
			place = "archive"
		}
		found = append(found,
			gauge(descCompared, float64(n.Day.Compared), n.Release, place),
			gauge(descSuspects, float64(n.Suspects), n.Release, place),
			gauge(descStale, float64(n.Stale), n.Release, place))
		if n.Day.Compared > 0 {
			found = append(found, gauge(descNines, n.Day.Nines, n.Release, place))
		}
	}
	return found, nil
}

func gauge(d *prometheus.Desc, value float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
