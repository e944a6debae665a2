package governor

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/alphanode/stoker/tasks"
)

// off is the brake of a server that nothing troubles.
var off = Brake{Factor: 1}

// serve lets a server that takes cost for an item work through n slices.
func serve(g *Governor, n, count int, cost time.Duration, b Brake) (int, time.Duration) {
	var pause time.Duration
	for range n {
		count, pause = g.Next(time.Duration(count)*cost, count, b)
	}
	return count, pause
}

func TestSettlesOnTargetAndShare(t *testing.T) {
	for _, pace := range tasks.Paces() {
		for _, cost := range []time.Duration{2 * time.Microsecond, 10 * time.Microsecond, 40 * time.Microsecond} {
			g, r := New(pace), rules[pace]
			count, pause := serve(g, 50, Start, cost, off)
			took := time.Duration(count) * cost
			if took < r.target*9/10 || took > r.target {
				t.Errorf("%s, %v an item: a slice takes %v, want about %v", pace, cost, took, r.target)
			}
			if duty := float64(took) / float64(took+pause); duty < r.duty*0.95 || duty > r.duty*1.05 {
				t.Errorf("%s, %v an item: busy for %.2f of the time, want %.2f", pace, cost, duty, r.duty)
			}
		}
	}
}

func TestShrinksAtOnceGrowsSlowly(t *testing.T) {
	g := New(tasks.PaceFull)
	count, _ := serve(g, 50, Start, 2*time.Microsecond, off)
	if count != 1000 {
		t.Fatalf("settled on %d items, want 1000", count)
	}
	slow, _ := g.Next(20*time.Millisecond, count, off)
	if slow != 100 {
		t.Errorf("after a slice of ten times the target: %d items, want 100", slow)
	}
	fast, _ := g.Next(time.Microsecond, slow, off)
	if fast != 125 {
		t.Errorf("after a fast slice: %d items, want 125", fast)
	}
}

func TestFailuresBackOffUntilASuccess(t *testing.T) {
	g := New(tasks.PaceFull)
	var last time.Duration
	for i, want := range []time.Duration{50, 100, 200, 400, 800, 1600, 3200, 5000, 5000} {
		var count int
		if count, last = g.Next(0, 0, off); last != want*time.Millisecond {
			t.Errorf("failure %d: pause %v, want %v", i+1, last, want*time.Millisecond)
		}
		if count > Start/2 {
			t.Errorf("failure %d: %d items", i+1, count)
		}
	}
	if _, pause := g.Next(time.Millisecond, MinCount, off); pause != 0 {
		t.Errorf("after a success: pause %v, want none", pause)
	}
}

func TestUnknownPaceIsNormal(t *testing.T) {
	if *New("brisk") != *New(tasks.PaceNormal) {
		t.Error("an unknown pace is not paced like normal")
	}
}

// TestBrakeTakesItsShare: work under a brake of 4 has slices of a quarter and a quarter of the time.
func TestBrakeTakesItsShare(t *testing.T) {
	for _, pace := range tasks.Paces() {
		g, r := New(pace), rules[pace]
		serve(g, 50, Start, 2*time.Microsecond, off)
		count, pause := serve(g, 50, g.Count(), 2*time.Microsecond, Brake{4, Latency})
		took := time.Duration(count) * 2 * time.Microsecond
		if took > r.target/4 || took < r.target/5 {
			t.Errorf("%s: a slice takes %v, want a quarter of %v", pace, took, r.target)
		}
		if duty := float64(took) / float64(took+pause); duty < r.duty/4*0.95 || duty > r.duty/4*1.05 {
			t.Errorf("%s: busy for %.3f of the time, want %.3f", pace, duty, r.duty/4)
		}
		if count, _ := serve(g, 60, count, 2*time.Microsecond, off); time.Duration(count)*2*time.Microsecond < r.target*9/10 {
			t.Errorf("%s: %d items after the brake was off for 60 slices", pace, count)
		}
	}
}

// sample draws what a slice may report, absurd values included.
func sample(t *rapid.T, label string) (time.Duration, int) {
	took := rapid.OneOf(rapid.Int64Range(0, int64(10*time.Millisecond)), rapid.Int64()).Draw(t, label+" took")
	items := rapid.OneOf(rapid.IntRange(-1, 2*MaxCount), rapid.Int()).Draw(t, label+" items")
	return time.Duration(took), items
}

// drawn returns a governor that has been through anything.
func drawn(t *rapid.T) *Governor {
	g := New(rapid.SampledFrom(tasks.Paces()).Draw(t, "pace"))
	for range rapid.IntRange(0, 20).Draw(t, "slices before") {
		took, items := sample(t, "before")
		g.Next(took, items, anyBrake(t))
	}
	return g
}

// anyBrake draws a brake, absurd ones included.
func anyBrake(t *rapid.T) Brake {
	return Brake{Factor: rapid.OneOf(rapid.Float64Range(0, 20), rapid.Float64(), rapid.Just(math.NaN())).Draw(t, "brake")}
}

func TestWithinBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		took, items := sample(t, "last")
		count, pause := drawn(t).Next(took, items, anyBrake(t))
		if count < MinCount || count > MaxCount || pause < 0 || pause > MaxPause {
			t.Fatalf("%d items, pause %v", count, pause)
		}
	})
}

// TestSlowerNeverSpeedsUp: a slice that took longer, under a harder brake, is followed by one that is
// no larger and after no shorter a pause.
func TestSlowerNeverSpeedsUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawn(t)
		b := *a
		took, items := sample(t, "slice")
		slower := max(took, time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "slower took")))
		brake := rapid.Float64Range(1, 20).Draw(t, "brake")
		harder := brake * rapid.Float64Range(1, 20).Draw(t, "harder by")
		count, pause := a.Next(took, items, Brake{Factor: brake})
		countSlower, pauseSlower := b.Next(slower, items, Brake{Factor: harder})
		if countSlower > count || pauseSlower < pause {
			t.Fatalf("%v under %v gave %d items and a pause of %v, but %v under %v gave %d and %v", took, brake, count, pause, slower, harder, countSlower, pauseSlower)
		}
	})
}

func TestFailureNeverSpeedsUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := drawn(t)
		before := *g
		count, pause := g.Next(0, 0, off)
		if float64(count) > before.count || pause < before.failed || pause == 0 {
			t.Fatalf("a failure went from %v items to %d, pause %v", before.count, count, pause)
		}
	})
}

func TestRecovers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := drawn(t)
		cost := time.Duration(rapid.Int64Range(1000, 50_000).Draw(t, "cost"))
		count, _ := serve(g, 60, MinCount, cost, off)
		want := min(MaxCount, max(MinCount, int(g.rule.target/cost)))
		if count < want*9/10 || count > want {
			t.Fatalf("60 slices at %v an item later: %d items, want about %d", cost, count, want)
		}
	})
}
