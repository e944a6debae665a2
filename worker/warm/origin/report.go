package origin

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

const (
	publishEvery = 2 * time.Second
	keepReports  = time.Hour       // that a process's last report is read; the process may be gone by then
	current      = 5 * time.Second // how old the report of a limiter that is in use can be
	scrapeLimit  = 2 * time.Second // that a scrape waits for the reports
)

// Report is how one process's limiter of one origin stands.
type Report struct {
	Worker string    `json:"worker"` // host:process
	Origin string    `json:"origin"` // host:port
	At     time.Time `json:"at"`
	State
}

// Reports are the last reports of all of an app's processes, in the queue Redis.
type Reports struct {
	Queue redis.UniversalClient
	Keys  tasks.Keys
}

// Put replaces a limiter's report.
func (s Reports) Put(ctx context.Context, r Report) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("report origin %q: %w", r.Origin, err)
	}
	_, err = s.Queue.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.HSet(ctx, s.Keys.Origins(), r.Worker+" "+r.Origin, raw)
		p.Expire(ctx, s.Keys.Origins(), keepReports)
		return nil
	})
	if err != nil {
		return fmt.Errorf("report origin %q: %w", r.Origin, err)
	}
	return nil
}

// All returns the reports that are no older than an hour, by origin and worker. Older ones, and what
// another version wrote, it drops.
func (s Reports) All(ctx context.Context) ([]Report, error) {
	raw, err := s.Queue.HGetAll(ctx, s.Keys.Origins()).Result()
	if err != nil {
		return nil, fmt.Errorf("read reports of origins: %w", err)
	}
	var fresh []Report
	var old []string
	for name, text := range raw {
		var r Report
		if json.Unmarshal([]byte(text), &r) != nil || time.Since(r.At) > keepReports {
			old = append(old, name)
			continue
		}
		fresh = append(fresh, r)
	}
	if len(old) > 0 {
		if err := s.Queue.HDel(ctx, s.Keys.Origins(), old...).Err(); err != nil {
			return nil, fmt.Errorf("drop old reports of origins: %w", err)
		}
	}
	slices.SortFunc(fresh, func(a, b Report) int {
		return cmp.Or(cmp.Compare(a.Origin, b.Origin), cmp.Compare(a.Worker, b.Worker))
	})
	return fresh, nil
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("stoker_origin_"+name, help, append([]string{"origin", "worker"}, labels...), nil)
}

var (
	descLimit    = desc("limit", "Requests at a time that a worker's limiter lets to an origin; absent while nothing warms from it.")
	descGranted  = desc("granted", "Requests at a time that the workers' common ceiling grants it.")
	descBusy     = desc("busy", "Requests under way.")
	descIdle     = desc("idle_seconds", "What a request alone takes, by a high quantile; absent while it is not known.")
	descBrake    = desc("brake", "What the limit is divided by because the cache Redis or invalidations would wait; 1: nothing.")
	descHeld     = desc("held_seconds", "For how long nobody may ask the origin: Retry-After, or the circuit breaker.")
	descBreaker  = desc("breaker_open", "1 while the circuit breaker lets no request through.")
	descRequests = desc("requests_total", "Requests that ended: answered, troubled (429, 5xx, no answer) or dropped by who asked.", "outcome")

	descs = []*prometheus.Desc{descLimit, descGranted, descBusy, descIdle, descBrake, descHeld, descBreaker, descRequests}
)

// Collector makes metrics of the reports at each scrape.
type Collector struct{ Reports }

var _ prometheus.Collector = Collector{}

// Describe implements [prometheus.Collector].
func (Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descs {
		ch <- d
	}
}

// Collect implements [prometheus.Collector]. Reports that cannot be read are left out.
func (c Collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeLimit)
	defer cancel()
	all, err := c.All(ctx)
	if err != nil {
		return
	}
	for _, r := range all {
		r.collect(ch, time.Now())
	}
}

func (r Report) collect(ch chan<- prometheus.Metric, now time.Time) {
	put := func(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, value, append([]string{r.Origin, r.Worker}, labels...)...)
	}
	put(descRequests, prometheus.CounterValue, float64(r.Answered), "answered")
	put(descRequests, prometheus.CounterValue, float64(r.Troubled), "troubled")
	put(descRequests, prometheus.CounterValue, float64(r.Dropped), "dropped")
	if now.Sub(r.At) > current {
		return // nothing warms from it
	}
	put(descLimit, prometheus.GaugeValue, r.Limit)
	put(descGranted, prometheus.GaugeValue, float64(r.Granted))
	put(descBusy, prometheus.GaugeValue, float64(r.Busy))
	put(descBrake, prometheus.GaugeValue, r.Brake)
	put(descHeld, prometheus.GaugeValue, r.Held.Seconds())
	open := 0.0
	if r.Open {
		open = 1
	}
	put(descBreaker, prometheus.GaugeValue, open)
	if r.Idle > 0 {
		put(descIdle, prometheus.GaugeValue, r.Idle.Seconds())
	}
}
