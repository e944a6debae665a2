package origin_test

import (
	"context"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
	"github.com/alphanode/stoker/worker/warm/origin"
)

// TestCeilingsHold: whatever workers ask for, come, go and stay silent, they may never do more together
// than the ceilings, what they still have under way included.
func TestCeilingsHold(t *testing.T) {
	client := redistest.Start(t).Client
	keys := tasks.KeysOf("site")
	round := 0
	rapid.Check(t, func(t *rapid.T) {
		round++
		name := fmt.Sprintf("site:%d", round)
		most := rapid.IntRange(1, 40).Draw(t, "most")
		rate := rapid.SampledFrom([]float64{0, 0.5, 100}).Draw(t, "rate")
		type worker struct {
			origin.Shared
			granted, busy int
			rate          float64
		}
		workers := make([]*worker, rapid.IntRange(1, 5).Draw(t, "workers"))
		for i := range workers {
			workers[i] = &worker{Shared: origin.Shared{Queue: client, Keys: keys, Worker: fmt.Sprint("w", i)}}
		}
		for range rapid.IntRange(1, 40).Draw(t, "renewals") {
			w := workers[rapid.IntRange(0, len(workers)-1).Draw(t, "worker")]
			if w.granted > w.busy && rapid.Bool().Draw(t, "begins") {
				w.busy = rapid.IntRange(w.busy, w.granted).Draw(t, "busy")
			} else {
				w.busy = rapid.IntRange(0, w.busy).Draw(t, "fewer")
			}
			n := origin.Need{Lease: time.Minute, Most: most, Rate: rate, Want: rapid.IntRange(0, most).Draw(t, "want"), Busy: w.busy,
				Leaving: w.busy == 0 && rapid.IntRange(0, 5).Draw(t, "leaves") == 0}
			g, err := w.Renew(context.Background(), name, n)
			if err != nil {
				t.Fatal(err)
			}
			w.granted, w.rate = g.Permits, g.Rate
			permits, rates := 0, 0.0
			for _, w := range workers {
				permits, rates = permits+max(w.granted, w.busy), rates+w.rate
			}
			if permits > most || rate > 0 && rates > rate*(1+1e-6) || rate == 0 && rates > 0 {
				t.Fatalf("%d requests and %v a second are granted, of %d and %v", permits, rates, most, rate)
			}
		}
	})
}

// TestSharesAreFair: a worker that comes later gets its part, and what one has no use for another gets.
func TestSharesAreFair(t *testing.T) {
	client := redistest.Start(t).Client
	one := origin.Shared{Queue: client, Keys: tasks.KeysOf("site"), Worker: "one"}
	two := one
	two.Worker = "two"
	renew := func(s origin.Shared, n origin.Need) origin.Grant {
		t.Helper()
		n.Lease, n.Most, n.Rate = time.Minute, 32, 100
		g, err := s.Renew(t.Context(), "site:80", n)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	all := origin.Need{Want: 32}
	if g := renew(one, all); g.Permits != 32 || g.Rate != 100 {
		t.Errorf("alone: %+v, want all", g)
	}
	if g := renew(two, all); g.Permits != 0 || g.Rate != 0 {
		t.Errorf("newcomer: %+v, want what is left: nothing", g)
	}
	if g := renew(one, origin.Need{Want: 32, Busy: 20}); g.Permits != 16 {
		t.Errorf("the first: %+v, want half", g)
	}
	if g := renew(two, all); g.Permits != 12 || math.Abs(g.Rate-50) > 1e-3 {
		t.Errorf("newcomer: %+v, want what is not under way any more", g)
	}
	renew(one, origin.Need{Want: 4})
	if g := renew(two, all); g.Permits != 28 {
		t.Errorf("beside one that wants 4: %+v, want the rest", g)
	}
	renew(one, origin.Need{Hold: time.Minute})
	if g := renew(two, all); g.Hold < 50*time.Second || g.Hold > time.Minute {
		t.Errorf("hold %v, want about a minute: the other was asked to wait", g.Hold)
	}
	renew(one, origin.Need{Leaving: true})
	if g := renew(two, all); g.Permits != 32 {
		t.Errorf("alone again: %+v, want all", g)
	}
}

// TestLeaseOver: a worker that cannot renew goes on until its lease is over, and then stops by itself.
func TestLeaseOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		share := &faulty{}
		l := alone(t, origin.Default(), origin.Deps{Share: share})
		s := &site{serve: func(time.Duration, int) answer { return answer{after: idle} }}
		s.visit(t, []*origin.Limiter{l}, 64, 10*time.Second)
		share.broken.Store(true)
		s.visit(t, []*origin.Limiter{l}, 64, 20*time.Second)
		if last := s.served[len(s.served)-1].at; last < 4*time.Second || last > 5*time.Second {
			t.Errorf("last request %v after the last renewal, want about 5 s", last)
		}
		share.broken.Store(false)
		time.Sleep(time.Second)
		if _, err := l.Acquire(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestHoldIsShared: what one worker was told, the others heed.
func TestHoldIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		share := &faulty{}
		told, other := alone(t, origin.Default(), origin.Deps{Share: share}), alone(t, origin.Default(), origin.Deps{Share: share})
		p, err := told.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p.Done(origin.Troubled, 30*time.Second)
		time.Sleep(time.Second)
		begun := time.Now()
		if _, err := other.Acquire(t.Context()); err != nil || time.Since(begun) < 28*time.Second {
			t.Errorf("%v after %v, want that it waits for half a minute", err, time.Since(begun))
		}
	})
}

// TestKilledWorker: what a worker held that was killed is free once its lease has ended, and not before.
func TestKilledWorker(t *testing.T) {
	client := redistest.Start(t).Client
	killed := origin.Shared{Queue: client, Keys: tasks.KeysOf("site"), Worker: "killed"}
	other := killed
	other.Worker = "other"
	const lease = 300 * time.Millisecond
	begun := time.Now()
	if g, err := killed.Renew(t.Context(), "site:80", origin.Need{Lease: lease, Most: 8, Want: 8, Rate: 10, Busy: 8}); err != nil || g.Permits != 8 {
		t.Fatalf("%+v, %v", g, err)
	}
	redistest.Eventually(t, "what the killed worker held", func() bool {
		g, err := other.Renew(t.Context(), "site:80", origin.Need{Lease: time.Minute, Most: 8, Want: 8, Rate: 10})
		if err != nil {
			t.Fatal(err)
		}
		if g.Permits > 0 && time.Since(begun) < lease {
			t.Fatalf("%d permits after %v, while the first still holds all", g.Permits, time.Since(begun))
		}
		return g.Permits == 8 && g.Rate == 10
	})
}
