package crawl

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/origin"
	"github.com/alphanode/stoker/worker/warm/source"
)

// Deps is what a crawl works with.
type Deps struct {
	Version string           // stoker's, for the User-Agent
	Client  *Client          // stays the caller's
	Origins *origin.Limiters // lets requests begin
	// Exist reports which entries of the release's namespace are there. nil means that nobody can
	// tell: then the site is never asked to load a page anew, and nothing that a visit left is unfit.
	Exist func(ctx context.Context, keys []string) ([]bool, error)
}

// Source visits the pages of one spec.
type Source struct {
	spec    Spec
	expect  Expect
	release string
	base    *url.URL
	headers http.Header // of every request
	dress   []dress
	key     source.Template
	header  map[string]source.Template
	status  int
	most    int64 // bytes of a page
	client  *Client
	limiter *origin.Limiter
	exist   func(ctx context.Context, keys []string) ([]bool, error)
	ceiling int // of all requests to the origin
	timeout time.Duration
}

var _ source.Source = (*Source)(nil)

// New returns the source of a spec for a release. Close it.
func New(spec Spec, expect Expect, release string, deps Deps) (*Source, error) {
	s := &Source{spec: spec, expect: expect, release: release, status: expect.Status, client: deps.Client, exist: deps.Exist}
	s.timeout = spec.Timeout.Or(defaultTimeout)
	if s.status == 0 {
		s.status = http.StatusOK
	}
	var err error
	if s.most, err = expect.maxSize(); err != nil {
		return nil, fmt.Errorf("%w: %v", tasks.ErrInvalid, err)
	}
	if s.base, err = parseBase(spec.Base, release); err != nil {
		return nil, fmt.Errorf("%w: %v", tasks.ErrInvalid, err)
	}
	if s.key, err = source.ParseTemplate(expect.Key); err != nil {
		return nil, err
	}
	if s.header, err = compile(expect.Header); err != nil {
		return nil, err
	}
	if s.headers, err = s.rendered(spec.Headers); err != nil {
		return nil, err
	}
	s.headers.Set("User-Agent", "stoker/"+deps.Version)
	s.headers.Set(WarmHeader, "1")
	if s.headers.Get("Accept-Encoding") == "" {
		s.headers.Set("Accept-Encoding", "gzip")
	}
	if s.dress, err = s.dresses(); err != nil {
		return nil, err
	}
	s.ceiling = deps.Origins.Config().OriginConcurrency
	s.limiter = deps.Origins.Open(s.base.Host)
	return s, nil
}

// concurrency is how many requests the source has under way or waiting for their turn.
func (s *Source) concurrency() int {
	if s.spec.Concurrency == 0 {
		return min(s.ceiling, maxConcurrency)
	}
	return s.spec.Concurrency
}

// Close gives back the source's part of the origin.
func (s *Source) Close() error {
	s.limiter.Close()
	return nil
}

// Keys implements [source.Source]: the paths with their queries.
func (s *Source) Keys(ctx context.Context, fn func(key string) error) error {
	return s.list(ctx, fn)
}

// Walk implements [source.Source]: it visits the part's paths, or all where it names none.
// Next is the number of items done. While a chunk is taken, the next ones are visited.
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
	ctx, cancel := context.WithCancel(ctx)
	steps := make(chan *step, ahead)
	var visiting sync.WaitGroup
	visiting.Go(func() {
		defer close(steps)
		s.visitAhead(ctx, part, items, start, steps)
	})
	defer visiting.Wait()
	defer cancel()
	for st := range steps {
		chunk, err := st.chunk()
		if err != nil {
			return err
		}
		if err := fn(chunk); err != nil {
			return err
		}
	}
	return ctx.Err()
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
