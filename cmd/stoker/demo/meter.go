package demo

import (
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Figures are what the visitors of one site saw in one phase.
type Figures struct {
	Requests int64         `json:"requests"`
	P50      time.Duration `json:"p50_ns"`
	P99      time.Duration `json:"p99_ns"`
	HitRate  float64       `json:"hit_rate"` // share of the answers made from the cache alone
	Calls    float64       `json:"db_calls"` // database calls a request
	Stale    int64         `json:"stale"`    // pages older than an edit applied before they were asked for
	Errors   int64         `json:"errors"`   // no answer, a wrong one, or a page missing that exists
	Examples []string      `json:"examples,omitempty"`
}

// maxExamples bounds how many faults are kept word for word.
const maxExamples = 5

// meter gathers figures. Safe for concurrent use.
type meter struct {
	mu      sync.Mutex
	latency *hdrhistogram.Histogram // microseconds
	calls   int64
	hits    int64
	figures Figures
}

func newMeter() *meter {
	return &meter{latency: hdrhistogram.New(1, int64(time.Minute/time.Microsecond), 3)}
}

var timingRE = regexp.MustCompile(`db;desc="(\d+) calls"`)

// answered counts an answer that came.
func (m *meter) answered(h http.Header, took time.Duration) {
	calls := int64(0)
	if found := timingRE.FindStringSubmatch(h.Get("Server-Timing")); found != nil {
		calls, _ = strconv.ParseInt(found[1], 10, 64)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.figures.Requests++
	m.calls += calls
	if h.Get(CacheHeader) == "HIT" {
		m.hits++
	}
	// A minute is longer than any visitor waits: what is off the scale counts as a minute.
	m.latency.RecordValue(min(took.Microseconds(), m.latency.HighestTrackableValue()))
}

func (m *meter) stale(what string)  { m.fault(&m.figures.Stale, what) }
func (m *meter) failed(what string) { m.fault(&m.figures.Errors, what) }

func (m *meter) fault(count *int64, what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	*count++
	if len(m.figures.Examples) < maxExamples {
		m.figures.Examples = append(m.figures.Examples, what)
	}
}

// read returns the figures so far.
func (m *meter) read() Figures {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.figures
	f.P50 = time.Duration(m.latency.ValueAtQuantile(50)) * time.Microsecond
	f.P99 = time.Duration(m.latency.ValueAtQuantile(99)) * time.Microsecond
	if f.Requests > 0 {
		f.HitRate = float64(m.hits) / float64(f.Requests)
		f.Calls = float64(m.calls) / float64(f.Requests)
	}
	return f
}
