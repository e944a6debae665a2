package origin

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"golang.org/x/time/rate"
)

// The circuit breaker: of the last breakerOf requests so many were trouble, and then for how long
// nothing is sent before one request tries.
const (
	breakerAt   = 5
	breakerOf   = 10
	breakerRest = 5 * time.Second
)

// ErrAway is what waits for an origin ends with that gave nothing but trouble for long, or asked to
// be left alone for longer than anybody waits.
var ErrAway = errors.New("the origin does not answer")

// Limiter lets requests to one origin begin. It is safe for concurrent use.
type Limiter struct {
	name string
	cfg  Config
	deps Deps
	kick chan struct{} // asks for a renewal at once

	mu      sync.Mutex // guards what follows
	users   int
	stop    context.CancelFunc // ends the renewals
	ended   chan struct{}      // closed when they have ended; nil before the first use
	idled   time.Time          // since when nobody uses it
	rule    *rule
	busy    int
	ends    [Dropped + 1]int64 // by outcome
	waiting *list.List         // of *waiter
	timer   *time.Timer

	permits int           // granted
	lease   time.Time     // until when
	offset  time.Duration // from this process's clock to the shared one
	pace    *rate.Limiter // nil for no ceiling

	brake   float64   // divides the limit; 1 for none
	full    error     // why nothing may be added to the cache; nil when something may
	hold    time.Time // nobody may ask the origin before
	rest    time.Time // no request begins before, because of the brake
	breaker circuitbreaker.CircuitBreaker[any]
	trouble time.Time // since when there was nothing else; zero when there was
}

// waiter is a request that waits for its permit.
type waiter struct {
	ready  chan error // takes one
	permit Permit     // set before ready takes nil
}

// never is how long to wait for what another call brings about.
const never = time.Duration(math.MaxInt64)

func newLimiter(name string, cfg Config, deps Deps) *Limiter {
	l := &Limiter{name: name, cfg: cfg, deps: deps, kick: make(chan struct{}, 1), rule: newRule(cfg.OriginConcurrency), waiting: list.New(), brake: 1}
	l.breaker = circuitbreaker.NewBuilder[any]().WithFailureThresholdRatio(breakerAt, breakerOf).WithSuccessThreshold(1).WithDelay(breakerRest).Build()
	if deps.Share == nil {
		l.permits = cfg.OriginConcurrency
		l.setRate(cfg.OriginRate)
	}
	return l
}

// Acquire returns when one more request may begin. Its error is ctx's, or wraps [ErrAway], or is
// why the cache has no room. Call [Permit.Done] when the request has ended.
func (l *Limiter) Acquire(ctx context.Context) (Permit, error) {
	if err := ctx.Err(); err != nil {
		return Permit{}, err
	}
	l.mu.Lock()
	now := time.Now()
	if l.waiting.Len() == 0 {
		if wait, err := l.enter(now); wait == 0 {
			defer l.mu.Unlock()
			if err != nil {
				return Permit{}, err
			}
			return l.permit(now), nil
		}
	}
	w := &waiter{ready: make(chan error, 1)}
	at := l.waiting.PushBack(w)
	l.admit(now)
	l.mu.Unlock()
	select {
	case err := <-w.ready:
		return w.permit, err
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting.Remove(at) // nothing where it was let in meanwhile
	select {
	case err := <-w.ready:
		if err == nil {
			l.leave(w.permit, Dropped, 0)
		}
	default:
	}
	return Permit{}, ctx.Err()
}

// admit lets in who may begin, in their order. mu is held.
func (l *Limiter) admit(now time.Time) {
	for l.waiting.Len() > 0 {
		wait, err := l.enter(now)
		if wait > 0 {
			l.wakeIn(wait)
			return
		}
		w := l.waiting.Remove(l.waiting.Front()).(*waiter)
		if err == nil {
			w.permit = l.permit(now)
		}
		w.ready <- err
	}
}

// permit is that of a request which has entered. mu is held.
func (l *Limiter) permit(now time.Time) Permit {
	return Permit{l: l, round: l.rule.begin(now.Add(l.offset), l.busy), began: now}
}

// enter takes a permit, or returns how long to wait for one, or why there will be none. mu is held.
func (l *Limiter) enter(now time.Time) (time.Duration, error) {
	if l.full != nil {
		return 0, l.full
	}
	away := l.away(now)
	shut := max(l.hold.Sub(now), l.breaker.RemainingDelay())
	switch {
	case shut > l.cfg.OriginPatience:
		return 0, fmt.Errorf("%w: it asks to be left alone for %v (Retry-After), and STOKER_ORIGIN_PATIENCE is %v", ErrAway, shut.Round(time.Second), l.cfg.OriginPatience)
	case shut > 0 && away != nil:
		return 0, away
	case shut > 0:
		return shut, nil
	case l.busy >= l.allowed(now) && away != nil:
		return 0, away // what is under way finds out
	case l.busy >= l.allowed(now):
		return never, nil
	case l.rest.After(now):
		return l.rest.Sub(now), nil
	}
	if l.pace != nil && l.pace.Limit() == 0 {
		return never, nil // the other workers have it all, until they renew
	}
	if l.pace != nil && !l.pace.AllowN(now, 1) {
		return time.Duration((1 - l.pace.TokensAt(now)) / float64(l.pace.Limit()) * float64(time.Second)), nil
	}
	if !l.breaker.TryAcquirePermit() {
		return never, nil // the request that tries is under way
	}
	l.busy++
	return 0, nil
}

// allowed is how many requests may be under way now.
func (l *Limiter) allowed(now time.Time) int {
	if l.deps.Share != nil && !now.Before(l.lease) {
		return 0
	}
	return min(l.permits, max(int(l.rule.limit/l.brake), 1))
}

// away is an [ErrAway] once there was nothing but trouble for long.
func (l *Limiter) away(now time.Time) error {
	if l.trouble.IsZero() || now.Sub(l.trouble) < l.cfg.OriginPatience {
		return nil
	}
	return fmt.Errorf("%w: nothing but errors for %v", ErrAway, now.Sub(l.trouble).Round(time.Second))
}

// wakeIn looks again after a while. mu is held.
func (l *Limiter) wakeIn(d time.Duration) {
	if d == never {
		return
	}
	d = max(d, time.Millisecond)
	if l.timer != nil {
		l.timer.Reset(d)
		return
	}
	l.timer = time.AfterFunc(d, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.admit(time.Now())
	})
}

