package freshness

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"go.uber.org/goleak"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/retire/verbtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is a world with an origin, a monitor and a clock of its own.
type site struct {
	*verbtest.World
	*Monitor
	now     time.Time
	edits   map[string]string // key → what its value ends with since it was edited
	deleted map[string]bool
	err     error                // of the origin
	failing map[string]bool      // keys that it cannot read
	asking  func(release string) // called before the origin answers
	asked   int                  // keys
	again   map[string]time.Time // tasks enqueued → when they are to run
	job     string               // the running task's ID
}

func newSite(t *testing.T, ids ...string) *site {
	t.Helper()
	s := &site{
		World: verbtest.New(t), now: time.Now().Truncate(time.Second), edits: map[string]string{}, deleted: map[string]bool{},
		failing: map[string]bool{}, again: map[string]time.Time{}, job: "first",
	}
	s.Monitor = New(Deps{
		Keys: s.Keys, Queue: s.Client, Ledger: s.Ledger, Log: s.Log, Cache: s.Cache, Store: s.Store, Origin: s, Logger: s.Logger,
		Enqueue: s.enqueue, Now: func() time.Time { return s.now },
	}, Config{FreshnessSample: 200, FreshnessKeep: 100})
	s.World.Activate(ids...)
	return s
}

// value is what the origin makes of a post for a release.
func (s *site) value(id, key string) string { return id + " " + key + s.edits[key] }

// Ask implements [Origin]: posts are its own, anything else it does not know.
func (s *site) Ask(_ context.Context, id string, keys []string) (map[string]Answer, error) {
	if s.asking != nil {
		s.asking(id)
	}
	s.asked += len(keys)
	answers := map[string]Answer{}
	for _, key := range keys {
		if strings.HasPrefix(key, "post:") {
			answers[key] = Answer{
				Entry: tasks.Entry{Key: key, Type: tasks.EntryString, Value: s.value(id, key)},
				Gone:  s.deleted[key], Failed: s.failing[key],
			}
		}
	}
	return answers, s.err
}

func (s *site) enqueue(_ context.Context, p tasks.Payload, opts ...asynq.Option) (string, error) {
	var id string
	var wait time.Duration
	for _, o := range opts {
		switch o.Type() {
		case asynq.TaskIDOpt:
			id = o.Value().(string)
		case asynq.ProcessInOpt:
			wait = o.Value().(time.Duration)
		}
	}
	if !p.(tasks.Freshness).Confirm || id == s.job {
		s.T.Errorf("task %q is enqueued as %+v", id, p)
	}
	s.again[id] = s.now.Add(wait)
	return id, nil
}

// look looks now, and at suspects only when asked for by a task that was enqueued.
func (s *site) look(confirm bool) map[string]Result {
	s.T.Helper()
	r, err := s.Look(s.T.Context(), tasks.Alone(s.job), tasks.Freshness{Confirm: confirm, By: verbtest.By})
	s.Must(err)
	kept, err := s.Latest(s.T.Context())
	s.Must(err)
	if len(kept.Places) != len(r.Places) || kept.Stale() != r.Stale() {
		s.T.Errorf("kept %+v of %+v", kept, r)
	}
	rows := map[string]Result{}
	for _, n := range r.Places {
		rows[n.Release] = n
	}
	return rows
}

// wait lets the clock go on to when the next enqueued task is due, and runs it.
func (s *site) wait(d time.Duration) map[string]Result {
	s.T.Helper()
	var next string
	for id, at := range s.again {
		if at.After(s.now) && (next == "" || at.Before(s.again[next])) {
			next = id
		}
	}
	if next == "" || s.again[next].Sub(s.now) != d {
		s.T.Fatalf("enqueued at %v: %v; want a look in %v", s.now, s.again, d)
	}
	s.now, s.job = s.again[next], next
	return s.look(true)
}

