package governor

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/alphanode/stoker/tasks"
)

// serve lets a server that takes cost for an item work through n slices.
func serve(g *Governor, n, count int, cost time.Duration) (int, time.Duration) {
	var pause time.Duration
	for range n {
		count, pause = g.Next(time.Duration(count)*cost, count)
	}
	return count, pause
}

func TestSettlesOnTargetAndShare(t *testing.T) {
	for _, pace := range Paces() {
		for _, cost := range []time.Duration{2 * time.Microsecond, 10 * time.Microsecond, 40 * time.Microsecond} {
			g, r := New(pace), rules[pace]
			count, pause := serve(g, 50, Start, cost)
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
	g := New(Full)
	count, _ := serve(g, 50, Start, 2*time.Microsecond)
	if count != 1000 {
		t.Fatalf("settled on %d items, want 1000", count)
	}
	slow, _ := g.Next(20*time.Millisecond, count)
	if slow != 100 {
		t.Errorf("after a slice of ten times the target: %d items, want 100", slow)
	}
	fast, _ := g.Next(time.Microsecond, slow)
	if fast != 125 {
		t.Errorf("after a fast slice: %d items, want 125", fast)
	}
}

func TestFailuresBackOffUntilASuccess(t *testing.T) {
	g := New(Full)
	var last time.Duration
	for i, want := range []time.Duration{50, 100, 200, 400, 800, 1600, 3200, 5000, 5000} {
		var count int
		if count, last = g.Next(0, 0); last != want*time.Millisecond {
			t.Errorf("failure %d: pause %v, want %v", i+1, last, want*time.Millisecond)
		}
		if count > Start/2 {
			t.Errorf("failure %d: %d items", i+1, count)
		}
	}
	if _, pause := g.Next(time.Millisecond, MinCount); pause != 0 {
		t.Errorf("after a success: pause %v, want none", pause)
	}
}

func TestUnknownPace(t *testing.T) {
	if err := Pace("brisk").Validate(); !errors.Is(err, tasks.ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
	for _, p := range Paces() {
		if err := p.Validate(); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
	if *New("brisk") != *New(Normal) {
		t.Error("an unknown pace is not paced like normal")
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
	g := New(rapid.SampledFrom(Paces()).Draw(t, "pace"))
	for range rapid.IntRange(0, 20).Draw(t, "slices before") {
		g.Next(sample(t, "before"))
	}
	return g
}

func TestWithinBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		count, pause := drawn(t).Next(sample(t, "last"))
		if count < MinCount || count > MaxCount || pause < 0 || pause > MaxPause {
			t.Fatalf("%d items, pause %v", count, pause)
		}
	})
}

func TestSlowerNeverSpeedsUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawn(t)
		b := *a
		took, items := sample(t, "slice")
		slower := max(took, time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "slower took")))
		count, pause := a.Next(took, items)
		countSlower, pauseSlower := b.Next(slower, items)
		if countSlower > count || pauseSlower < pause {
			t.Fatalf("%v gave %d items and a pause of %v, but %v gave %d and %v", took, count, pause, slower, countSlower, pauseSlower)
		}
	})
}

func TestFailureNeverSpeedsUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := drawn(t)
		before := *g
		count, pause := g.Next(0, 0)
		if float64(count) > before.count || pause < before.failed || pause == 0 {
			t.Fatalf("a failure went from %v items to %d, pause %v", before.count, count, pause)
		}
	})
}

func TestRecovers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := drawn(t)
		cost := time.Duration(rapid.Int64Range(1000, 50_000).Draw(t, "cost"))
		count, _ := serve(g, 60, MinCount, cost)
		want := min(MaxCount, int(g.rule.target/cost))
		if count < want*9/10 || count > want {
			t.Fatalf("60 slices at %v an item later: %d items, want about %d", cost, count, want)
		}
	})
}
