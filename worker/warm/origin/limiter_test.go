package origin_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/origin"
)

const idle = 20 * time.Millisecond

// alone opens the limiter of a process that has an origin to itself.
func alone(t *testing.T, cfg origin.Config, deps origin.Deps) *origin.Limiter {
	l := origin.New(cfg, deps).Open("site:80")
	t.Cleanup(l.Close)
	return l
}

func times(n, of int) time.Duration { return idle * time.Duration(n) / time.Duration(of) }

// TestHoldsLatency: whatever way an origin has of becoming slow, its 95th percentile stays below twice
// its idle value, and it is used.
func TestHoldsLatency(t *testing.T) {
	for name, c := range map[string]struct {
		serve func(busy int) time.Duration
		least int // requests a second that it must get at least
	}{
		"eight at a time, the others wait":  {func(n int) time.Duration { return times(max(n, 8), 8) }, 350},
		"one at a time":                     {func(n int) time.Duration { return times(n, 1) }, 45},
		"a fifth slower with every request": {func(n int) time.Duration { return times(4+n, 5) }, 95},
		"breaks down above 24":              {func(n int) time.Duration { return times(1+max(n-24, 0), 1) }, 600},
		"bears everything":                  {func(int) time.Duration { return idle }, 1400},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &site{serve: func(_ time.Duration, n int) answer { return answer{after: c.serve(n)} }}
				s.visit(t, []*origin.Limiter{alone(t, origin.Default(), origin.Deps{})}, 64, 2*time.Minute)
				if got := p95(s.served); got > 2*idle {
					t.Errorf("95th percentile %v, more than twice %v", got, idle)
				}
				if got := len(s.served) / 120; got < c.least {
					t.Errorf("%d requests a second, want %d or more", got, c.least)
				}
				if s.most > 32 {
					t.Errorf("%d requests at a time, more than the ceiling", s.most)
				}
			})
		})
	}
}

// TestFirstAlone: nothing is asked beside the first requests.
func TestFirstAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{serve: func(time.Duration, int) answer { return answer{after: time.Second} }}
		s.visit(t, []*origin.Limiter{alone(t, origin.Default(), origin.Deps{})}, 10, 5900*time.Millisecond)
		if s.most != 1 || len(s.served) != 6 {
			t.Errorf("%d at a time, %d within 6 s, want one after the other", s.most, len(s.served))
		}
	})
}

// TestRetryAfter: nobody asks before the time, and then not all at once.
func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const from, until = 20 * time.Second, 50 * time.Second
		s := &site{serve: func(at time.Duration, n int) answer {
			if at >= from && at < until {
				return answer{time.Millisecond, origin.Troubled, until - at}
			}
			return answer{after: times(max(n, 8), 8)}
		}}
		refused := s.visit(t, []*origin.Limiter{alone(t, origin.Default(), origin.Deps{})}, 64, 80*time.Second)
		if shut := s.between(from, until); len(shut) > 16 || refused > 0 {
			t.Errorf("%d requests while it was not to be asked, %d refused: want those under way, and none", len(shut), refused)
		}
		s.expectNoStorm(t, until)
	})
}

// expectNoStorm checks that an origin that is back is asked by one, and then as before.
func (s *site) expectNoStorm(t *testing.T, back time.Duration) {
	t.Helper()
	first := s.between(back, back+5*idle)
	if len(first) > 6 {
		t.Errorf("%d requests within %v after the origin was back, want them one by one", len(first), 5*idle)
	}
	if got := p95(s.between(back, back+time.Hour)); got > 2*idle {
		t.Errorf("95th percentile %v after the origin was back, more than twice %v", got, idle)
	}
	if after := s.between(back+10*time.Second, back+20*time.Second); len(after) < 2000 {
		t.Errorf("%d requests in 10 s, 10 s after it was back: too few", len(after))
	}
}

// TestAskedToWaitForLong: nobody waits an hour, and nobody asks meanwhile.
func TestAskedToWaitForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := alone(t, origin.Default(), origin.Deps{})
		p, err := l.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p.Done(origin.Troubled, time.Hour)
		for _, after := range []time.Duration{0, 59 * time.Minute} {
			time.Sleep(after)
			if _, err := l.Acquire(t.Context()); !errors.Is(err, origin.ErrAway) {
				t.Errorf("got %v after %v, want that it is away", err, after)
			}
		}
		time.Sleep(time.Minute)
		if p, err = l.Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.Done(origin.Answered, 0)
	})
}

// TestBreaker: an origin that gives nothing but errors is left alone but for one request every few seconds,
// is away after a while, and is back with its first answer.
func TestBreaker(t *testing.T) {
	for name, broken := range map[string]time.Duration{"resets": time.Millisecond, "hangs": 30 * time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const from, until = 20 * time.Second, 10 * time.Minute
				s := &site{serve: func(at time.Duration, n int) answer {
					if at >= from && at < until {
						return answer{after: broken, is: origin.Troubled}
					}
					return answer{after: times(max(n, 8), 8)}
				}}
				refused := s.visit(t, []*origin.Limiter{alone(t, origin.Default(), origin.Deps{})}, 64, 12*time.Minute)
				if got := len(s.between(from+time.Minute, until)); got > 120 {
					t.Errorf("%d requests within 9 minutes to an origin that answers none", got)
				}
				if refused < 64*1000 {
					t.Errorf("%d requests refused within 8 minutes: some wait", refused)
				}
				back := slices.IndexFunc(s.served, func(v served) bool { return v.at >= until && v.is == origin.Answered })
				if s.served[back].at > until+broken+10*time.Second {
					t.Errorf("first asked again %v after it was back", s.served[back].at-until)
				}
				s.expectNoStorm(t, s.served[back].at)
			})
		})
	}
}