// put writes a value to a namespace behind stoker's back.
func (s *site) put(id, key, value string) {
	s.Must(s.Client.Set(s.T.Context(), s.Template.Key(id, key), value, 0).Err())
}

func (s *site) invalidate(targets ...tasks.Target) {
	s.Invalidate(targets...)
	_, err := s.Applier.Sweep(s.T.Context(), 0)
	s.Must(err)
}

func TestFreshSite(t *testing.T) {
	s := newSite(t, "r1", "r2")
	rows := s.look(false)
	for _, id := range []string{"r1", "r2"} {
		n := rows[id]
		if n.Sampled != verbtest.Posts+8 || n.Compared != verbtest.Posts || n.NotComparable != 8 || n.Suspects+n.Stale+n.Overtaken != 0 || n.Problem != "" {
			t.Errorf("%s: %+v", id, n)
		}
		if n.Day.Compared != verbtest.Posts || n.Day.AtMost < 0.072 || n.Day.AtMost > 0.073 || n.Day.Nines < 1.13 || n.Day.Nines > 1.15 {
			t.Errorf("%s: %d compared, at most %v stale, %v nines", id, n.Day.Compared, n.Day.AtMost, n.Day.Nines)
		}
	}
	if rows["r1"].State != release.Standby || len(rows) != 2 || len(s.again) != 0 {
		t.Errorf("looked at %v, enqueued %v", rows, s.again)
	}
	s.now = s.now.Add(10 * time.Minute)
	if n := s.look(false)["r1"]; n.Day.Compared != 2*verbtest.Posts {
		t.Errorf("%d comparisons after two looks", n.Day.Compared)
	}
	s.now = s.now.Add(Window)
	if n := s.look(false)["r1"]; n.Day.Compared != verbtest.Posts {
		t.Errorf("%d comparisons a day later", n.Day.Compared)
	}
}

// TestStaleEntryIsFound: a value that was written behind stoker's back is confirmed after a minute
// and after five, named with the smallest tag, and forgotten once that is invalidated.
func TestStaleEntryIsFound(t *testing.T) {
	for _, id := range []string{"r1", "r2"} { // r1 is what a rollback would flip to
		t.Run(id, func(t *testing.T) {
			s := newSite(t, "r1", "r2")
			put := namespace.Put{Entry: tasks.Entry{Key: "post:3", Type: tasks.EntryString, Value: "old"}, Tags: []string{"post:3", "author:3"}}
			s.Must(s.Cache.Put(t.Context(), id, []namespace.Put{put}))

			n := s.look(false)[id]
			if n.Suspects != 1 || n.Stale != 0 || n.Compared != verbtest.Posts {
				t.Fatalf("at first: %+v", n)
			}
			if n = s.wait(time.Minute)[id]; n.Suspects != 1 || n.Stale != 0 || n.Sampled != 0 {
				t.Fatalf("after a minute: %+v", n)
			}
			rows := s.wait(4 * time.Minute)
			n = rows[id]
			if n.Suspects != 0 || n.Stale != 1 || n.Confirmed != 1 || len(n.Entries) != 1 || n.Day.Stale != 1 || n.Day.Compared != verbtest.Posts {
				t.Fatalf("after five minutes: %+v", n)
			}
			if e := n.Entries[0]; e.Key != "post:3" || e.Tag == nil || *e.Tag != (Tag{"post:3", 1}) || *n.Tag != *e.Tag || e.Stale.Sub(e.Since) != 5*time.Minute {
				t.Errorf("explained as %+v, all by %+v", e, n.Tag)
			}
			for other, row := range rows {
				if other != id && row.Suspects+row.Stale != 0 {
					t.Errorf("%s: %+v", other, row)
				}
			}

			// It stays until it is repaired; meeting it again counts.
			s.now = s.now.Add(10 * time.Minute)
			if n = s.look(false)[id]; n.Stale != 1 || n.Confirmed != 1 || n.Day.Stale != 2 {
				t.Errorf("ten minutes later: %+v", n)
			}
			target, ok := n.Remedy()
			if !ok || target != verbtest.Target("tag:post:3") {
				t.Fatalf("remedy %v", target)
			}
			s.invalidate(target)
			if n = s.look(true)[id]; n.Stale != 0 || n.Suspects != 0 || len(n.Entries) != 0 {
				t.Errorf("after the invalidation: %+v", n)
			}
			if left := s.Client.HLen(t.Context(), s.Keys.Suspects()).Val(); left != 0 {
				t.Errorf("%d suspects kept", left)
			}
		})
	}
}

