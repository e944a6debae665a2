package origin

import (
	"context"
	"sync"
	"time"
)

const (
	renewEvery = 500 * time.Millisecond
	leaseFor   = 5 * time.Second
	renewLimit = 2 * time.Second // for one renewal
	forget     = time.Minute     // without use, what was learnt of an origin is old
	spare      = 4               // times the limit that a worker has use for: the limit may double twice until it asks again
)

// Deps is what limiters work with.
type Deps struct {
	// Share divides the ceilings among workers; nil: this process has them to itself.
	Share Sharer
	// Brake returns what divides the limit, 1 for nothing, and an error when the cache has no room for
	// more, which ends the warm; nil: nothing brakes. It is asked twice a second.
	Brake func(ctx context.Context) (float64, error)
	// Publish lets others see how a limiter stands, every two seconds while it is in use and once at the end;
	// nil: nobody wants to. Its errors are nobody's concern. Worker is left to it.
	Publish func(ctx context.Context, r Report) error
}

// Limiters holds the limiters of one process, by origin. It is safe for concurrent use.
type Limiters struct {
	cfg  Config
	deps Deps

	mu  sync.Mutex
	all map[string]*Limiter
}

// New returns limiters that know nothing of any origin yet.
func New(cfg Config, deps Deps) *Limiters {
	return &Limiters{cfg: cfg, deps: deps, all: map[string]*Limiter{}}
}

// Config returns the ceilings.
func (s *Limiters) Config() Config { return s.cfg }

// Open returns the limiter of an origin, such as a host with its port. Close it once for each time it
// was opened. What it learnt is kept for a minute after the last use.
func (s *Limiters) Open(name string) *Limiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.all[name]
	if l == nil || l.old() {
		l = newLimiter(name, s.cfg, s.deps)
		s.all[name] = l
	}
	l.use()
	return l
}

// old reports whether the limiter has been without use for long.
func (l *Limiter) old() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.users == 0 && time.Since(l.idled) > forget
}

func (l *Limiter) use() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users++; l.users > 1 {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	before, ended := l.ended, make(chan struct{})
	l.stop, l.ended = cancel, ended
	go func() {
		defer close(ended)
		if before != nil {
			<-before // whose leave must not come after this use's first renewal
		}
		l.run(ctx)
	}()
}

// Close ends one use of the limiter. With the last, its part of the ceilings is free.
func (l *Limiter) Close() {
	l.mu.Lock()
	l.users--
	last, ended := l.users == 0, l.ended
	if last {
		l.stop()
		l.idled = time.Now()
		if l.timer != nil {
			l.timer.Stop()
		}
	}
	l.mu.Unlock()
	if last {
		<-ended
	}
}

// run renews the lease and looks at the brake, until ctx ends.
func (l *Limiter) run(ctx context.Context) {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	var published time.Time
	for {
		l.renew(ctx, false)
		l.look(ctx)
		if time.Since(published) >= publishEvery {
			published = time.Now()
			l.publish(ctx)
		}
		select {
		case <-ctx.Done():
			l.renew(context.WithoutCancel(ctx), true)
			l.publish(context.WithoutCancel(ctx))
			return
		case <-tick.C:
		case <-l.kick:
		}
	}
}

// renew asks for a part of the ceilings. Without an answer the last grant stands, until its lease ends.
func (l *Limiter) renew(ctx context.Context, leaving bool) {
	if l.deps.Share == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, renewLimit)
	defer cancel()
	begun := time.Now()
	g, err := l.deps.Share.Renew(ctx, l.name, l.need(begun, leaving))
	if err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	// The lease may have begun as soon as it was asked for.
	l.permits, l.lease, l.offset = g.Permits, begun.Add(leaseFor), g.Now.Sub(now)
	l.setRate(g.Rate)
	if at := now.Add(g.Hold); g.Hold > 0 && at.After(l.hold.Add(renewEvery)) {
		l.holdUntil(at)
	}
	l.admit(now)
}

func (l *Limiter) need(now time.Time, leaving bool) Need {
	l.mu.Lock()
	defer l.mu.Unlock()
	want := min(int(spare*l.rule.settled()), l.cfg.OriginConcurrency)
	return Need{
		Lease: leaseFor, Most: l.cfg.OriginConcurrency, Rate: l.cfg.OriginRate,
		Want: want, Busy: l.busy, Hold: max(l.hold.Sub(now), 0), Leaving: leaving,
	}
}

func (l *Limiter) publish(ctx context.Context) {
	if l.deps.Publish == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, renewLimit)
	defer cancel()
	_ = l.deps.Publish(ctx, Report{Origin: l.name, At: time.Now().UTC(), State: l.State()}) // for eyes only
}

// look asks for the brake.
func (l *Limiter) look(ctx context.Context) {
	if l.deps.Brake == nil {
		return
	}
	factor, err := l.deps.Brake(ctx)
	if ctx.Err() != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.brake, l.full = max(factor, 1), err
	l.admit(time.Now())
}
