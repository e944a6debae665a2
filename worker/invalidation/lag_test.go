package invalidation

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

func TestLagOf(t *testing.T) {
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	call := func(ago, took time.Duration) tasks.Applied {
		return tasks.Applied{Recorded: noon.Add(-ago), At: noon.Add(-ago + took)}
	}
	var hundred []tasks.Applied
	for i := range 100 {
		hundred = append(hundred, call(time.Minute, time.Duration(100-i)*time.Millisecond))
	}
	for name, c := range map[string]struct {
		calls []tasks.Applied
		want  Lag
	}{
		"none":            {nil, Lag{}},
		"one":             {[]tasks.Applied{call(time.Second, time.Millisecond)}, Lag{Calls: 1, P50: time.Millisecond, P99: time.Millisecond, Max: time.Millisecond}},
		"hundred":         {hundred, Lag{Calls: 100, P50: 50 * time.Millisecond, P99: 99 * time.Millisecond, Max: 100 * time.Millisecond}},
		"old ones":        {[]tasks.Applied{call(LagWindow+time.Second, time.Hour)}, Lag{}},
		"a clock behind":  {[]tasks.Applied{call(time.Second, -time.Millisecond)}, Lag{Calls: 1}},
		"three, unsorted": {[]tasks.Applied{call(3, 30), call(2, 10), call(1, 20)}, Lag{Calls: 3, P50: 20, P99: 30, Max: 30}},
	} {
		if diff := cmp.Diff(c.want, LagOf(c.calls, noon.Add(-LagWindow))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestSlowestNamespace(t *testing.T) {
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	var calls []tasks.Applied
	for i := range 200 {
		took := map[string]time.Duration{"r1": time.Millisecond, "r2": 2 * time.Millisecond}
		if i == 7 {
			took["r1"] = time.Second // once: it is not r1 that is slow
		}
		calls = append(calls, tasks.Applied{Recorded: noon, At: noon, Took: took})
	}
	calls = append(calls, tasks.Applied{Recorded: noon.Add(-time.Hour), Took: map[string]time.Duration{"r0": time.Hour}})
	want := []NamespaceLag{{"r2", 2 * time.Millisecond, 2 * time.Millisecond}, {"r1", time.Millisecond, time.Second}}
	if diff := cmp.Diff(want, LagOf(calls, noon.Add(-LagWindow)).Namespaces); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestLagOfTheLog(t *testing.T) {
	s := newSite(t, "r1", "r2")
	s.invalidate(key("a"))
	s.invalidate(tag("b"))
	got, err := s.log.Lag(ctx)
	s.check(err)
	if got.Calls != 2 || got.Max <= 0 || got.P50 > got.Max || len(got.Namespaces) != 2 || got.Namespaces[0].Max <= 0 {
		t.Errorf("%+v after two invalidations", got)
	}
}

// TestOriginLag: whoever reads the origin, or a cache that was filled from it, has a mark that
// lies as far back as the origin may lag; a restore has the mark of what it restores.
func TestOriginLag(t *testing.T) {
	const lag, fill = 5 * time.Minute, 30 * time.Second
	rdb := redistest.Start(t).Client
	s := siteOn(t, rdb, "r1", "r2")
	s.log = Open(rdb, keys, Config{OriginLag: lag, FillLimit: fill})
	// The log is old enough for marks to go back in it.
	now := rdb.Time(ctx).Val()
	s.check(rdb.HSet(ctx, keys.LogMeta(), "epoch", "e", "floor", now.Add(-time.Hour).UnixMicro(), "last", now.Add(-time.Hour).UnixMicro()).Err())
	at := Mark{Number: now.Add(-time.Minute).UnixMicro(), Epoch: "e"}

	marks := map[string]struct {
		back time.Duration
		take func(writer string) (Mark, error)
	}{
		"a client's fill":     {lag, func(string) (Mark, error) { return s.log.Mark(ctx) }},
		"a warm":              {lag, func(w string) (Mark, error) { return s.log.OpenMark(ctx, "r1", w) }},
		"a carry":             {lag + fill, func(w string) (Mark, error) { return s.log.OpenMarkFrom(ctx, "r1", w, "r2") }},
		"a snapshot":          {lag + fill, func(w string) (Mark, error) { return s.log.OpenReader(ctx, "r2", w) }},
		"another fill's mark": {lag, func(string) (Mark, error) { return tasks.NewJournal(rdb, keys, lag, 0).Mark(ctx) }},
	}
	n := 0
	for _, pending := range []bool{false, true} {
		top := func() int64 { return rdb.Time(ctx).Val().UnixMicro() }
		if pending {
			number := s.record(key("a"))
			top = func() int64 { return number - 1 }
		}
		for name, m := range marks {
			n++
			least := top()
			got, err := m.take(fmt.Sprint("w", n))
			s.check(err)
			if most := top(); got.Number < least-m.back.Microseconds()-1 || got.Number > most-m.back.Microseconds() {
				t.Errorf("%s, pending %v: mark %d is not %v below %d to %d", name, pending, got.Number, m.back, least, most)
			}
			for _, r := range []string{"r1", "r2"} {
				s.check(s.log.CloseMark(ctx, r, fmt.Sprint("w", n)))
			}
		}
	}
	s.check(s.log.OpenMarkAt(ctx, "r1", "restore", at))
	if open, err := s.log.OpenMarks(ctx, "r1"); err != nil || open["restore"] != at {
		t.Errorf("a restore's mark is %v, %v, want its snapshot's, %v", open["restore"], err, at)
	}

	// What it is for: a value that a lagging replica still shows after the edit was announced.
	_, err := s.apply.Sweep(ctx, 0)
	s.check(err)
	s.invalidate(tag("post:1"))
	late, err := s.log.Mark(ctx) // long after the invalidation, the replica may still be behind
	s.check(err)
	stale, err := s.log.Check(ctx, late, []tasks.Tagged{{Key: "page:/1", Tags: []string{"post:1"}}, {Key: "page:/2"}})
	s.check(err)
	if !stale[0] || stale[1] {
		t.Errorf("checked against the log: %v, want the first overtaken only", stale)
	}
}