// TestSmallestCommonTag: several stale entries are explained by the tag that lists them all.
func TestSmallestCommonTag(t *testing.T) {
	s := newSite(t, "r1")
	for _, key := range []string{"post:1", "post:5"} { // both author:1's, of ten
		s.put("r1", key, "old")
	}
	s.put("r1", "untagged", "x")
	s.look(false)
	s.wait(time.Minute)
	n := s.wait(4 * time.Minute)["r1"]
	if n.Stale != 2 || n.Tag == nil || *n.Tag != (Tag{"author:1", 10}) {
		t.Errorf("%d stale, explained by %+v", n.Stale, n.Tag)
	}
}

// TestRepairedSuspectsLeave: in each way that a suspect may turn out to be none.
func TestRepairedSuspectsLeave(t *testing.T) {
	for name, repair := range map[string]func(*site){
		"invalidated": func(s *site) { s.invalidate(verbtest.Target("key:post:3")) },
		"by tag":      func(s *site) { s.invalidate(verbtest.Target("tag:author:3")) },
		"expired":     func(s *site) { s.Must(s.Client.Del(s.T.Context(), s.Template.Key("r1", "post:3")).Err()) },
		"rewritten":   func(s *site) { s.put("r1", "post:3", s.value("r1", "post:3")) },
		"reverted":    func(s *site) { delete(s.edits, "post:3") },
		"deleted":     func(s *site) { s.deleted["post:3"] = true },
	} {
		for _, confirmed := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " confirmed ", confirmed), func(t *testing.T) {
				s := newSite(t, "r1")
				s.edits["post:3"] = " edited"
				if n := s.look(false)["r1"]; n.Suspects != 1 {
					t.Fatalf("%+v", n)
				}
				if confirmed {
					s.wait(time.Minute)
					if n := s.wait(4 * time.Minute)["r1"]; n.Stale != 1 {
						t.Fatalf("%+v", n)
					}
				} else {
					s.now = s.now.Add(time.Minute)
				}
				repair(s)
				if n := s.look(true)["r1"]; n.Suspects+n.Stale != 0 {
					t.Errorf("%+v", n)
				}
			})
		}
	}
}

// TestChangedSuspectsStartOver: a value that is wrong again must stay wrong for five minutes again.
func TestChangedSuspectsStartOver(t *testing.T) {
	s := newSite(t, "r1")
	s.edits["post:3"] = " edited"
	s.look(false)
	s.wait(time.Minute)
	s.put("r1", "post:3", "old in another way")
	s.now = s.now.Add(4 * time.Minute)
	if n := s.look(true)["r1"]; n.Suspects != 1 || n.Stale != 0 {
		t.Errorf("rewritten: %+v", n)
	}
	s.wait(time.Minute)
	s.Invalidate(verbtest.Target("tag:author:3")) // recorded, and no worker runs to apply it
	if n := s.wait(4 * time.Minute)["r1"]; n.Suspects != 1 || n.Stale != 0 {
		t.Errorf("invalidated, but still there: %+v", n)
	}

	_, err := s.Applier.Sweep(t.Context(), 0)
	s.Must(err)
	s.put("r1", "post:3", "the same old")
	s.now = s.now.Add(time.Minute)
	s.look(true)
	s.wait(time.Minute)
	s.invalidate(verbtest.Target("key:post:3"))
	s.put("r1", "post:3", "the same old") // by a writer that came late
	if n := s.wait(4 * time.Minute)["r1"]; n.Suspects != 1 || n.Stale != 0 {
		t.Errorf("invalidated, and put again: %+v", n)
	}
}

