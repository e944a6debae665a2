package demo

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// crowd is a number of visitors who read one site, page after page, and judge what they see.
type crowd struct {
	url    string
	truth  *Truth
	slugs  []string // by popularity, the most read first
	labels []string // paths of tag and author pages, by popularity
	client *http.Client
	meter  atomic.Pointer[meter]

	stop context.CancelFunc
	done sync.WaitGroup
}

// newCrowd makes up what its visitors like: the same seed, the same taste.
func newCrowd(url string, truth *Truth, c Corpus, seed uint64) *crowd {
	rnd := rand.New(rand.NewPCG(seed, 2))
	v := &crowd{url: url, truth: truth, stop: func() {}}
	v.meter.Store(newMeter())
	seen := map[string]bool{}
	for _, i := range rnd.Perm(len(c.Articles)) {
		a := c.Articles[i]
		v.slugs = append(v.slugs, a.Slug)
		for _, path := range append(prefixed("/"+tagPath, a.Tags), prefixed("/"+authorPath, a.Authors)...) {
			if !seen[path] {
				seen[path] = true
				v.labels = append(v.labels, path)
			}
		}
	}
	return v
}

func prefixed(prefix string, names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = prefix + n
	}
	return out
}

// start sends n visitors, who ask for perSecond pages together at most.
func (v *crowd) start(ctx context.Context, n int, perSecond float64, seed uint64) {
	ctx, v.stop = context.WithCancel(ctx)
	v.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: n}}
	pace := rate.NewLimiter(rate.Limit(perSecond), n)
	for i := range n {
		v.done.Go(func() {
			one := v.visitor(seed + uint64(i))
			for pace.Wait(ctx) == nil {
				path, slug := one.choose()
				v.visit(ctx, path, slug)
			}
		})
	}
}

// close sends everybody home and waits until they have left.
func (v *crowd) close() {
	v.stop()
	v.done.Wait()
	if v.client != nil {
		v.client.CloseIdleConnections()
	}
}

// phase ends a phase: it returns the figures since the last call and begins anew.
func (v *crowd) phase() Figures { return v.meter.Swap(newMeter()).read() }

// visitor is one person's choice of pages.
type visitor struct {
	crowd           *crowd
	rnd             *rand.Rand
	article, labels *rand.Zipf
}

func (v *crowd) visitor(seed uint64) visitor {
	rnd := rand.New(rand.NewPCG(seed, 3))
	zipf := func(n int) *rand.Zipf { return rand.NewZipf(rnd, 1.1, 10, uint64(max(n, 1)-1)) }
	return visitor{crowd: v, rnd: rnd, article: zipf(len(v.slugs)), labels: zipf(len(v.labels))}
}

// choose returns the path of the page to read next, and the article's slug if it is one's.
func (p visitor) choose() (path, slug string) {
	roll := p.rnd.IntN(100)
	switch {
	case roll < 10:
		return "/", ""
	case roll < 25 && len(p.crowd.labels) > 0:
		return p.crowd.labels[p.labels.Uint64()], ""
	}
	// A few tries to find one that exists; a dead link now and then is life.
	settled := p.crowd.truth.Settled()
	for range 5 {
		slug = p.crowd.slugs[p.article.Uint64()]
		if alive, _ := p.crowd.truth.Exists(settled, slug); alive {
			break
		}
	}
	if roll < 30 {
		return "/" + apiPath + slug, slug
	}
	return "/" + slug, slug
}

// visit asks for one page and judges it.
func (v *crowd) visit(ctx context.Context, path, slug string) {
	m := v.meter.Load()
	settled := v.truth.Settled()
	start := time.Now()
	got, err := fetchPage(ctx, v.client, v.url+path, nil)
	if err != nil {
		if ctx.Err() == nil {
			m.failed(err.Error())
		}
		return
	}
	m.answered(got.header, time.Since(start))
	switch alive, sure := v.truth.Exists(settled, slug); {
	case got.status != http.StatusOK && got.status != http.StatusNotFound:
		m.failed(fmt.Sprintf("%s: status %d: %s", path, got.status, strings.TrimSpace(string(got.body))))
	case got.status == http.StatusNotFound && slug != "" && alive && sure:
		m.failed(path + ": not found, but it exists")
	case got.status == http.StatusOK && slug != "" && !alive && sure:
		m.stale(path + ": shown, but it was deleted")
	case got.status == http.StatusOK:
		if what, stale := v.truth.Stale(settled, ParseStamps(got.body)); stale {
			m.stale(path + ": " + what)
		}
	}
}

// page is an answer as it arrived.
type page struct {
	status int
	header http.Header
	body   []byte
}

func fetchPage(ctx context.Context, client *http.Client, url string, header http.Header) (page, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return page{}, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := client.Do(req)
	if err != nil {
		return page{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return page{resp.StatusCode, resp.Header, body}, err
}
