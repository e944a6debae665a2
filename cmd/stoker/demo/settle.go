package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Settled is the outcome of comparing a whole site with its database while no edit is made.
type Settled struct {
	Pages    int64    `json:"pages"`  // compared, those that must not exist any more included
	Cached   int64    `json:"cached"` // of them served from the cache alone
	Stale    int64    `json:"stale"`  // of them with other bytes than the database gives
	Errors   int64    `json:"errors"` // without an answer, or with one that is no page
	Examples []string `json:"examples,omitempty"`
}

// inspector compares a site with what the database says.
type inspector struct {
	truth  *Truth
	want   map[string]*Site // release → that build, without a cache
	client *http.Client
}

// compare asks the sites at urls for every page that exists or ever did, and holds their bytes
// against what the release's build makes of the database; one result for each url. It changes
// no cache. No edit may run meanwhile; visitors may.
func (i *inspector) compare(ctx context.Context, release string, urls ...string) ([]Settled, error) {
	build, ok := i.want[release]
	if !ok {
		return nil, fmt.Errorf("compare: no build of release %q", release)
	}
	want := *build
	want.cache = &fragments{}
	paths, err := want.Paths(ctx, new(Tally))
	if err != nil {
		return nil, err
	}
	_, gone := i.truth.Slugs()
	paths = append(append(paths, prefixed("/", gone)...), prefixed("/"+apiPath, gone)...)
	surveys := make([]survey, len(urls))
	err = each(ctx, paths, func(ctx context.Context, path string) error {
		body, err := want.Render(ctx, path)
		if err != nil {
			return err
		}
		for n, url := range urls {
			if err := i.page(ctx, &surveys[n], url, path, body); err != nil {
				return err
			}
		}
		return nil
	})
	results := make([]Settled, len(urls))
	for n := range surveys {
		results[n] = surveys[n].result
		results[n].Pages = int64(len(paths))
	}
	return results, err
}

// page judges one page of one site; want is nil where none may be.
func (i *inspector) page(ctx context.Context, s *survey, url, path string, want []byte) error {
	got, err := fetchPage(ctx, i.client, url+path, http.Header{"Cache-Control": {"no-store"}})
	if err != nil {
		s.failed(err.Error())
		return ctx.Err()
	}
	if got.header.Get(CacheHeader) == "HIT" {
		s.cached()
	}
	switch {
	case got.status == http.StatusNotFound && want == nil:
	case got.status == http.StatusOK && want == nil:
		s.stale(path + ": shown, but it was deleted")
	case got.status != http.StatusOK:
		s.failed(fmt.Sprintf("%s: status %d: %s", path, got.status, bytes.TrimSpace(got.body)))
	case !bytes.Equal(got.body, want):
		s.stale(fmt.Sprintf("%s: shows %v, the database %v", path, ParseStamps(got.body), ParseStamps(want)))
	}
	return nil
}

// fragments is the cache of one comparison, while which the database stands still: it keeps
// the few fragments that stand on every page, and no pages.
type fragments struct {
	kept sync.Map // key → []byte
}

// Fetch implements [Cache].
func (f *fragments) Fetch(ctx context.Context, key string, _ []string, _ time.Duration, load func(context.Context) ([]byte, error)) ([]byte, bool, error) {
	if value, ok := f.kept.Load(key); ok {
		return value.([]byte), true, nil
	}
	value, err := load(ctx)
	if err == nil && (key == navKey || strings.HasPrefix(key, authorKey)) {
		f.kept.Store(key, value)
	}
	return value, false, err
}

// Invalidate implements [Cache]: nothing changes during a comparison.
func (f *fragments) Invalidate(context.Context, []string, string) (func(context.Context) error, error) {
	return nil, errors.ErrUnsupported
}

// survey gathers what askers find.
type survey struct {
	mu     sync.Mutex
	result Settled
}

func (s *survey) cached() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.result.Cached++
}

func (s *survey) stale(what string)  { s.fault(&s.result.Stale, what) }
func (s *survey) failed(what string) { s.fault(&s.result.Errors, what) }

func (s *survey) fault(count *int64, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*count++
	if len(s.result.Examples) < maxExamples {
		s.result.Examples = append(s.result.Examples, what)
	}
}
