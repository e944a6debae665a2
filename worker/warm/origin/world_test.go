package origin_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/alphanode/stoker/worker/warm/origin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is an origin in a test's own time: how long an answer takes, and what it is, as a function
// of the time and of the requests under way.
type site struct {
	serve func(at time.Duration, busy int) answer

	mu     sync.Mutex
	began  time.Time
	busy   int
	most   int
	served []served
}

// answer is what a request gets.
type answer struct {
	after time.Duration
	is    origin.Outcome
	retry time.Duration // Retry-After
}

// served is a request that was answered: when it began, and what it got.
type served struct {
	at   time.Duration
	took time.Duration
	by   *origin.Limiter
	answer
}

// request sends one request through a limiter.
func (s *site) request(ctx context.Context, l *origin.Limiter) error {
	p, err := l.Acquire(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.busy++
	s.most = max(s.most, s.busy)
	at := time.Since(s.began)
	a := s.serve(at, s.busy)
	s.mu.Unlock()
	time.Sleep(a.after)
	s.mu.Lock()
	s.busy--
	s.served = append(s.served, served{at, time.Since(s.began) - at, l, a})
	s.mu.Unlock()
	p.Done(a.is, a.retry)
	return nil
}

// visit has n callers send requests, one after the other, for a while. It returns how many requests
// nobody would send.
func (s *site) visit(t *testing.T, limiters []*origin.Limiter, n int, lasts time.Duration) (refused int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	s.began = time.Now()
	var mu sync.Mutex
	var callers sync.WaitGroup
	for i := range n {
		callers.Go(func() {
			for ctx.Err() == nil {
				if err := s.request(ctx, limiters[i%len(limiters)]); errors.Is(err, origin.ErrAway) {
					mu.Lock()
					refused++
					mu.Unlock()
					time.Sleep(100 * time.Millisecond) // the next batch
				}
			}
		})
	}
	callers.Wait()
	return refused
}

// between returns what began to be served within a stretch of time.
func (s *site) between(from, to time.Duration) []served {
	return slices.DeleteFunc(slices.Clone(s.served), func(v served) bool { return v.at < from || v.at >= to })
}

// p95 is the 95th percentile of the answers' times.
func p95(all []served) time.Duration {
	took := make([]time.Duration, len(all))
	for i, v := range all {
		took[i] = v.took
	}
	slices.Sort(took)
	if len(took) == 0 {
		return 0
	}
	return took[len(took)*95/100]
}

// faulty grants everything, keeps the hold, and can fail.
type faulty struct {
	broken atomic.Bool
	mu     sync.Mutex
	hold   time.Time
}

func (f *faulty) Renew(_ context.Context, _ string, n origin.Need) (origin.Grant, error) {
	if f.broken.Load() {
		return origin.Grant{}, errors.New("connection refused")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if at := time.Now().Add(n.Hold); at.After(f.hold) {
		f.hold = at
	}
	return origin.Grant{Permits: n.Most, Rate: n.Rate, Hold: max(time.Until(f.hold), 0), Now: time.Now()}, nil
}
