package crawl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	"golang.org/x/sync/errgroup"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/source"
)

const (
	chunkPages = 25       // pages a chunk: what a killed worker visits again at most
	maxBody    = 64 << 20 // bytes of a page that are read
	retries    = 3        // of a request that met a 429, a 5xx or no answer
	minWait    = 200 * time.Millisecond
	maxWait    = 10 * time.Second // whatever Retry-After asks for
)

// WarmHeader marks the crawl's requests, so that a site can leave them out of its figures.
const WarmHeader = "X-Stoker-Warm"

// Source visits the pages of one spec.
type Source struct {
	spec    Spec
	expect  Expect
	release string
	base    *url.URL
	headers http.Header
	key     source.Template
	header  map[string]source.Template
	status  int
	timeout time.Duration
	client  *retryablehttp.Client
}

var _ source.Source = (*Source)(nil)

// New returns the source of a spec for a release; version names stoker's in the User-Agent.
func New(spec Spec, expect Expect, release, version string) (*Source, error) {
	s := &Source{spec: spec, expect: expect, release: release, status: expect.Status}
	s.timeout = spec.Timeout.Or(defaultTimeout)
	if s.status == 0 {
		s.status = http.StatusOK
	}
	var err error
	if s.base, err = parseBase(spec.Base, release); err != nil {
		return nil, fmt.Errorf("%w: %v", tasks.ErrInvalid, err)
	}
	if s.key, err = source.ParseTemplate(expect.Key); err != nil {
		return nil, err
	}
	if s.header, err = compile(expect.Header); err != nil {
		return nil, err
	}
	headers, err := compile(spec.Headers)
	if err != nil {
		return nil, err
	}
	if s.headers, err = render(headers, page{Release: release}); err != nil {
		return nil, err
	}
	s.headers.Set("User-Agent", "stoker/"+version)
	s.headers.Set(WarmHeader, "1")
	s.client = newClient(s.concurrency())
	return s, nil
}

func (s *Source) concurrency() int {
	if s.spec.Concurrency == 0 {
		return defaultConcurrency
	}
	return s.spec.Concurrency
}

func newClient(concurrency int) *retryablehttp.Client {
	c := retryablehttp.NewClient()
	c.Logger = nil // what fails is counted and shown with its reason
	c.RetryMax, c.RetryWaitMin, c.RetryWaitMax = retries, minWait, maxWait
	c.ErrorHandler = retryablehttp.PassthroughErrorHandler // the last answer says more than "giving up"
	c.Backoff = func(least, most time.Duration, attempt int, resp *http.Response) time.Duration {
		return min(most, retryablehttp.DefaultBackoff(least, most, attempt, resp))
	}
	// A redirect leads to another page, or another host: it is an answer like any other.
	c.HTTPClient.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if t, ok := c.HTTPClient.Transport.(*http.Transport); ok {
		t.MaxIdleConnsPerHost, t.MaxConnsPerHost = concurrency, concurrency
		t.Proxy = nil // the base is the instance itself
	}
	return c
}

// Close drops idle connections.
func (s *Source) Close() error {
	s.client.HTTPClient.CloseIdleConnections()
	return nil
}

// Keys implements [source.Source]: the paths with their queries.
func (s *Source) Keys(ctx context.Context, fn func(key string) error) error {
	return s.list(ctx, fn)
}

// Walk implements [source.Source]: it visits the part's paths, or all where it names none.
// Next is the number of items done.
func (s *Source) Walk(ctx context.Context, part source.Part, from string, fn func(source.Chunk) error) error {
	items := part.Items
	if items == nil {
		if err := s.list(ctx, func(path string) error { items = append(items, path); return nil }); err != nil {
			return err
		}
	}
	start, err := parsePosition(from, len(items))
	if err != nil {
		return err
	}
	for start < len(items) {
		end := min(start+chunkPages, len(items))
		taken := slices.DeleteFunc(slices.Clone(items[start:end]), func(path string) bool { return !part.Takes(path) })
		all, err := s.visitAll(ctx, taken)
		if err != nil {
			return err
		}
		chunk := s.chunk(all)
		chunk.Next = strconv.Itoa(end)
		if err := fn(chunk); err != nil {
			return err
		}
		start = end
	}
	return nil
}