// TestOriginThatCannotBeRead neither clears nor confirms anything.
func TestOriginThatCannotBeRead(t *testing.T) {
	s := newSite(t, "r1")
	s.put("r1", "post:3", "old")
	s.look(false)
	s.wait(time.Minute)
	s.wait(4 * time.Minute)
	for name, fault := range map[string]func(on bool){
		"down":    func(on bool) { s.err = map[bool]error{true: errors.New("database is down")}[on] },
		"no plan": func(on bool) { s.err = map[bool]error{true: fmt.Errorf("%w: no plan", tasks.ErrNotFound)}[on] },
		"one row": func(on bool) { s.failing["post:3"] = on },
	} {
		fault(true)
		n := s.look(false)["r1"]
		if n.Stale != 1 || (n.Problem != "") != (name != "one row") {
			t.Errorf("%s: %+v", name, n)
		}
		fault(false)
	}
	s.Must(s.Ledger.Create(t.Context(), release.Record{ID: "r9"}, verbtest.By))
	if n := s.look(false)["r9"]; n.Sampled != 0 || n.Problem != "" || n.Day.AtMost != 1 || n.Day.Nines != 0 {
		t.Errorf("an empty namespace: %+v", n)
	}
}

// TestArchivedRollbackTarget: without a release on standby, the newest archive is looked at instead.
func TestArchivedRollbackTarget(t *testing.T) {
	s := newSite(t, "r1", "r2", "r3")
	s.put("r2", "post:3", "old")
	s.put("r2", "post:4", "old, but invalidated later")
	s.put("r2", "post:7", "old as well")
	s.Archive("r1")
	if rows := s.look(false); len(rows) != 2 {
		t.Fatalf("with r2 on standby, looked at %v", rows)
	}
	s.Archive("r2")
	s.invalidate(verbtest.Target("key:post:4"), verbtest.Target("tag:author:1"))

	rows := s.look(false)
	n := rows["r2"]
	const overtaken = 1 // post:4: author:1's posts agree with the origin anyway
	if len(rows) != 2 || n.Archive != s.Snapshot("r2").Name || n.Compared != verbtest.Posts-overtaken || n.Overtaken != overtaken || n.Suspects != 2 {
		t.Fatalf("looked at %d places; r2: %+v", len(rows), n)
	}
	if n = s.wait(time.Minute)["r2"]; n.Suspects != 2 {
		t.Fatalf("after a minute: %+v", n)
	}
	n = s.wait(4 * time.Minute)["r2"]
	if n.Stale != 2 || n.Tag == nil || *n.Tag != (Tag{"author:3", 10}) {
		t.Fatalf("after five minutes: %+v, by %+v", n, n.Tag)
	}
	s.invalidate(verbtest.Target("key:post:7"))
	if n = s.look(false)["r2"]; n.Stale != 1 || n.Sampled != 0 {
		t.Errorf("after an invalidation, which a restore would replay: %+v", n)
	}
	s.now = s.now.Add(archiveEvery)
	if n = s.look(false)["r2"]; n.Stale != 1 || n.Sampled == 0 || n.Overtaken != 2 {
		t.Errorf("the next sample: %+v", n)
	}

	// A release that came back is looked at in its namespace.
	s.Must(s.Ledger.Move(t.Context(), "r2", release.Archived, release.Restoring, verbtest.By))
	if n = s.look(false)["r2"]; n.Archive != "" || n.Stale != 0 {
		t.Errorf("restoring: %+v", n)
	}
	// Without a log that reaches back to it, it could not come back.
	s.Must(s.Ledger.Move(t.Context(), "r2", release.Restoring, release.Archived, verbtest.By))
	s.Must(s.Client.HSet(t.Context(), s.Keys.LogMeta(), "epoch", "another").Err())
	if n = s.look(false)["r2"]; !strings.Contains(n.Problem, "refused") {
		t.Errorf("of another epoch: %+v", n)
	}
}

