package health

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
)

// MaxSamples is how many answers a baseline keeps for later comparison; a watch keeps
// [maxWatched] while it lasts.
const (
	MaxSamples = 3000
	maxWatched = 20_000
)

// Baseline is how the site's pages answered under one release. An error is a probe without an
// answer or with a status of 400 and above; all else is of the other answers, times in
// milliseconds.
type Baseline struct {
	Release      string         `json:"release"`
	At           time.Time      `json:"at"` // when it began
	Requests     int            `json:"requests"`
	Errors       int            `json:"errors"`
	StatusCounts map[string]int `json:"status_counts"` // "200", …; "none" without an answer
	Bytes        int64          `json:"bytes"`
	Figures
	First     *Figures  `json:"first,omitempty"`        // of the first visit to each page alone; nil where these were not told apart
	Quantiles []float64 `json:"quantiles_ms,omitempty"` // of the latency, at 0, 5, … 100 %; for plots
	Samples   Samples   `json:"samples,omitzero"`       // evenly thinned to MaxSamples
}

// Figures sum up some answers.
type Figures struct {
	P50 float64 `json:"p50_ms"`
	P95 float64 `json:"p95_ms"`
	P99 float64 `json:"p99_ms"`

	HitRate       float64 `json:"hit_rate"`       // of the answers that told, [0, 1]
	CacheReported int     `json:"cache_reported"` // answers that told hit or miss

	DBCallsPerRequest float64 `json:"db_calls_per_request"` // of the answers that told
	DBReported        int     `json:"db_reported"`          // answers that told
}

// Summary returns the baseline without its samples.
func (b Baseline) Summary() Baseline {
	b.Samples = Samples{}
	return b
}

// figuresOf sums observations up.
func figuresOf(all []observation) Figures {
	ms := values(all, latencyOf)
	f := Figures{P50: quantile(ms, 0.50), P95: quantile(ms, 0.95), P99: quantile(ms, 0.99)}
	told := where(all, func(o observation) bool { return o.cache != untold })
	f.CacheReported = len(told)
	f.HitRate = share(len(where(told, func(o observation) bool { return o.cache == hit })), len(told))
	counted := where(all, func(o observation) bool { return o.calls != untoldCalls })
	f.DBReported = len(counted)
	f.DBCallsPerRequest = mean(values(counted, countOf))
	return f
}

// tally collects answers. It belongs to one goroutine.
type tally struct {
	b   Baseline
	all []observation
}

func newTally(release string, at time.Time) *tally {
	return &tally{b: Baseline{Release: release, At: at, StatusCounts: make(map[string]int)}}
}

// add takes one more answer to a request for path.
func (t *tally) add(path string, first bool, a answer) {
	t.b.Requests++
	status := "none"
	if a.status > 0 {
		status = strconv.Itoa(a.status)
	}
	t.b.StatusCounts[status]++
	if a.failed() {
		t.b.Errors++
		return
	}
	t.b.Bytes += a.bytes
	o := observation{path: path, first: first, ms: float64(a.latency.Microseconds()) / 1000, cache: untold, calls: untoldCalls}
	switch {
	case strings.HasPrefix(strings.ToLower(a.cache), "hit"):
		o.cache = hit
	case a.cache != "":
		o.cache = miss
	}
	if a.counted {
		o.calls = a.calls
	}
	t.all = append(t.all, o)
}

// baseline sums up, with at most limit samples.
func (t *tally) baseline(limit int) Baseline {
	b := t.b
	b.Figures = figuresOf(t.all)
	if first := where(t.all, isFirst); len(first) > 0 {
		f := figuresOf(first)
		b.First = &f
	}
	if ms := values(t.all, latencyOf); len(ms) > 0 {
		for q := 0; q <= 100; q += 5 {
			b.Quantiles = append(b.Quantiles, quantile(ms, float64(q)/100))
		}
	}
	b.Samples = columns(thin(t.all, limit))
	return b
}

// merge returns two measurements under one release as one, the earlier first.
func merge(a, b Baseline, limit int) Baseline {
	t := newTally(cmp.Or(a.Release, b.Release), a.At)
	if t.b.At.IsZero() {
		t.b.At = b.At
	}
	for _, m := range []Baseline{a, b} {
		t.b.Requests += m.Requests
		t.b.Errors += m.Errors
		t.b.Bytes += m.Bytes
		for status, n := range m.StatusCounts {
			t.b.StatusCounts[status] += n
		}
		t.all = append(t.all, m.Samples.all()...)
	}
	return t.baseline(limit)
}

// Baseline measures how the site answers under a release and stores the result as the release's
// baseline, over an earlier one. It may be run again at any time.
func (m *Monitor) Baseline(ctx context.Context, job tasks.Job, p tasks.Baseline) (Baseline, error) {
	b, err := m.takeBaseline(ctx, job, p.Release)
	if err != nil {
		return Baseline{}, fmt.Errorf("baseline of release %q: %w", p.Release, err)
	}
	return b, nil
}

func (m *Monitor) takeBaseline(ctx context.Context, job tasks.Job, id string) (Baseline, error) {
	if _, err := m.d.Ledger.Get(ctx, id); err != nil {
		return Baseline{}, err
	}
	probes, err := m.probes(ctx, id)
	if err != nil {
		return Baseline{}, err
	}
	b, err := m.measure(ctx, job, probes, id, true, MaxSamples)
	if err != nil {
		return Baseline{}, err
	}
	return b, m.d.Ledger.SetDoc(ctx, id, release.DocBaseline, b)
}
