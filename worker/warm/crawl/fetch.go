package crawl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/retrypolicy"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/origin"
	"github.com/alphanode/stoker/worker/warm/source"
)

const (
	retries = 3 // of a request that met a 429, a 5xx or a broken connection
	minWait = 200 * time.Millisecond
	maxWait = 10 * time.Second
	jitter  = 0.25
	drained = 256 << 10 // bytes that are read of what does not count, to use the connection again
)

// WarmHeader marks the crawl's requests, so that a site can leave them out of its figures.
const WarmHeader = "X-Stoker-Warm"

// answer is what a page answered.
type answer struct {
	code   int
	status string
	header http.Header
	size   int64
	torn   bool          // the body is larger than may be
	body   io.ReadCloser // of what is kept open; nil where it was read
}

// retryPolicy is that of all requests. Retry-After is left to the limiter, which no request passes
// before its time.
var retryPolicy = retrypolicy.NewBuilder[*answer]().
	HandleIf(func(a *answer, err error) bool { return worthRetrying(a, err) }).
	WithBackoff(minWait, maxWait).WithJitterFactor(jitter).WithMaxRetries(retries).ReturnLastFailure().Build()

// broken is a request that the origin did not answer.
type broken struct {
	error
	late bool // it took too long
}

func (b *broken) Unwrap() error { return b.error }

func worthRetrying(a *answer, err error) bool {
	if err != nil {
		var b *broken
		return errors.As(err, &b) && !b.late
	}
	return busy(a.code)
}

// busy reports whether a status tells of an origin in trouble.
func busy(code int) bool {
	return code == http.StatusTooManyRequests || code >= 500 && code != http.StatusNotImplemented
}

// get fetches a path of the base with some headers, again after a 429, a 5xx or a broken connection.
// Its error is a *broken, the walk's context's, or wraps [origin.ErrAway] or a cause that ends the walk.
func (a *asker) get(path string, headers http.Header) (*answer, error) {
	return again(a.walk, func() (*answer, error) {
		return a.source.try(a.walk, path, headers, false, a)
	})
}

// open is get for a body that is left to the caller, who closes it. ctx is the request's only limit.
func (s *Source) open(ctx context.Context, path string, headers http.Header) (*answer, error) {
	return again(ctx, func() (*answer, error) { return s.try(ctx, path, headers, true, nil) })
}

// again tries until it is not worth trying again.
func again(ctx context.Context, try func() (*answer, error)) (*answer, error) {
	first, err := try()
	if !worthRetrying(first, err) {
		return first, err // as most are: the policy costs as much as the request's own bookkeeping
	}
	tries := 0
	return failsafe.With(retryPolicy).WithContext(ctx).Get(func() (*answer, error) {
		if tries++; tries == 1 {
			return first, err
		}
		return try()
	})
}

// try sends one request.
func (s *Source) try(ctx context.Context, path string, headers http.Header, stream bool, a *asker) (*answer, error) {
	permit, err := s.limiter.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	reqCtx := ctx
	if a != nil {
		reqCtx = a.begin()
		defer a.rest()
	}
	got, retryAfter, err := s.send(reqCtx, path, headers, stream)
	switch {
	case err == nil && !busy(got.code):
		permit.Done(origin.Answered, 0)
		return got, nil
	case err == nil:
		permit.Done(origin.Troubled, retryAfter)
		return got, nil
	case ctx.Err() != nil:
		permit.Done(origin.Dropped, 0)
		return nil, ctx.Err()
	case errors.Is(err, tasks.ErrRefused) || errors.Is(err, tasks.ErrInvalid):
		permit.Done(origin.Dropped, 0)
		return nil, err
	}
	permit.Done(origin.Troubled, 0)
	return nil, &broken{err, reqCtx.Err() != nil}
}

// send sends a request and reads the whole answer. It returns for how long the origin asks to be left alone.
func (s *Source) send(ctx context.Context, path string, headers http.Header, stream bool) (*answer, time.Duration, error) {
	u, err := s.address(path)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %v", tasks.ErrInvalid, err)
	}
	req := &http.Request{Method: http.MethodGet, URL: u, Host: headers.Get("Host"), Header: headers, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	resp, err := s.client.trips.RoundTrip(req.WithContext(ctx))
	if err != nil {
		return nil, 0, err
	}
	a := &answer{code: resp.StatusCode, status: resp.Status, header: resp.Header}
	if stream && a.code == http.StatusOK {
		a.body = resp.Body
		return a, 0, nil
	}
	defer resp.Body.Close()
	limit := s.most
	if a.code != s.status {
		limit = drained
	}
	n, err := io.CopyN(io.Discard, resp.Body, limit+1)
	a.size, a.torn = n, n > limit
	if busy(a.code) {
		return a, retryAfter(resp.Header.Get("Retry-After"), time.Now()), nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, fmt.Errorf("read page: %w", err)
	}
	return a, 0, nil
}

// retryAfter reads the header: seconds or a date. 0 where it says nothing.
func retryAfter(value string, now time.Time) time.Duration {
	if n, err := strconv.Atoi(value); err == nil {
		return min(time.Duration(max(n, 0)), 365*24*3600) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

// failed says why a request has no answer.
func failed(err error) *refusal {
	var b *broken
	switch {
	case errors.Is(err, origin.ErrAway):
		return refuse(source.Away, "%v", err)
	case errors.As(err, &b) && b.late:
		return refuse(source.NoAnswer, "took too long: %v", err)
	}
	return refuse(source.NoAnswer, "%v", err)
}

// ends reports whether an error is about more than one page.
func ends(err error) bool {
	var b *broken
	if errors.As(err, &b) {
		return false
	}
	for _, cause := range []error{context.Canceled, context.DeadlineExceeded, tasks.ErrRefused} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}