func parsePosition(from string, items int) (int, error) {
	if from == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(from)
	if err != nil || n < 0 || n > items {
		return 0, fmt.Errorf("%w: crawl position %q of %d", tasks.ErrInvalid, from, items)
	}
	return n, nil
}

// visited is what came of a page.
type visited struct {
	path, key string
	err       error
}

// visitAll visits some pages at once. Its error is the context's: a page's own is in its answer.
func (s *Source) visitAll(ctx context.Context, paths []string) ([]visited, error) {
	all := make([]visited, len(paths))
	var group errgroup.Group
	group.SetLimit(s.concurrency())
	for i, path := range paths {
		group.Go(func() error {
			all[i].path = path
			all[i].key, all[i].err = s.visit(ctx, path)
			return nil
		})
	}
	_ = group.Wait() // never an error
	return all, ctx.Err()
}

// chunk returns what visits found. Again visits pages once more by the keys of their entries.
func (s *Source) chunk(all []visited) source.Chunk {
	c := source.Chunk{Written: source.BySite}
	pathOf := map[string]string{}
	for _, v := range all {
		if v.err != nil {
			c.Failed = append(c.Failed, source.Failure{Key: v.path, Error: v.err.Error()})
			continue
		}
		pathOf[v.key] = v.path
		c.Entries = append(c.Entries, source.Entry{Entry: tasks.Entry{Key: v.key}})
	}
	c.Again = func(ctx context.Context, keys []string) {
		var paths []string
		for _, key := range keys {
			if path, ok := pathOf[key]; ok {
				paths = append(paths, path)
			}
		}
		_, _ = s.visitAll(ctx, paths) // whether it helped shows in the namespace
	}
	return c
}

// visit fetches one page and returns the key of the entry that it should have left behind.
func (s *Source) visit(ctx context.Context, path string) (string, error) {
	u, err := s.address(path)
	if err != nil {
		return "", err
	}
	about := page{Path: u.Path, Query: u.RawQuery, Release: s.release}
	want, err := render(s.header, about)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	resp, err := s.get(ctx, path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != s.status {
		io.CopyN(io.Discard, resp.Body, 4<<10) // let the connection be used again
		return "", &wrongStatus{resp.StatusCode, resp.Status, s.status}
	}
	if n, err := io.CopyN(io.Discard, resp.Body, maxBody); err == nil {
		return "", fmt.Errorf("page is larger than %d bytes", n)
	} else if !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read page: %w", err)
	}
	for name := range want {
		if got := resp.Header.Get(name); got != want.Get(name) {
			return "", fmt.Errorf("answered with %s %q, not %q: is this the new build's instance?", name, got, want.Get(name))
		}
	}
	return s.expected(about)
}

// wrongStatus is an answer with another status than the expected one.
type wrongStatus struct {
	code   int
	status string
	want   int
}

func (e *wrongStatus) Error() string { return fmt.Sprintf("answered %s, not %d", e.status, e.want) }

func (s *Source) expected(about page) (string, error) {
	if s.expect.Key == "" {
		return "", nil
	}
	key, err := s.key.Render(about)
	if err != nil {
		return "", err
	}
	return key, source.CheckKey(key)
}

// address returns the base's address of a path. A path of "//host/x" stays a path.
func (s *Source) address(path string) (*url.URL, error) {
	u, err := url.ParseRequestURI(path)
	if err != nil {
		return nil, err
	}
	u.Scheme, u.Host = s.base.Scheme, s.base.Host
	return u, nil
}

// get fetches a path of the base, again after a 429, a 5xx or a broken connection.
func (s *Source) get(ctx context.Context, path string) (*http.Response, error) {
	u, err := s.address(path)
	if err != nil {
		return nil, err
	}
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header = s.headers.Clone()
	if host := s.headers.Get("Host"); host != "" {
		req.Host = host
	}
	return s.client.Do(req)
}
