package warm

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// scrapeLimit bounds what a scrape waits for the runs.
const scrapeLimit = 2 * time.Second

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("stoker_warm_"+name, help, append([]string{"release"}, labels...), nil)
}

var (
	descRunning = desc("running", "1 while the newest warm run of a live release is under way.")
	descBatches = desc("open_batches", "Batches of a live release's newest warm run that have not finished.")
	descPlanned = desc("planned_entries", "Entries that the sources of a live release's newest warm run have; absent while it is not known.", "source")
	descEntries = desc("entries_total", "Entries that a live release's newest warm run has dealt with: stored, invalidated or failed. It begins again with each run; its rate is that of the warm.", "source", "outcome")

	descs = []*prometheus.Desc{descRunning, descBatches, descPlanned, descEntries}
)

// Collector makes metrics of the newest run of each live release, at each scrape.
type Collector struct {
	Queue redis.UniversalClient
	Keys  tasks.Keys
	Live  func(ctx context.Context) ([]string, error) // the releases
}

var _ prometheus.Collector = Collector{}

// Describe implements [prometheus.Collector].
func (Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descs {
		ch <- d
	}
}

// Collect implements [prometheus.Collector]. Runs that cannot be read are left out.
func (c Collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeLimit)
	defer cancel()
	live, err := c.Live(ctx)
	if err != nil {
		return
	}
	for _, release := range live {
		if s, err := c.newest(ctx, release); err == nil {
			s.collect(ch)
		}
	}
}

// newest reads a release's newest run; [tasks.ErrNotFound] when it has not been warmed.
func (c Collector) newest(ctx context.Context, release string) (RunStatus, error) {
	runs, err := c.Queue.ZRevRange(ctx, c.Keys.Runs(release), 0, 0).Result()
	if err != nil {
		return RunStatus{}, err
	}
	if len(runs) == 0 {
		return RunStatus{}, tasks.ErrNotFound
	}
	return Status(ctx, c.Queue, c.Keys, runs[0])
}

func (s RunStatus) collect(ch chan<- prometheus.Metric) {
	put := func(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, value, append([]string{s.Release}, labels...)...)
	}
	running := 1.0
	if s.Over() {
		running = 0
	}
	put(descRunning, prometheus.GaugeValue, running)
	put(descBatches, prometheus.GaugeValue, float64(s.OpenBatches))
	for _, one := range s.Sources {
		if one.Total > 0 {
			put(descPlanned, prometheus.GaugeValue, float64(one.Total), one.Name)
		}
		put(descEntries, prometheus.CounterValue, float64(one.Stored), one.Name, "stored")
		put(descEntries, prometheus.CounterValue, float64(one.Invalidated), one.Name, "invalidated")
		put(descEntries, prometheus.CounterValue, float64(one.Failed), one.Name, "failed")
	}
}
