package invalidation

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

// applied returns what became of the call with that number.
func (s *site) applied(number int64) tasks.Applied {
	s.Helper()
	a, pending, err := tasks.ReadApplied(ctx, s.log.queue, keys, number)
	s.check(err)
	if pending {
		s.Fatalf("%d is pending", number)
	}
	return a
}

func TestApplyRemovesFromEveryLiveNamespace(t *testing.T) {
	removesFromEveryLiveNamespace(newSite(t, "r1", "r2"))
}

func removesFromEveryLiveNamespace(s *site) {
	s.Helper()
	odd := "a\x00 *[b]\xff"
	for _, release := range []string{"r1", "r2", "r10", "gone"} {
		s.put(release, "post:1")
		s.put(release, odd)
		s.put(release, "page:/a", "author:ann")
		s.put(release, "page:/b", "author:ann", "author:bob")
		s.put(release, "nav:top")
		s.put(release, "navigation")
	}
	n := s.record(key("post:1"), key(odd), tag("author:ann"), prefix("nav:"))
	if applied, err := s.apply.Apply(ctx); err != nil || applied != 0 || s.has("r1", "page:/a") || !s.has("r1", "nav:top") {
		s.Errorf("%d, %v: want everything gone but the prefix, which is for the bulk lane", applied, err)
	}
	if applied, err := s.apply.ApplyBulk(ctx); err != nil || applied != 1 {
		s.Errorf("the bulk lane applied %d, %v, want 1", applied, err)
	}
	got := s.applied(n)
	if got.Namespaces["r1"] != 5 || got.Namespaces["r2"] != 5 || len(got.Namespaces) != 2 {
		s.Errorf("removed %v, want 5 entries in r1 and in r2", got.Namespaces)
	}
	for _, release := range []string{"r1", "r2"} {
		for _, k := range []string{"post:1", odd, "page:/a", "page:/b", "nav:top"} {
			if s.has(release, k) {
				s.Errorf("%s still has %q", release, k)
			}
		}
		if !s.has(release, "navigation") {
			s.Errorf("%s lost a neighbour of the prefix", release)
		}
	}
	for _, release := range []string{"r10", "gone"} {
		if !s.has(release, "post:1") || !s.has(release, "page:/a") || !s.has(release, "nav:top") {
			s.Errorf("%s, which is not live, was touched", release)
		}
	}
	if again, err := s.apply.Apply(ctx); err != nil || again != 0 {
		s.Errorf("applied %d again, %v", again, err)
	}
}

// TestEachCallHasItsOwnOutcome: calls that share a record have numbers, figures and authors of
// their own.
func TestEachCallHasItsOwnOutcome(t *testing.T) {
	s := newSite(t, "r1", "r2")
	bob := tasks.By{Actor: "bob", Reason: "typo"}
	for _, k := range []string{"a", "b", "c"} {
		s.put("r1", k, "all")
	}
	s.put("r2", "b")
	first, err := s.log.Record(ctx, tasks.Record{ID: "one", Calls: []tasks.Invalidation{
		{Targets: []tasks.Target{key("a")}, By: ann},
		{Targets: []tasks.Target{key("b"), key("missing")}, By: bob},
		{Targets: []tasks.Target{key("a"), tag("all")}, By: ann},
	}})
	s.check(err)
	if next := s.record(key("z")); next < first+3 {
		t.Errorf("the record after three calls from %d is %d", first, next)
	}
	for i := range int64(3) {
		if _, pending, err := tasks.ReadApplied(ctx, s.rdb, keys, first+i); err != nil || !pending {
			t.Errorf("call %d before it is applied: pending %v, %v", i, pending, err)
		}
	}
	if n, err := s.apply.Apply(ctx); err != nil || n != 2 {
		t.Fatalf("applied %d records, %v, want 2", n, err)
	}
	for i, want := range []tasks.Applied{
		{Targets: 1, Namespaces: map[string]int64{"r1": 1, "r2": 0}, By: ann},
		{Targets: 2, Namespaces: map[string]int64{"r1": 1, "r2": 1}, By: bob},
		{Targets: 2, Namespaces: map[string]int64{"r1": 1, "r2": 0}, By: ann}, // c by its tag; a counts for the first
	} {
		got := s.applied(first + int64(i))
		if got.Number != first+int64(i) || got.Targets != want.Targets || got.By != want.By || !cmp.Equal(got.Namespaces, want.Namespaces) || len(got.Took) != 2 || len(got.Sample) != want.Targets {
			t.Errorf("call %d: got %+v, want %+v", i, got, want)
		}
	}
	if _, _, err := tasks.ReadApplied(ctx, s.rdb, keys, first+1_000_000); !errors.Is(err, tasks.ErrNotFound) {
		t.Errorf("a number never given: %v", err)
	}
	list, err := tasks.ListApplied(ctx, s.rdb, keys, 3)
	s.check(err)
	if len(list) != 3 || list[1].Number != first+2 || list[2].By != bob {
		t.Errorf("the last three calls are %+v", list)
	}
}

