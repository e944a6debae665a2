package governor

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/alphanode/stoker/tasks"
)

// seen returns readings of a server that is idle at 100 µs and has answered in those times.
func seen(trips ...time.Duration) *Readings {
	r := &Readings{}
	r.Idle(100 * time.Microsecond)
	for _, d := range trips {
		r.Trip(d, 0)
	}
	return r
}

func repeat(d time.Duration, n int) (all []time.Duration) {
	for range n {
		all = append(all, d)
	}
	return all
}

func TestBrakeOnLatency(t *testing.T) {
	for name, c := range map[string]struct {
		trips []time.Duration
		pace  tasks.Pace
		want  float64
	}{
		"nothing seen":              {nil, tasks.PaceNormal, 1},
		"too few to judge":          {repeat(time.Second, 3), tasks.PaceNormal, 1},
		"idle":                      {repeat(100*time.Microsecond, 16), tasks.PaceNormal, 1},
		"its own slices explain it": {repeat(400*time.Microsecond, 16), tasks.PaceNormal, 1},
		"twice what they explain":   {repeat(800*time.Microsecond, 16), tasks.PaceNormal, 2},
		"full explains more":        {repeat(1400*time.Microsecond, 16), tasks.PaceFull, 1},
		"full, twice its own":       {repeat(4400*time.Microsecond, 16), tasks.PaceFull, 2},
		"no answers":                {repeat(NoAnswer, 4), tasks.PaceGentle, mostBraked},
		"one outlier":               {append(repeat(100*time.Microsecond, 15), time.Second), tasks.PaceNormal, 1},
		"old ones are forgotten":    {append(repeat(time.Second, 100), repeat(100*time.Microsecond, 16)...), tasks.PaceNormal, 1},
	} {
		b := seen(c.trips...).Brake(c.pace, false)
		if b.Factor < c.want*0.99 || b.Factor > c.want*1.01 || (b.Why == Latency) != (c.want > 1) {
			t.Errorf("%s: %+v, want a factor of %v", name, b, c.want)
		}
	}
}

// TestOwnDelaysDoNotBrake: a process that its machine lets wait does not take that for the server's.
func TestOwnDelaysDoNotBrake(t *testing.T) {
	r := seen()
	for i := range window {
		late := time.Duration(i) * time.Millisecond
		r.Trip(100*time.Microsecond+time.Duration(window-i)*time.Millisecond, late) // as late, at other times
	}
	if b := r.Brake(tasks.PaceNormal, false); b.Factor > 3 {
		t.Errorf("braked by %+v", b)
	}
	for range window {
		r.Trip(20*time.Millisecond, time.Millisecond)
	}
	if b := r.Brake(tasks.PaceNormal, false); b.Factor != mostBraked {
		t.Errorf("a slow server, and a process that is late by less, is braked by %+v", b)
	}
}

func TestBrakeOnQueue(t *testing.T) {
	r := seen()
	for waiting, want := range map[int]float64{-1: 1, 0: 1, 50: 2, 100: 3, 1_000_000: mostBraked} {
		r.Waiting(waiting)
		b := r.Brake(tasks.PaceNormal, false)
		if b.Factor != want || (b.Why == Queue) != (want > 1) {
			t.Errorf("%d waiting: %+v, want a factor of %v", waiting, b, want)
		}
		if u := r.Brake(tasks.PaceFull, true); u.Factor != 1 || u.Why != "" {
			t.Errorf("%d waiting: urgent work is braked: %+v", waiting, u)
		}
	}
}

// TestTheHarderBrakeCounts: of two reasons the one that slows more is told.
func TestTheHarderBrakeCounts(t *testing.T) {
	r := seen(repeat(800*time.Microsecond, 16)...) // 2
	r.Waiting(100)                                 // 3
	if b := r.Brake(tasks.PaceNormal, false); b.Factor != 3 || b.Why != Queue {
		t.Errorf("got %+v", b)
	}
	r.Waiting(10) // 1.2
	if b := r.Brake(tasks.PaceNormal, false); b.Why != Latency {
		t.Errorf("got %+v", b)
	}
}

