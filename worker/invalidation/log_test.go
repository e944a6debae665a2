package invalidation

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

var (
	ctx  = context.Background()
	keys = tasks.KeysOf("site")
)

// site is a log, its applier and two live releases, over one Redis.
type site struct {
	*testing.T
	rdb   redis.UniversalClient
	log   *Log
	apply *Applier
	tmpl  tasks.Template
}

func newSite(t *testing.T, live ...string) *site {
	t.Helper()
	return siteOn(t, redistest.Start(t).Client, live...)
}

func siteOn(t *testing.T, rdb redis.UniversalClient, live ...string) *site {
	t.Helper()
	tmpl, err := tasks.ParseTemplate(tasks.DefaultTemplate, "site")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{T: t, rdb: rdb, tmpl: tmpl, log: Open(rdb, keys, Config{FillLimit: 30 * time.Second})}
	for _, id := range live {
		s.check(rdb.SAdd(ctx, keys.Live(), id).Err())
	}
	s.apply = NewApplier(s.log, rdb, tmpl, func(ctx context.Context) ([]string, error) {
		return rdb.SMembers(ctx, keys.Live()).Result()
	}, unlinker{rdb, tmpl})
	return s
}

// unlinker is the plainest Unlinker there is; package namespace has the real one.
type unlinker struct {
	rdb  redis.UniversalClient
	tmpl tasks.Template
}

func (u unlinker) Unlink(ctx context.Context, release, prefix string) (n int64, err error) {
	all, err := tasks.Primaries(ctx, u.rdb)
	for _, server := range all {
		it := server.Scan(ctx, 0, u.tmpl.Match(release, prefix), 1000).Iterator()
		for it.Next(ctx) {
			n += u.rdb.Unlink(ctx, it.Val()).Val()
		}
		err = errors.Join(err, it.Err())
	}
	return n, err
}

func (s *site) check(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *site) put(release, key string, tags ...string) {
	s.Helper()
	for _, tag := range tags {
		s.check(s.rdb.ZAdd(ctx, s.tmpl.Key(release, tasks.TagIndex(tag)), redis.Z{Score: 1e18, Member: key}).Err())
	}
	s.check(s.rdb.Set(ctx, s.tmpl.Key(release, key), "v", 0).Err())
}

func (s *site) has(release, key string) bool {
	return s.rdb.Exists(ctx, s.tmpl.Key(release, key)).Val() == 1
}

var (
	unique int
	ann    = tasks.By{Actor: "ann"}
)

func (s *site) record(targets ...tasks.Target) int64 {
	s.Helper()
	unique++
	n, err := s.log.Record(ctx, tasks.Record{ID: strconv.Itoa(unique), Calls: []tasks.Invalidation{{Targets: targets, By: ann}}})
	s.check(err)
	return n
}

func (s *site) invalidate(targets ...tasks.Target) {
	s.Helper()
	s.record(targets...)
	_, err := s.apply.Sweep(ctx, 0)
	s.check(err)
}

func key(name string) tasks.Target { return tasks.Target{Kind: tasks.KindKey, Name: tasks.Bytes(name)} }
func tag(name string) tasks.Target { return tasks.Target{Kind: tasks.KindTag, Name: tasks.Bytes(name)} }
func prefix(name string) tasks.Target {
	return tasks.Target{Kind: tasks.KindPrefix, Name: tasks.Bytes(name)}
}

func TestLargeTagsLeaveInSlices(t *testing.T) {
	s := newSite(t, "r1")
	const n = 3*slice + 7
	for i := range n {
		s.put("r1", fmt.Sprint("page:", i), "big")
	}
	s.invalidate(tag("big"))
	if left := s.rdb.DBSize(ctx).Val(); s.has("r1", "page:0") || s.rdb.ZCount(ctx, s.tmpl.Key("r1", "#tag:big"), "0", "+inf").Val() != 0 {
		t.Errorf("%d keys left", left)
	}
}

