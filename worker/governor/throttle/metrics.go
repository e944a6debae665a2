package throttle

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/alphanode/stoker/worker/governor"
)

// scrapeLimit bounds what a scrape waits for the reports.
const scrapeLimit = 2 * time.Second

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("stoker_work_"+name, help, append([]string{"worker"}, labels...), nil)
}

var (
	descSlices  = desc("slices_total", "Slices of work on namespaces.", "verb", "pace")
	descFailed  = desc("failed_slices_total", "Slices that failed.", "verb", "pace")
	descItems   = desc("items_total", "Keys or items that slices went through.", "verb", "pace")
	descSeconds = desc("server_seconds_total", "Time of the cache Redis that slices took.", "verb", "pace")
	descPaused  = desc("paused_seconds_total", "Time that works waited before slices.", "verb", "pace")
	descLongest = desc("longest_slice_seconds", "The longest slice since the process began.", "verb", "pace")
	descBraked  = desc("braked_slices_total", "Slices under a brake: latency, queue (who waits) or memory.", "verb", "pace", "reason")
	descBrake   = desc("brake", "How many times slower than its pace work under way goes; 1: not at all.", "pace", "reason")
	descLatency = desc("latency_seconds", "Round trip to the cache Redis that three of four of the last ones do not exceed.", "node")
)

// Collector makes metrics of the reports at each scrape.
type Collector struct{ Reports }

var _ prometheus.Collector = Collector{}

// Describe implements [prometheus.Collector].
func (Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descSlices, descFailed, descItems, descSeconds, descPaused, descLongest, descBraked, descBrake, descLatency} {
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
		ch <- prometheus.MustNewConstMetric(d, kind, value, append([]string{r.Worker}, labels...)...)
	}
	for _, w := range r.Works {
		pace := string(w.Pace)
		put(descSlices, prometheus.CounterValue, float64(w.Slices), w.Verb, pace)
		put(descFailed, prometheus.CounterValue, float64(w.Failed), w.Verb, pace)
		put(descItems, prometheus.CounterValue, float64(w.Items), w.Verb, pace)
		put(descSeconds, prometheus.CounterValue, w.Seconds, w.Verb, pace)
		put(descPaused, prometheus.CounterValue, w.Paused, w.Verb, pace)
		put(descLongest, prometheus.GaugeValue, w.Longest, w.Verb, pace)
		for _, why := range []governor.Reason{governor.Latency, governor.Queue, governor.Full} {
			put(descBraked, prometheus.CounterValue, float64(w.Braked[why]), w.Verb, pace, string(why))
		}
	}
	if now.Sub(r.At) > current {
		return // nothing is under way
	}
	for pace, b := range r.Brakes {
		put(descBrake, prometheus.GaugeValue, b.Factor, string(pace), string(b.Why))
	}
	for _, s := range r.Servers {
		put(descLatency, prometheus.GaugeValue, s.Latency.Seconds(), s.Node)
	}
}