// TestBusySite: edits between every two steps of a look, each announced within a minute, raise
// suspicion and never an alarm, while one entry that nobody announced is found among them.
func TestBusySite(t *testing.T) {
	s := newSite(t, "r1", "r2")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var announced []string
	edit := func(string) {
		for range 5 {
			key := fmt.Sprint("post:", random.IntN(verbtest.Posts))
			if key == "post:3" {
				continue
			}
			s.edits[key] = fmt.Sprint(" edit ", random.Uint32())
			announced = append(announced, key)
		}
	}
	s.asking = edit // after the entries were read
	suspected := 0
	for range 60 { // minutes
		for id, n := range s.look(false) {
			suspected += n.Suspects
			if n.Stale > 0 {
				t.Fatalf("false alarm in %s: %+v", id, n.Entries)
			}
		}
		// What was edited is announced, and read through by visitors of both releases.
		for _, key := range announced {
			s.invalidate(verbtest.Target("key:" + key))
			for _, id := range []string{"r1", "r2"} {
				s.put(id, key, s.value(id, key))
			}
		}
		announced = nil
		s.now = s.now.Add(time.Minute)
	}
	if suspected == 0 {
		t.Error("no edit ever fell between the two readings: the test shows nothing")
	}
	s.edits["post:3"] = " which nobody announced"
	for range 6 {
		s.look(false)
		for _, key := range announced {
			s.invalidate(verbtest.Target("key:" + key))
			for _, id := range []string{"r1", "r2"} {
				s.put(id, key, s.value(id, key))
			}
		}
		announced = nil
		s.now = s.now.Add(time.Minute)
	}
	for id, n := range s.look(false) {
		if n.Stale != 1 || n.Entries[0].Key != "post:3" {
			t.Errorf("%s: %d stale, %+v", id, n.Stale, n.Entries)
		}
	}
}

// TestLoadIsBounded: suspects and samples together are no more than the setting, for each place.
func TestLoadIsBounded(t *testing.T) {
	s := newSite(t, "r1", "r2")
	s.cfg.FreshnessSample = 5
	for i := range verbtest.Posts {
		s.edits[fmt.Sprint("post:", i)] = " edited"
	}
	for range 30 {
		s.asked = 0
		s.look(false)
		if s.asked > 10 {
			t.Fatalf("asked for %d keys of two releases, want 5 each at most", s.asked)
		}
		s.now = s.now.Add(time.Minute)
	}
}

func TestDrains(t *testing.T) {
	s := newSite(t, "r1")
	drain := make(chan struct{})
	close(drain)
	if _, err := s.Look(t.Context(), draining{tasks.Alone("a"), drain}, tasks.Freshness{By: verbtest.By}); !errors.Is(err, tasks.ErrDraining) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Latest(t.Context()); !errors.Is(err, tasks.ErrNotFound) {
		t.Errorf("a report of a look that was not finished: %v", err)
	}
}

type draining struct {
	tasks.Alone
	asked chan struct{}
}

func (d draining) Draining() <-chan struct{} { return d.asked }

func TestReportsAreCapped(t *testing.T) {
	s := newSite(t, "r1")
	s.cfg.FreshnessKeep = 3
	for range 5 {
		s.look(true)
		s.now = s.now.Add(time.Second)
	}
	all, err := s.History(t.Context(), 10)
	s.Must(err)
	if len(all) != 3 || !slices.IsSortedFunc(all, func(a, b Report) int { return b.At.Compare(a.At) }) {
		t.Errorf("%d reports: %+v", len(all), all)
	}
}