// TestWorseNeverSpeedsUp: with any of the samples slower, and more who wait, the brake is as hard at
// least, for every pace.
func TestWorseNeverSpeedsUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		idle := time.Duration(rapid.Int64Range(0, int64(10*time.Millisecond)).Draw(t, "idle"))
		var a, b Readings
		a.Idle(idle)
		b.Idle(idle)
		for range rapid.IntRange(0, 3*window).Draw(t, "trips") {
			trip := rapid.Int64Range(0, int64(50*time.Millisecond)).Draw(t, "trip")
			late := time.Duration(rapid.Int64Range(-int64(time.Millisecond), int64(20*time.Millisecond)).Draw(t, "late"))
			a.Trip(time.Duration(trip), late)
			if rapid.Bool().Draw(t, "lost") {
				b.Trip(NoAnswer, late)
			} else {
				b.Trip(time.Duration(trip+rapid.Int64Range(0, int64(50*time.Millisecond)).Draw(t, "slower by")), late)
			}
		}
		waiting := rapid.IntRange(-10, 2000).Draw(t, "waiting")
		a.Waiting(waiting)
		b.Waiting(waiting + rapid.IntRange(0, 2000).Draw(t, "more"))
		for _, p := range tasks.Paces() {
			for _, urgent := range []bool{false, true} {
				better, worse := a.Brake(p, urgent), b.Brake(p, urgent)
				if worse.Factor < better.Factor || better.Factor < 1 || worse.Factor > mostBraked {
					t.Fatalf("%s: %+v, and with worse samples %+v", p, better, worse)
				}
			}
		}
	})
}

// TestFullerNeverFits: what does not fit, or has no room, has none where more is in use, less is
// allowed, or more is kept free.
func TestFullerNeverFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(0, 1<<50)
		m := Memory{Used: size.Draw(t, "used"), Limit: rapid.Int64Range(1, 1<<50).Draw(t, "limit")}
		h := Headroom(rapid.Float64Range(0.001, 0.9).Draw(t, "headroom"))
		need := size.Draw(t, "need")
		fuller := Memory{m.Used + size.Draw(t, "more"), rapid.Int64Range(1, m.Limit).Draw(t, "limit of the fuller")}
		more := Headroom(rapid.Float64Range(float64(h), 0.9).Draw(t, "more headroom"))
		if h.Room(m) != nil && more.Room(fuller) == nil {
			t.Fatalf("no room at %+v, %v, yet some at %+v, %v", m, h, fuller, more)
		}
		if h.Fits(need, []Memory{m}) != nil && more.Fits(need, []Memory{fuller}) == nil {
			t.Fatalf("%d bytes do not fit %+v, %v, yet fit %+v, %v", need, m, h, fuller, more)
		}
		if h.Fits(need, []Memory{m}) != nil && h.Fits(2*need, []Memory{{Limit: 1 << 60}, m}) == nil {
			t.Fatalf("half of %d bytes does not fit %+v, yet it does on a Cluster", 2*need, m)
		}
	})
}

func TestRoom(t *testing.T) {
	full, half := Memory{Used: 95 << 20, Limit: 100 << 20}, Memory{Used: 50 << 20, Limit: 100 << 20}
	for name, c := range map[string]struct {
		h    Headroom
		m    Memory
		want string // "" for room
	}{
		"half full":    {0.1, half, ""},
		"full":         {0.1, full, "95 MiB of its 100 MiB in use, and work leaves 10% free"},
		"no limit":     {0.1, Memory{Used: 1 << 40}, ""},
		"not to look":  {0, full, ""},
		"over maximum": {0.5, Memory{Used: 200 << 20, Limit: 100 << 20}, "STOKER_MEMORY_HEADROOM"},
	} {
		err := c.h.Room(c.m)
		if (err == nil) != (c.want == "") || err != nil && (!errors.Is(err, tasks.ErrRefused) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if err := Headroom(0.1).Fits(40<<20, []Memory{half}); err != nil {
		t.Errorf("40 MiB into 40: %v", err)
	}
	err := Headroom(0.1).Fits(41<<20, []Memory{half})
	if !errors.Is(err, tasks.ErrRefused) || !strings.Contains(err.Error(), "about 41 MiB of memory, and the cache Redis has 40 MiB (maxmemory 100 MiB, 50 MiB in use, 10% kept free)") {
		t.Errorf("41 MiB into 40: %v", err)
	}
	if err := Headroom(0).Fits(1<<40, []Memory{half}); err != nil {
		t.Errorf("not to look: %v", err)
	}
	if err := Headroom(0.1).Fits(100<<20, []Memory{half, half, full}); !errors.Is(err, tasks.ErrRefused) {
		t.Errorf("a Cluster with one full primary: %v", err)
	}
}