func TestMarkLiesBelowEveryPendingNumber(t *testing.T) {
	s := newSite(t, "r1")
	first := s.record(key("a"))
	s.record(key("b"))
	m, err := s.log.Mark(ctx)
	s.check(err)
	if m.Number != first-1 {
		t.Errorf("mark %d with %d pending, want %d", m.Number, first, first-1)
	}
	if _, err := s.apply.Sweep(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if m, err = s.log.Mark(ctx); err != nil || m.Number <= first {
		t.Errorf("mark %d with nothing pending, %v, want above %d", m.Number, err, first)
	}
}

func TestSweepTakesWhatIsOldEnough(t *testing.T) {
	s := newSite(t, "r1")
	s.put("r1", "a")
	s.record(key("a"))
	if n, err := s.apply.Sweep(ctx, time.Hour); err != nil || n != 0 || !s.has("r1", "a") {
		t.Errorf("swept %d young records, %v", n, err)
	}
	if n, err := s.apply.Sweep(ctx, 0); err != nil || n != 1 || s.has("r1", "a") {
		t.Errorf("swept %d records, %v, want 1", n, err)
	}
}

func TestOpenMarks(t *testing.T) {
	s := newSite(t, "r1")
	first, err := s.log.OpenMark(ctx, "r1", "w")
	s.check(err)
	s.invalidate(key("a"))
	again, err := s.log.OpenMark(ctx, "r1", "w")
	s.check(err)
	if again != first {
		t.Errorf("a retry got mark %v, want its first one %v", again, first)
	}
	s.check(s.log.CloseMark(ctx, "r1", "w"))
	s.check(s.log.CloseMark(ctx, "r1", "w"))
	if marks, err := s.log.OpenMarks(ctx, "r1"); err != nil || len(marks) != 0 {
		t.Errorf("open marks %v, %v, want none", marks, err)
	}
	if _, err := s.log.OpenMark(ctx, "archived", "w"); !errors.Is(err, tasks.ErrRefused) {
		t.Errorf("a mark for a release that is not live: got %v, want ErrRefused", err)
	}
}

// Whoever reads from a cache goes back below the open marks of its writers: what they put is
// suspect until they have checked it.
func TestMarksForReadingACacheGoBackFurther(t *testing.T) {
	s := newSite(t, "r1", "r2")
	s.log.cfg.FillLimit = time.Millisecond
	writer, err := s.log.OpenMark(ctx, "r1", "warm")
	s.check(err)
	// A log younger than the fill limit has nothing below its floor.
	redistest.Eventually(t, "the log to be older than the fill limit", func() bool {
		st, err := s.log.Status(ctx)
		return err == nil && st.Now-writer.Number > 2000
	})
	s.invalidate(key("a"))
	s.check(s.log.CloseMark(ctx, "r1", "warm"))
	writer2, err := s.log.OpenMark(ctx, "r1", "warm")
	s.check(err)
	s.invalidate(key("a"))
	for name, open := range map[string]func() (Mark, error){
		"a carry":    func() (Mark, error) { return s.log.OpenMarkFrom(ctx, "r2", "carry", "r1") },
		"a snapshot": func() (Mark, error) { return s.log.OpenReader(ctx, "r1", "snapshot") },
	} {
		m, err := open()
		s.check(err)
		if want := writer2.Number - s.log.cfg.FillLimit.Microseconds(); m.Number > want {
			t.Errorf("%s: mark %d, want at most %d: the writer's, less the fill limit", name, m.Number, want)
		}
	}
}

func TestCheck(t *testing.T) {
	s := newSite(t, "r1")
	m, err := s.log.Mark(ctx)
	s.check(err)
	s.invalidate(key("a"), tag("t"), prefix("p:"))
	entries := []tasks.Tagged{{Key: "a"}, {Key: "b"}, {Key: "c", Tags: []string{"x", "t"}}, {Key: "p:1"}, {Key: "p"}, {Key: "t"}}
	got, err := s.log.Check(ctx, m, entries)
	s.check(err)
	if want := "[true false true true false false]"; fmt.Sprint(got) != want {
		t.Errorf("stale %v, want %s", got, want)
	}
	later, err := s.log.Mark(ctx)
	s.check(err)
	if got, err = s.log.Check(ctx, later, entries); err != nil || fmt.Sprint(got) != "[false false false false false false]" {
		t.Errorf("after a later mark: stale %v, %v", got, err)
	}
	if got, err = s.log.Check(ctx, Mark{Number: later.Number, Epoch: "another log"}, entries[:2]); err != nil || fmt.Sprint(got) != "[true true]" {
		t.Errorf("with a mark of another log: stale %v, %v, want all", got, err)
	}
}

func TestReplayAppliesWhatCameAfterTheMark(t *testing.T) {
	s := newSite(t, "r1")
	s.invalidate(key("before"))
	m, err := s.log.Mark(ctx)
	s.check(err)
	var targets []tasks.Target
	for i := range 2*slice + 3 { // one number, over several pages
		targets = append(targets, key(fmt.Sprint("k", i)))
	}
	s.invalidate(targets...)
	s.invalidate(tag("t"), prefix("nav:"))
	// The namespace fills late, with values read before all that.
	for _, k := range []string{"before", "k0", fmt.Sprint("k", 2*slice+2), "nav:top", "other"} {
		s.put("r1", k)
	}
	s.put("r1", "page", "t")
	got, err := s.apply.Replay(ctx, "r1", m)
	s.check(err)
	for k, want := range map[string]bool{"before": true, "k0": false, fmt.Sprint("k", 2*slice+2): false, "nav:top": false, "page": false, "other": true} {
		if s.has("r1", k) != want {
			t.Errorf("%q present: %v, want %v", k, !want, want)
		}
	}
	if got.Targets != int64(len(targets)+2) || got.Removed != 4 {
		t.Errorf("replayed %+v, want %d targets, 4 removed", got, len(targets)+2)
	}
}

func TestFreshRefusesALostLog(t *testing.T) {
	s := newSite(t, "r1")
	m, err := s.log.Mark(ctx)
	s.check(err)
	s.check(s.log.Fresh(ctx, m))
	for name, spoil := range map[string]func(){
		"flushed":   func() { s.rdb.FlushAll(ctx); s.record(key("a")) },
		"trimmed":   func() { s.rdb.HSet(ctx, keys.LogMeta(), "floor", m.Number+1) },
		"gone back": func() { m.Number += time.Hour.Microseconds() },
	} {
		t.Run(name, func(t *testing.T) {
			spoil()
			if err := s.log.Fresh(ctx, m); !errors.Is(err, tasks.ErrNotFresh) {
				t.Errorf("got %v, want ErrNotFresh", err)
			}
			s.rdb.SAdd(ctx, keys.Live(), "r1")
			if _, err := s.apply.Replay(ctx, "r1", m); !errors.Is(err, tasks.ErrNotFresh) {
				t.Errorf("replay: got %v, want ErrNotFresh", err)
			}
			m, _ = s.log.Mark(ctx)
		})
	}
}

func TestTrimStopsAtWhoeverNeedsTheLog(t *testing.T) {
	s := newSite(t, "r1")
	now := s.rdb.Time(ctx).Val()
	ago := func(d time.Duration) int64 { return now.Add(-d).UnixMicro() }
	fill := func() {
		s.rdb.FlushDB(ctx)
		s.rdb.SAdd(ctx, keys.Live(), "r1")
		s.rdb.HSet(ctx, keys.LogMeta(), "epoch", "e", "floor", ago(200*time.Hour), "last", ago(0))
		for h := range 100 {
			s.rdb.ZAdd(ctx, keys.Log(), redis.Z{Score: float64(ago(time.Duration(h) * time.Hour)), Member: fmt.Sprint("k:", h)})
		}
	}
	none := func(context.Context) ([]int64, error) { return nil, nil }
	for _, c := range []struct {
		name string
		need func()
		keep func(context.Context) ([]int64, error)
		want int64 // targets left
	}{
		{"nobody", func() {}, none, 1},
		{"a snapshot", func() {}, func(context.Context) ([]int64, error) { return []int64{ago(50*time.Hour + time.Minute)}, nil }, 51},
		{"an open writer", func() {
			s.rdb.ZAdd(ctx, keys.Marks("r1"), redis.Z{Score: float64(ago(30*time.Hour + time.Minute)), Member: "w"})
		}, none, 31},
		{"an open reader", func() {
			s.rdb.ZAdd(ctx, keys.Readers(), redis.Z{Score: float64(ago(20*time.Hour + time.Minute)), Member: "w"})
		}, none, 21},
		{"a pending record", func() {
			s.rdb.ZAdd(ctx, keys.Pending(), redis.Z{Score: float64(ago(10*time.Hour + time.Minute)), Member: "w"})
		}, none, 11},
	} {
		t.Run(c.name, func(t *testing.T) {
			fill()
			c.need()
			gone, err := s.log.Trim(ctx, []string{"r1"}, c.keep)
			s.check(err)
			if left := s.rdb.ZCard(ctx, keys.Log()).Val(); left != c.want || gone != 100-c.want {
				t.Errorf("%d targets left, %d forgotten, want %d left", left, gone, c.want)
			}
			st, err := s.log.Status(ctx)
			s.check(err)
			oldest := s.rdb.ZRangeWithScores(ctx, keys.Log(), 0, 0).Val()[0].Score
			if int64(oldest) <= st.Floor {
				t.Errorf("floor %d is not below the oldest target kept, %v", st.Floor, oldest)
			}
		})
	}
}

// The demo runs on an embedded server; the protocol's scripts must mean the same there.
func TestOnTheEmbeddedServer(t *testing.T) {
	s := siteOn(t, redistest.Mini(t), "r1")
	m, err := s.log.OpenMark(ctx, "r1", "w")
	s.check(err)
	s.put("r1", "a")
	s.put("r1", "page", "t")
	s.put("r1", "nav:1")
	s.invalidate(key("a"), tag("t"), prefix("nav:"))
	for _, k := range []string{"a", "page", "nav:1"} {
		if s.has("r1", k) {
			t.Errorf("%q is still there", k)
		}
	}
	s.put("r1", "a")
	stale, err := s.log.Check(ctx, m, []tasks.Tagged{{Key: "a"}, {Key: "b"}})
	s.check(err)
	if !stale[0] || stale[1] {
		t.Errorf("stale %v, want [true false]", stale)
	}
	if _, err := s.apply.Replay(ctx, "r1", m); err != nil || s.has("r1", "a") {
		t.Errorf("after the replay: %v, present %v", err, s.has("r1", "a"))
	}
}

// A copy that holds an entry from before a tag's removal learns of the tag although the removal
// was applied to the original first; the replay then finds the entry.
func TestReplayFindsWhatACopyTookBeforeTheRemoval(t *testing.T) {
	s := newSite(t, "r1", "r2")
	s.put("r1", "page", "t")
	m, err := s.log.OpenMarkFrom(ctx, "r2", "carry", "r1")
	s.check(err)
	s.check(s.rdb.Copy(ctx, s.tmpl.Key("r1", "page"), s.tmpl.Key("r2", "page"), 0, false).Err())
	s.invalidate(tag("t")) // r2's index does not know the page yet
	if !s.has("r2", "page") {
		t.Fatal("nothing to find: the removal reached the copy")
	}
	s.check(s.rdb.Copy(ctx, s.tmpl.Key("r1", "#tag:t"), s.tmpl.Key("r2", "#tag:t"), 0, true).Err())
	if _, err := s.apply.Replay(ctx, "r2", m); err != nil || s.has("r2", "page") {
		t.Errorf("after the replay: %v, present %v", err, s.has("r2", "page"))
	}
}

// A carry that died for good before it had copied the indexes: the replay of its mark finds the
// entry by its source's index, and leaves the source as it is.
func TestReplayFindsWhatADeadCarryLeft(t *testing.T) {
	s := newSite(t, "r1", "r2")
	s.put("r1", "page", "t")
	m, err := s.log.OpenMarkFrom(ctx, "r2", "carry", "r1")
	s.check(err)
	s.check(s.rdb.Copy(ctx, s.tmpl.Key("r1", "page"), s.tmpl.Key("r2", "page"), 0, false).Err())
	s.invalidate(tag("t"))
	s.put("r1", "page", "t") // loaded again since
	if _, err := s.apply.Replay(ctx, "r2", m); err != nil || s.has("r2", "page") {
		t.Errorf("after the replay: %v, present %v", err, s.has("r2", "page"))
	}
	if score := s.rdb.ZScore(ctx, s.tmpl.Key("r1", "#tag:t"), "page").Val(); !s.has("r1", "page") || score < 0 {
		t.Errorf("the source was touched: present %v, score %v", s.has("r1", "page"), score)
	}
}

// A removal that comes late, between the two halves of a put that is newer than it, marks the
// member of an entry that stays. The next one finds the entry all the same.
func TestApplyFindsMarkedMembers(t *testing.T) {
	s := newSite(t, "r1")
	index := s.tmpl.Key("r1", "#tag:t")
	s.check(s.rdb.ZAdd(ctx, index, redis.Z{Score: 1e18, Member: "page"}).Err())
	s.invalidate(tag("t"))
	s.check(s.rdb.Set(ctx, s.tmpl.Key("r1", "page"), "v", 0).Err())
	if n := s.rdb.ZCount(ctx, index, "0", "+inf").Val(); n != 0 {
		t.Fatalf("%d members are not marked, want none", n)
	}
	s.invalidate(tag("t"))
	if s.has("r1", "page") {
		t.Error("the entry outlived its tag")
	}
}