// Outcome is what became of a request.
type Outcome int

// The outcomes.
const (
	Answered Outcome = iota // with whatever the origin meant to say
	Troubled                // the origin, or the way to it, was overloaded or broken
	Dropped                 // whoever asked gave up: it tells nothing of the origin
)

// Permit is a request that may begin.
type Permit struct {
	l     *Limiter
	round int
	began time.Time
}

// Done ends the request. retryAfter is for how long the origin asks to be left alone, 0 when it does not.
func (p Permit) Done(o Outcome, retryAfter time.Duration) {
	p.l.mu.Lock()
	defer p.l.mu.Unlock()
	p.l.leave(p, o, retryAfter)
}

func (l *Limiter) leave(p Permit, o Outcome, retryAfter time.Duration) {
	now := time.Now()
	took := now.Sub(p.began)
	l.busy--
	l.ends[o]++
	switch {
	case o == Answered:
		l.breaker.RecordSuccess()
		l.trouble = time.Time{}
		l.rule.answered(p.round, took)
	case o == Troubled:
		l.troubled(now, p, retryAfter)
	case l.breaker.IsHalfOpen():
		l.breaker.RecordFailure() // or nobody would try again
	}
	if f := l.brake / l.rule.settled(); f > 1 {
		l.rest = now.Add(time.Duration(float64(took) * (f - 1)))
	}
	l.admit(now)
}

func (l *Limiter) troubled(now time.Time, p Permit, retryAfter time.Duration) {
	if l.trouble.IsZero() {
		l.trouble = p.began
	}
	shut := l.breaker.IsOpen()
	l.breaker.RecordFailure()
	l.rule.failed(p.round)
	if retryAfter > 0 {
		l.holdUntil(now.Add(retryAfter))
	} else if l.breaker.IsOpen() && !shut {
		l.holdUntil(now.Add(l.breaker.RemainingDelay()))
	}
}

// holdUntil closes the origin, for the other workers as well; after that the ramp begins again.
func (l *Limiter) holdUntil(at time.Time) {
	if !at.After(l.hold) {
		return
	}
	l.hold = at
	l.rule.restart()
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// setRate changes this process's part of the ceiling of requests a second.
func (l *Limiter) setRate(perSecond float64) {
	switch {
	case l.cfg.OriginRate == 0:
		l.pace = nil
	case l.pace == nil:
		l.pace = rate.NewLimiter(rate.Limit(perSecond), 1)
	default:
		l.pace.SetLimit(rate.Limit(perSecond))
	}
}

// State is how a limiter stands.
type State struct {
	Limit   float64       `json:"limit"`   // requests at a time that the rule lets
	Granted int           `json:"granted"` // by the workers' common ceiling
	Busy    int           `json:"busy"`    // under way
	Idle    time.Duration `json:"idle_ns"` // idle time of the origin; 0 while it is not known
	Brake   float64       `json:"brake"`   // that divides the limit; 1 for none
	Held    time.Duration `json:"held_ns"` // for which nobody may ask
	Open    bool          `json:"open"`    // the circuit breaker lets nothing through

	// Requests that ended since the limiter was made.
	Answered int64 `json:"answered"`
	Troubled int64 `json:"troubled"`
	Dropped  int64 `json:"dropped"`
}

// State returns how the limiter stands.
func (l *Limiter) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return State{
		Limit: l.rule.limit, Granted: l.permits, Busy: l.busy, Idle: l.rule.idle(), Brake: l.brake,
		Held: max(time.Until(l.hold), 0), Open: l.breaker.IsOpen(),
		Answered: l.ends[Answered], Troubled: l.ends[Troubled], Dropped: l.ends[Dropped],
	}
}
