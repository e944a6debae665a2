package health

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/alphanode/stoker/tasks"
)

// ProbeHeader marks every request of a measurement with the value 1, so that a site can keep them out
// of its statistics, and its hit rate above all: deploy/README.md shows how.
const ProbeHeader = "X-Stoker-Probe"

const userAgent = "stoker/1 (probe)"

// MaxProbes is the most requests that one measurement makes.
const MaxProbes = 100_000

// DefaultProbes is how many requests a measurement makes when the plan does not say: enough to tell
// 2 % errors from none, and to rule out 1 %.
const DefaultProbes = 1000

// Probes names the pages that stand for the site.
type Probes struct {
	Base    string      // http(s)://host[:port][/path], to which the paths are appended
	Paths   []string    // each begins with /; visited in turn, over and over
	Count   int         // requests in all; 0 means DefaultProbes
	Headers http.Header // sent with every request besides the mark; may be nil
}

// Validate reports probes that could not be sent.
func (p Probes) Validate() error {
	u, err := url.Parse(p.Base)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%w: probes: base %q: use http://host or https://host", tasks.ErrInvalid, redactURL(p.Base))
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
	for name, values := range p.Headers {
		req.Header[name] = values
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set(ProbeHeader, "1")
	return req, nil
}

// redactURL returns an address without its password, or nothing of one that cannot be read.
func redactURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return u.Redacted()
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
	counted bool   // calls is known
	head    []byte // the body's first bytes, where they were asked for
}

// failed reports an answer that a visitor would not want.
func (a answer) failed() bool { return a.status == 0 || a.status >= 400 }

// probe makes one request, and keeps so many of the body's first bytes.
func (m *Monitor) probe(ctx context.Context, p Probes, i int, keep int64) answer {
	req, err := p.request(ctx, i)
	if err != nil {
		return answer{}
	}
	start := time.Now()
	resp, err := m.http.Do(req)
	if err != nil {
		return answer{}
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, cache: resp.Header.Get(m.cfg.ProbeCacheHeader)}
	if keep > 0 {
		if a.head, err = io.ReadAll(io.LimitReader(resp.Body, keep)); err != nil {
			return answer{}
		}
	}
	if a.bytes, err = io.Copy(io.Discard, resp.Body); err != nil {
		return answer{}
	}
	a.bytes += int64(len(a.head))
	a.latency = m.since(start)
	a.calls, a.counted = m.dbCalls(resp.Header)
	return a
}

// dbCalls returns how many database calls a response owns up to: in the configured header, else in
// its Server-Timing.
func (m *Monitor) dbCalls(h http.Header) (int, bool) {
	if name := m.cfg.ProbeDBHeader; name != "" {
		if n, ok := leadingNumber(strings.TrimSpace(h.Get(name))); ok {
			return n, true
		}
	}
	return dbCalls(h, m.cfg.ProbeDBMetric)
}