// TestOutcomesAreBounded: the oldest ones are forgotten, whole records at a time.
func TestOutcomesAreBounded(t *testing.T) {
	s := newSite(t, "r1")
	const calls = 500
	var first, last int64
	for i := range keptOutcomes/calls + 2 {
		r := tasks.Record{ID: strconv.Itoa(i)}
		for range calls {
			r.Calls = append(r.Calls, tasks.Invalidation{Targets: []tasks.Target{key("a")}, By: ann})
		}
		n, err := s.log.Record(ctx, r)
		s.check(err)
		if i == 0 {
			first = n
		}
		last = n
		_, err = s.apply.Apply(ctx)
		s.check(err)
	}
	if _, _, err := tasks.ReadApplied(ctx, s.rdb, keys, first); !errors.Is(err, tasks.ErrNotFound) {
		t.Errorf("the first record's outcome is kept: %v", err)
	}
	s.applied(last + calls - 1)
	if n := s.rdb.ZCard(ctx, keys.Applied()).Val(); n != keptOutcomes/calls {
		t.Errorf("%d records' outcomes are kept, want %d", n, keptOutcomes/calls)
	}
}

// TestClaims: what one worker has claimed, another leaves alone until the claim ends.
func TestClaims(t *testing.T) {
	s := newSite(t, "r1")
	s.put("r1", "a")
	n := s.record(key("a"))
	dead := NewApplier(s.log, s.rdb, s.tmpl, nil, nil) // claims, and applies nothing
	dead.Claim = time.Hour
	if got, err := dead.claim(ctx, 10, false); err != nil || len(got) != 1 || got[0].number != n {
		t.Fatalf("claimed %v, %v", got, err)
	}
	if applied, err := s.apply.Apply(ctx); err != nil || applied != 0 || !s.has("r1", "a") {
		t.Errorf("applied %d claimed records, %v", applied, err)
	}
	s.check(s.rdb.ZAdd(ctx, keys.Claims(), redis.Z{Score: 1, Member: strconv.FormatInt(n, 10)}).Err()) // time passes
	if applied, err := s.apply.Apply(ctx); err != nil || applied != 1 || s.has("r1", "a") {
		t.Errorf("applied %d after the claim's end, %v", applied, err)
	}
	if left := s.rdb.Exists(ctx, keys.Claims(), keys.Bulk(), keys.Pending()).Val(); left != 0 {
		t.Errorf("%d keys of claims and pending records are left", left)
	}
}

