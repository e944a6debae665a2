package health

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// MaxSamples is how many latencies a baseline keeps for later comparison.
const MaxSamples = 2000

// Baseline is how the site's pages answered under one release. An error is a probe without an
// answer or with a status of 400 and above; times are of the others, in milliseconds.
type Baseline struct {
	Release      string         `json:"release"`
	At           time.Time      `json:"at"`
	Requests     int            `json:"requests"`
	Errors       int            `json:"errors"`
	StatusCounts map[string]int `json:"status_counts"` // "200", …; "none" without an answer
	Bytes        int64          `json:"bytes"`
	P50          float64        `json:"p50_ms"`
	P95          float64        `json:"p95_ms"`
	P99          float64        `json:"p99_ms"`

	HitRate       float64 `json:"hit_rate"`       // of the answers that told, [0, 1]
	CacheReported int     `json:"cache_reported"` // answers that told hit or miss

	DBCallsPerRequest float64 `json:"db_calls_per_request"` // of the answers that told
	DBVariance        float64 `json:"db_variance"`          // of the calls, between those answers
	DBReported        int     `json:"db_reported"`          // answers that told

	Samples []float64 `json:"samples_ms,omitempty"` // latencies, evenly thinned to MaxSamples
}

// Summary returns the baseline without its samples.
func (b Baseline) Summary() Baseline {
	b.Samples = nil
	return b
}

// tally sums answers up. It belongs to one goroutine.
type tally struct {
	b                   Baseline
	hits                int
	calls, callsSquared int // sums over the answers that told
	samples             []float64
	histogram           *hdrhistogram.Histogram // of microseconds
}

func newTally(release string, at time.Time) *tally {
	return &tally{
		b:         Baseline{Release: release, At: at, StatusCounts: make(map[string]int)},
		histogram: hdrhistogram.New(1, time.Hour.Microseconds(), 3),
	}
}

func (t *tally) add(a answer) {
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
	// A value beyond the histogram's hour cannot come from a client with a timeout.
	_ = t.histogram.RecordValue(max(a.latency.Microseconds(), 1))
	t.samples = append(t.samples, float64(a.latency.Microseconds())/1000)
	if a.cache != "" {
		t.b.CacheReported++
		if strings.HasPrefix(strings.ToLower(a.cache), "hit") {
			t.hits++
		}
	}
	if a.counted {
		t.b.DBReported++
		t.calls += a.calls
		t.callsSquared += a.calls * a.calls
	}
}

func (t *tally) baseline() Baseline {
	b := t.b
	b.P50, b.P95, b.P99 = t.quantile(50), t.quantile(95), t.quantile(99)
	if b.CacheReported > 0 {
		b.HitRate = float64(t.hits) / float64(b.CacheReported)
	}
	if n := float64(b.DBReported); n > 0 {
		b.DBCallsPerRequest = float64(t.calls) / n
		b.DBVariance = (float64(t.callsSquared) - float64(t.calls)*b.DBCallsPerRequest) / max(n-1, 1)
	}
	b.Samples = thin(t.samples, MaxSamples)
	return b
}

// quantile returns milliseconds, 0 when every probe failed.
func (t *tally) quantile(q float64) float64 {
	if len(t.samples) == 0 {
		return 0
	}
	return float64(t.histogram.ValueAtQuantile(q)) / 1000
}

// thin keeps at most limit of the samples, evenly over their order.
func thin(samples []float64, limit int) []float64 {
	if len(samples) <= limit {
		return samples
	}
	kept := make([]float64, limit)
	step := float64(len(samples)) / float64(limit)
	for i := range kept {
		kept[i] = samples[int(math.Floor(float64(i)*step))]
	}
	return kept
}