// TestSomeErrors: pages that fail now and then do not close the origin.
func TestSomeErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		s := &site{serve: func(time.Duration, int) answer {
			if n++; n%50 == 0 {
				return answer{after: idle, is: origin.Troubled}
			}
			return answer{after: idle}
		}}
		s.visit(t, []*origin.Limiter{alone(t, origin.Default(), origin.Deps{})}, 64, time.Minute)
		if len(s.served) < 60*1000 {
			t.Errorf("%d requests in a minute, too few", len(s.served))
		}
	})
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := origin.Default()
		cfg.OriginRate = 25
		s := &site{serve: func(time.Duration, int) answer { return answer{after: idle} }}
		s.visit(t, []*origin.Limiter{alone(t, cfg, origin.Deps{})}, 64, time.Minute)
		if n := len(s.served); n < 25*58 || n > 25*60+1 {
			t.Errorf("%d requests in a minute, want 25 a second", n)
		}
	})
}

// TestBrake: a brake divides the requests, below one at a time as well; without room nobody is let in.
func TestBrake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type state struct {
			factor float64
			full   error
		}
		var now atomic.Value
		now.Store(state{factor: 1})
		l := alone(t, origin.Default(), origin.Deps{Brake: func(context.Context) (float64, error) {
			b := now.Load().(state)
			return b.factor, b.full
		}})
		s := &site{serve: func(time.Duration, int) answer { return answer{after: idle} }}
		s.visit(t, []*origin.Limiter{l}, 64, 20*time.Second)
		free := len(s.between(10*time.Second, 15*time.Second))
		for _, f := range []float64{4, 64} {
			now.Store(state{factor: f})
			s = &site{serve: s.serve}
			s.visit(t, []*origin.Limiter{l}, 64, 20*time.Second)
			braked := len(s.between(5*time.Second, 10*time.Second))
			if want := float64(free) / f; float64(braked) < want/2 || float64(braked) > want*1.3 {
				t.Errorf("%d requests in 5 s under a brake of %v, %d without", braked, f, free)
			}
		}
		now.Store(state{full: tasks.ErrRefused})
		time.Sleep(time.Second)
		if _, err := l.Acquire(t.Context()); !errors.Is(err, tasks.ErrRefused) {
			t.Errorf("got %v, want that there is no room", err)
		}
	})
}

// TestGivenUp: who gives up waiting takes nothing with him.
func TestGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := alone(t, origin.Default(), origin.Deps{})
		first, err := l.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := l.Acquire(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the context's error", err)
		}
		first.Done(origin.Dropped, 0)
		if st := l.State(); st.Busy != 0 {
			t.Errorf("%d requests under way, want none", st.Busy)
		}
	})
}

// TestNoise: an origin whose answers take now half as long and now twice as long, and that two workers ask,
// is asked by both, though not by both alike, and no more than it bears.
func TestNoise(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		noise := rand.New(rand.NewPCG(seed, 0))
		share := &faulty{}
		s := &site{serve: func(_ time.Duration, n int) answer {
			return answer{after: time.Duration(float64(times(max(n, 12), 12)) * (0.5 + 1.5*math.Pow(noise.Float64(), 3)))}
		}}
		limiters := []*origin.Limiter{alone(t, origin.Default(), origin.Deps{Share: share}), alone(t, origin.Default(), origin.Deps{Share: share})}
		s.visit(t, limiters, 64, 2*time.Minute)
		alone := 0.5 + 1.5*math.Pow(0.95, 3) // times idle, its 95th percentile
		if got := p95(s.served); float64(got) > 2*alone*float64(idle) {
			t.Errorf("95th percentile %v, more than twice %.2f × %v", got, alone, idle)
		}
		by := map[*origin.Limiter]int{}
		for _, v := range s.served {
			by[v.by]++
		}
		one, two := by[limiters[0]], by[limiters[1]]
		if one+two < 120*300 || min(one, two) < 120*10 {
			t.Errorf("%d requests within 2 minutes by one worker, %d by the other: too few", one, two)
		}
	})
}

// TestSlowStretch: an origin that others slow down for a while, whatever it is asked, is asked as before
// soon after.
func TestSlowStretch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const from, until = 20 * time.Second, 33 * time.Second
		s := &site{serve: func(at time.Duration, n int) answer {
			after := times(max(n, 12), 12)
			if at >= from && at < until {
				after *= 3
			}
			return answer{after: after}
		}}
		s.visit(t, []*origin.Limiter{alone(t, origin.Default(), origin.Deps{})}, 64, until+20*time.Second)
		before, after := len(s.between(from-3*time.Second, from)), len(s.between(until+2*time.Second, until+5*time.Second))
		if after < before/2 {
			t.Errorf("%d requests in 3 s, 2 s after the stretch, and %d before it", after, before)
		}
	})
}
