package invalidation

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/alphanode/stoker/tasks"
)

// TestCheckOfManyIsTheSame: entries that are checked together, by what was invalidated since, get the
// verdicts that each gets alone, by a look at the log: whatever was invalidated and whenever the mark is.
func TestCheckOfManyIsTheSame(t *testing.T) {
	s := newSite(t, "r1")
	var entries []tasks.Tagged
	for i := range 120 {
		e := tasks.Tagged{Key: fmt.Sprint("post:", i)}
		for j := range i % 4 {
			e.Tags = append(e.Tags, fmt.Sprint("tag:", (i+j)%20))
		}
		entries = append(entries, e)
	}
	each := func(release string, m Mark) (alone []bool) {
		for _, e := range entries {
			one, err := s.log.Journal.Check(ctx, release, m, []tasks.Tagged{e})
			s.check(err)
			alone = append(alone, one...)
		}
		return alone
	}
	target := rapid.Custom(func(t *rapid.T) tasks.Target {
		n := rapid.IntRange(0, 130).Draw(t, "n")
		switch rapid.SampledFrom([]tasks.Kind{tasks.KindKey, tasks.KindTag, tasks.KindPrefix}).Draw(t, "kind") {
		case tasks.KindKey:
			return key(fmt.Sprint("post:", n))
		case tasks.KindTag:
			return tag(fmt.Sprint("tag:", n))
		}
		return prefix(fmt.Sprint("post:", n))
	})
	mixed := 0
	rapid.Check(t, func(r *rapid.T) {
		mark, err := s.log.Mark(ctx)
		s.check(err)
		mark.Number -= int64(rapid.SampledFrom([]int{0, 0, 1_000, 100_000}).Draw(r, "earlier, in µs"))
		for range rapid.IntRange(0, 3).Draw(r, "calls") {
			s.invalidate(rapid.SliceOfN(target, 1, 5).Draw(r, "targets")...)
		}
		release := rapid.SampledFrom([]string{"r1", "r1", "r1", "", "gone"}).Draw(r, "release")
		if rapid.IntRange(0, 9).Draw(r, "epoch") == 0 {
			mark.Epoch = "another"
		}
		together, err := s.log.Journal.Check(ctx, release, mark, entries)
		s.check(err)
		if alone := each(release, mark); !slices.Equal(together, alone) {
			r.Fatalf("together %v\nalone    %v", together, alone)
		}
		if slices.Contains(together, true) && slices.Contains(together, false) {
			mixed++
		}
	})
	if mixed < 20 {
		t.Errorf("only %d rounds had entries of both kinds", mixed)
	}
	// More than are told one by one.
	mark, err := s.log.Mark(ctx)
	s.check(err)
	var many []tasks.Target
	for i := range 1_500 {
		many = append(many, key(fmt.Sprint("post:", 2*i)))
	}
	s.invalidate(many...)
	together, err := s.log.Journal.Check(ctx, "r1", mark, entries)
	s.check(err)
	for i, stale := range together {
		if stale != (i%2 == 0) {
			t.Fatalf("%s: %v", entries[i].Key, stale)
		}
	}
}
