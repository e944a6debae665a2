package health

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/alphanode/stoker/tasks"
)

// Every probe says what it is, so that a site can keep probes out of its statistics.
const (
	userAgent   = "stoker/1 (probe)"
	probeHeader = "X-Stoker-Probe"
)

// MaxProbes is the most requests that one measurement makes.
const MaxProbes = 100_000

// DefaultProbes is how many requests a measurement makes when the plan does not say.
const DefaultProbes = 200

// Probes names the pages that stand for the site.
type Probes struct {
	Base  string   // http(s)://host[:port][/path], to which the paths are appended
	Paths []string // each begins with /; visited in turn, over and over
	Count int      // requests in all; 0 means DefaultProbes
}

// Validate reports probes that could not be sent.
func (p Probes) Validate() error {
	u, err := url.Parse(p.Base)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%w: probes: base %q: use http://host or https://host", tasks.ErrInvalid, p.Base)
	case len(p.Paths) == 0:
		return fmt.Errorf("%w: probes: no paths: name the pages that stand for the site", tasks.ErrInvalid)
	case p.Count < 0 || p.Count > MaxProbes:
		return fmt.Errorf("%w: probes: count %d: use 1 to %d", tasks.ErrInvalid, p.Count, MaxProbes)
	}
	for _, path := range p.Paths {
		if _, err := url.Parse(p.Base + path); err != nil || !strings.HasPrefix(path, "/") {
			return fmt.Errorf("%w: probes: path %q: it must begin with / and be escaped as in a URL", tasks.ErrInvalid, path)
		}
	}
	return nil
}

func (p Probes) count() int {
	if p.Count == 0 {
		return DefaultProbes
	}
	return p.Count
}

// request makes the i-th request of a measurement.
func (p Probes) request(ctx context.Context, i int) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(p.Base, "/")+p.Paths[i%len(p.Paths)], nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set(probeHeader, "1")
	return req, nil
}

// probeClient returns a client that keeps as many connections as it has requests in flight, and
// follows no redirects: each request is one answer of the site.
func probeClient(cfg Config) *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = cfg.ProbeConcurrency
	return &http.Client{
		Transport:     t,
		Timeout:       cfg.ProbeTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// answer is what one probe saw.
type answer struct {
	latency time.Duration // until the last byte
	status  int           // 0 when there was no answer
	bytes   int64
	cache   string // value of the cache header
	calls   int
	counted bool // calls is known
}

// failed reports an answer that a visitor would not want.
func (a answer) failed() bool { return a.status == 0 || a.status >= 400 }

// measure sends the probes and sums up the answers. It stops early only when ctx ends or the worker
// drains: a site that fails is a result, not an error.
func (m *Monitor) measure(ctx context.Context, job tasks.Job, p Probes, release string) (Baseline, error) {
	if err := p.Validate(); err != nil {
		return Baseline{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n := p.count()
	next := make(chan int)
	answers := make(chan answer)
	var wg sync.WaitGroup
	for range min(m.cfg.ProbeConcurrency, n) {
		wg.Go(func() {
			for i := range next {
				answers <- m.probe(ctx, p, i)
			}
		})
	}
	drained := false
	go func() {
		defer close(answers)
		defer wg.Wait()
		defer close(next)
		for i := range n {
			select {
			case next <- i:
			case <-ctx.Done():
				return
			case <-job.Draining():
				drained = true
				return
			}
		}
	}()
	sum := newTally(release, m.now().UTC())
	for a := range answers {
		sum.add(a)
		job.Progress("probe", int64(sum.b.Requests), int64(n))
	}
	switch {
	case drained:
		return Baseline{}, tasks.ErrDraining
	case ctx.Err() != nil:
		return Baseline{}, fmt.Errorf("probe %s: %w", p.Base, context.Cause(ctx))
	}
	return sum.baseline(), nil
}

func (m *Monitor) probe(ctx context.Context, p Probes, i int) answer {
	req, err := p.request(ctx, i)
	if err != nil {
		return answer{}
	}
	start := time.Now()
	resp, err := m.http.Do(req)
	if err != nil {
		return answer{}
	}
	n, err := io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return answer{}
	}
	a := answer{latency: time.Since(start), status: resp.StatusCode, bytes: n, cache: resp.Header.Get(m.cfg.ProbeCacheHeader)}
	a.calls, a.counted = dbCalls(resp.Header, m.cfg.ProbeDBMetric)
	return a
}