// TestLongWorkDoesNotHoldUpShort: a prefix, and a tag of very many entries, are left to the bulk
// lane; what was removed before is in the outcome, and a claim on them is held.
func TestLongWorkDoesNotHoldUpShort(t *testing.T) {
	s := newSite(t, "r1")
	const members = (tagSlices + 2) * slice
	pipe := s.rdb.Pipeline()
	for i := range members {
		k := fmt.Sprint("page:", i)
		pipe.Set(ctx, s.tmpl.Key("r1", k), "v", 0)
		pipe.ZAdd(ctx, s.tmpl.Key("r1", tasks.TagIndex("big")), redis.Z{Score: 1e18, Member: k})
	}
	_, err := pipe.Exec(ctx)
	s.check(err)
	s.put("r1", "quick")
	var handed []tasks.InvalidateBulk
	s.apply.Enqueue = func(_ context.Context, p tasks.InvalidateBulk) error { handed = append(handed, p); return nil }
	big := s.record(key("other"), tag("big"))
	quick := s.record(key("quick"))
	if n, err := s.apply.Apply(ctx); err != nil || n != 1 || s.has("r1", "quick") {
		t.Fatalf("applied %d, %v, want the quick one", n, err)
	}
	if got := s.applied(quick); got.Namespaces["r1"] != 1 {
		t.Errorf("quick: %+v", got)
	}
	if len(handed) != 1 || handed[0].Number != big || handed[0].Targets != 2 {
		t.Errorf("handed to the bulk lane: %+v", handed)
	}
	if n, err := s.apply.Apply(ctx); err != nil || n != 0 || len(handed) != 1 {
		t.Errorf("the next round applied %d, %v, handed %d", n, err, len(handed))
	}
	if n, err := s.apply.ApplyBulk(ctx); err != nil || n != 1 {
		t.Fatalf("bulk: %d, %v", n, err)
	}
	if got := s.applied(big); got.Namespaces["r1"] != members {
		t.Errorf("removed %v, want %d: what the first round took counts", got.Namespaces, members)
	}
}

// A record of a newer version is left for a worker that reads it, is not held up by a claim, and is told of once.
func TestANewerRecordIsLeft(t *testing.T) {
	s := siteOn(t, redistest.Start(t).Client, "r1")
	s.put("r1", "a")
	var told []error
	s.apply.Left = func(err error) { told = append(told, err) }
	s.check(s.rdb.ZAdd(ctx, keys.Pending(), redis.Z{Score: 1, Member: `{"v":2,"id":"X"}`}).Err())
	s.record(key("a"))
	if n, err := s.apply.Apply(ctx); err != nil || n != 1 || s.has("r1", "a") {
		t.Errorf("applied %d, %v, want the one that it reads", n, err)
	}
	if n, err := s.apply.ApplyBulk(ctx); err != nil || n != 0 {
		t.Errorf("in bulk: %d, %v", n, err)
	}
	if len(told) != 1 || !errors.Is(told[0], tasks.ErrNewer) || !strings.Contains(told[0].Error(), "version 2") {
		t.Errorf("told %v", told)
	}
	if n := s.rdb.ZCard(ctx, keys.Claims()).Val(); n != 0 {
		t.Errorf("%d claims are held", n)
	}
	// Whoever must know that nothing is pending does not know.
	if _, err := s.apply.Sweep(ctx, 0); !errors.Is(err, tasks.ErrNewer) {
		t.Errorf("sweep: %v", err)
	}
	if list, err := s.log.Pending(ctx, 10); err != nil || len(list) != 1 || list[0].Number != 1 {
		t.Errorf("pending: %+v, %v", list, err)
	}
	// A log of a newer version proves nothing fresh.
	s.check(s.rdb.HSet(ctx, keys.LogMeta(), "version", 2).Err())
	if _, err := s.log.Status(ctx); !errors.Is(err, tasks.ErrNewer) {
		t.Errorf("status: %v", err)
	}
	if err := s.log.Fresh(ctx, Mark{Number: 1, Epoch: "E"}); !errors.Is(err, tasks.ErrNewer) {
		t.Errorf("fresh: %v", err)
	}
}

// TestARecordThatCannotBeRead does not keep the others from being applied.
func TestARecordThatCannotBeRead(t *testing.T) {
	s := siteOn(t, redistest.Start(t).Client, "r1")
	s.put("r1", "a")
	s.check(s.rdb.ZAdd(ctx, keys.Pending(), redis.Z{Score: 1, Member: `{"v":1,"calls":7}`}).Err())
	s.record(key("a"))
	if n, err := s.apply.Apply(ctx); !errors.Is(err, tasks.ErrInvalid) || n != 1 || s.has("r1", "a") {
		t.Errorf("applied %d, %v, want one and an error", n, err)
	}
	if left := s.rdb.ZCard(ctx, keys.Pending()).Val(); left != 1 {
		t.Errorf("%d are pending, want the unreadable one", left)
	}
}
