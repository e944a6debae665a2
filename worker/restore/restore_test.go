package restore_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/restore"
	"github.com/alphanode/stoker/worker/retire/verbtest"
	"github.com/alphanode/stoker/worker/snapshot"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rooms are those of the world, with faults; nil means none.
func rooms(w *verbtest.World, f *verbtest.Faults) restore.Rooms {
	if f == nil {
		f = &verbtest.Faults{}
	}
	return restore.Rooms{
		Template:  w.Template,
		Ledger:    verbtest.Ledger{Ledger: w.Ledger, F: f},
		Log:       verbtest.Log{Log: w.Log, F: f},
		Applier:   verbtest.Applier{Applier: w.Applier, F: f},
		Cache:     verbtest.Cache{Cache: w.Cache, F: f},
		Store:     verbtest.Store{Store: w.Store, F: f},
		Server:    restore.RedisServer{Client: w.Client, Keys: w.Keys},
		Scratches: restore.Scratches{Queue: w.Client, Keys: w.Keys},
		Headroom:  0.1,
		Logger:    w.Logger,
	}
}

var (
	last = tasks.Rollback{By: verbtest.By}
	toR1 = tasks.Rollback{To: "r1", By: verbtest.By}
)

// archived returns a world whose r1 is archived and r2 active, and what r1 held.
func archived(t *testing.T) (*verbtest.World, map[string]string) {
	t.Helper()
	w := verbtest.New(t)
	return w, archive(w)
}

func archive(w *verbtest.World) map[string]string {
	w.T.Helper()
	w.Activate("r1", "r2")
	before := w.Entries("r1")
	w.Archive("r1")
	return before
}

// without returns a namespace less the entries that invalidations of key post:3, tag author:1
// and prefix post:2 take with them, and less that tag's index.
func without(entries map[string]string) map[string]string {
	out := maps.Clone(entries)
	for key := range out {
		switch {
		case key == "post:3", key == tasks.TagIndex("author:1"), strings.HasPrefix(key, "post:2"):
			delete(out, key)
		}
	}
	for i := 1; i < verbtest.Posts; i += 4 {
		delete(out, "post:"+strconv.Itoa(i))
	}
	return out
}

func invalidate(w *verbtest.World) int64 {
	w.Invalidate(verbtest.Target("key:post:3"), verbtest.Target("prefix:post:2"))
	return w.Invalidate(verbtest.Target("tag:author:1"))
}

func wantEntries(t *testing.T, w *verbtest.World, id string, want map[string]string) {
	t.Helper()
	if d := cmp.Diff(want, w.Entries(id)); d != "" {
		t.Errorf("namespace of %s (-want +got):\n%s", id, d)
	}
}

func openMarks(t *testing.T, w *verbtest.World, id string) int {
	t.Helper()
	marks, err := w.Log.OpenMarks(t.Context(), id)
	w.Must(err)
	return len(marks)
}

func TestFlipToStandby(t *testing.T) {
	w := verbtest.New(t)
	w.Activate("r0", "r1", "r2")
	before := w.Entries("r1")
	number := invalidate(w) // pending: nobody has applied it
	job := verbtest.NewJob("a")
	report, err := restore.New(rooms(w, nil)).Rollback(t.Context(), job, last)
	w.Must(err)
	w.OnePointer("r1")
	wantEntries(t, w, "r1", without(before))
	if report.From != "r2" || report.To != "r1" || report.Via != restore.ViaStandby || report.FreshAsOf < number {
		t.Errorf("report %+v, invalidated was up to %d", report, number)
	}
	if w.State("r2") != release.Standby || w.State("r0") != release.Standby {
		t.Errorf("r2 is %s, r0 is %s", w.State("r2"), w.State("r0"))
	}

	// The same task run once more, as asynq may, does not roll back the rollback.
	again, err := restore.New(rooms(w, nil)).Rollback(t.Context(), job, last)
	w.Must(err)
	w.OnePointer("r1")
	if d := cmp.Diff(report, again); d != "" {
		t.Errorf("reports of the two runs (-first +second):\n%s", d)
	}

	// Another task does.
	_, err = restore.New(rooms(w, nil)).Rollback(t.Context(), verbtest.NewJob("b"), last)
	w.Must(err)
	w.OnePointer("r2")
}

func TestRestoreFromArchive(t *testing.T) {
	w := verbtest.New(t)
	w.Big = 1 << 20
	before := archive(w)
	number := invalidate(w)
	_, err := w.Applier.Sweep(t.Context(), 0)
	w.Must(err)
	neighbours := w.Neighbours("r1")
	// Somebody pinned to r1 goes on writing to a namespace that receives no invalidations.
	w.Must(w.Cache.Write(t.Context(), "r1", []tasks.Entry{{Key: "stale", Type: tasks.EntryString, Value: "x"}}))

	report, err := restore.New(rooms(w, nil)).Rollback(t.Context(), verbtest.NewJob("a"), toR1)
	w.Must(err)
	w.OnePointer("r1")
	want := without(before)
	wantEntries(t, w, "r1", want)
	if d := cmp.Diff(neighbours, w.Neighbours("r1")); d != "" {
		t.Errorf("neighbours (-before +after):\n%s", d)
	}
	indexes := int64(3)
	if report.Via != restore.ViaArchive || report.FreshAsOf < number || report.Replayed != 3 || report.Entries != int64(len(want))-indexes || report.ExpiredLeftOut != 0 || report.Seconds <= 0 {
		t.Errorf("report %+v", report)
	}
	rec, err := w.Ledger.Get(t.Context(), "r1")
	w.Must(err)
	var s restore.State
	if _, err := rec.Doc(release.DocRestore, &s); err != nil || s.Report == nil || *s.Report != report {
		t.Errorf("recorded %+v, %v", s, err)
	}
	if n := openMarks(t, w, "r1"); n != 0 {
		t.Errorf("%d marks are open", n)
	}
	w.Verify("r1")
}

// A namespace that an expiry has proved empty is not gone through again, as long as the servers are the
// same. What somebody wrote to it since is as fresh as all else after the replay.
func TestPurgesUnlessProvedEmpty(t *testing.T) {
	for _, test := range []struct {
		name   string
		proved func(w *verbtest.World) // notes what an expiry has proved
		stays  bool
	}{
		{"proved", func(w *verbtest.World) { w.Purged("r1") }, true},
		{"proved of other servers", func(w *verbtest.World) {
			w.Must(w.Ledger.SetDoc(w.T.Context(), "r1", release.DocPurge, release.Purge{FinishedAt: time.Now(), Servers: "others"}))
		}, false},
		{"begun", func(w *verbtest.World) {
			w.Must(w.Ledger.SetDoc(w.T.Context(), "r1", release.DocPurge, release.Purge{Task: "t"}))
		}, false},
		{"not proved", func(*verbtest.World) {}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			w, before := archived(t)
			test.proved(w)
			w.Must(w.Cache.Put(t.Context(), "r1", []namespace.Put{
				{Entry: tasks.Entry{Key: "late", Type: tasks.EntryString, Value: "x"}},
				{Entry: tasks.Entry{Key: "stale", Type: tasks.EntryString, Value: "x"}, Tags: []string{"author:1"}},
			}))
			invalidate(w)
			_, err := restore.New(rooms(w, nil)).Rollback(t.Context(), verbtest.NewJob("a"), toR1)
			w.Must(err)
			want := without(before)
			if test.stays {
				want["late"] = w.Entries("r1")["late"]
			}
			wantEntries(t, w, "r1", want)
		})
	}
}

func TestExpiredEntriesAreLeftOut(t *testing.T) {
	w, before := archived(t)
	rs := rooms(w, nil)
	rs.Now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	report, err := restore.New(rs).Rollback(t.Context(), verbtest.NewJob("a"), toR1)
	w.Must(err)
	expired := int64(0)
	for key, text := range before {
		if !strings.HasPrefix(strings.SplitN(text, " ", 2)[1], "0 ") {
			delete(before, key)
			expired++
		}
	}
	wantEntries(t, w, "r1", before)
	if report.ExpiredLeftOut != expired || expired == 0 {
		t.Errorf("%d left out, want %d", report.ExpiredLeftOut, expired)
	}
}

func TestRollbackRefuses(t *testing.T) {
	w, _ := archived(t)
	w.Create("new")
	r := restore.New(rooms(w, nil))
	other, err := tasks.ParseTemplate("<app>/<release>/<key>", verbtest.App)
	w.Must(err)
	rs := rooms(w, nil)
	rs.Template = other
	none, err := snapshot.Open("")
	w.Must(err)
	unstored := rooms(w, nil)
	unstored.Store = none
	for name, c := range map[string]struct {
		r    *restore.Restorer
		to   string
		want string
	}{
		"no standby":     {r, "", "`stoker rollback --to r1`"},
		"active":         {r, "r2", "active already"},
		"never served":   {r, "new", "stoker release activate new"},
		"other template": {restore.New(rs), "r1", "STOKER_KEY_TEMPLATE"},
		"no store":       {restore.New(unstored), "r1", "STOKER_SNAPSHOT_URL"},
	} {
		job := verbtest.NewJob("a")
		_, err := c.r.Rollback(t.Context(), job, tasks.Rollback{To: c.to, By: verbtest.By})
		if !errors.Is(err, tasks.ErrRefused) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		w.OnePointer("r2")
		if got := w.State("r1"); got != release.Archived {
			t.Errorf("%s: r1 became %s", name, got)
		}
	}
	if _, err := r.Rollback(t.Context(), verbtest.NewJob("a"), tasks.Rollback{To: "r9", By: verbtest.By}); !errors.Is(err, tasks.ErrNotFound) {
		t.Errorf("unknown: %v", err)
	}
	w.Must(w.Ledger.Move(t.Context(), "r1", release.Archived, release.Expired, verbtest.By))
	if _, err := r.Rollback(t.Context(), verbtest.NewJob("a"), toR1); !errors.Is(err, tasks.ErrRefused) || !strings.Contains(err.Error(), "expired") {
		t.Errorf("expired: %v", err)
	}
	if _, err := r.Rollback(t.Context(), verbtest.NewJob("a"), last); !errors.Is(err, tasks.ErrRefused) || !strings.Contains(err.Error(), "none is archived") {
		t.Errorf("nothing to go back to: %v", err)
	}
}

func TestArchiveThatCannotComeBack(t *testing.T) {
	w := verbtest.New(t)
	file := func() string {
		return filepath.Join(strings.TrimPrefix(w.Store.String(), "file://"), w.Snapshot("r1").Name)
	}
	for name, c := range map[string]struct {
		spoil    func()
		want     string
		notFresh bool
	}{
		"lost log": {func() { w.Must(w.Client.HSet(t.Context(), w.Keys.LogMeta(), "epoch", "another").Err()) }, "queue Redis was lost", true},
		"trimmed log": {func() {
			w.Must(w.Client.HIncrBy(t.Context(), w.Keys.LogMeta(), "floor", int64(time.Hour/time.Microsecond)).Err())
		}, "stoker expire --release r1", true},
		"damaged": {func() {
			raw, err := os.ReadFile(file())
			w.Must(err)
			raw[len(raw)/2] ^= 1
			w.Must(os.WriteFile(file(), raw, 0o600))
		}, " at offset ", false},
		"cut":     {func() { w.Must(os.Truncate(file(), w.Snapshot("r1").Size-1)) }, "ends here", false},
		"missing": {func() { w.Must(os.Remove(file())) }, "is missing", false},
	} {
		w.Reset()
		archive(w)
		c.spoil()
		_, err := restore.New(rooms(w, nil)).Rollback(t.Context(), verbtest.NewJob("a"), toR1)
		if !errors.Is(err, tasks.ErrRefused) || !strings.Contains(err.Error(), c.want) || errors.Is(err, tasks.ErrNotFresh) != c.notFresh {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		history, err := w.Ledger.History(t.Context(), "r1")
		w.Must(err)
		if got := history[len(history)-1].To; got != release.Archived || len(w.Entries("r1")) != 0 || openMarks(t, w, "r1") != 0 {
			t.Errorf("%s: last move was to %s, %d entries, %d marks", name, got, len(w.Entries("r1")), openMarks(t, w, "r1"))
		}
		w.OnePointer("r2")
	}
}

func TestRollbackFailsAtEveryStep(t *testing.T) {
	for _, via := range []string{restore.ViaStandby, restore.ViaArchive} {
		t.Run(via, func(t *testing.T) {
			t.Parallel()
			w := verbtest.New(t)
			verbtest.EachFault(t, func(t *testing.T, f *verbtest.Faults) {
				w.Reset()
				w.Activate("r1", "r2")
				before := w.Entries("r1")
				if via == restore.ViaArchive {
					w.Archive("r1")
				}
				w.Invalidate(verbtest.Target("key:post:3"))
				job := verbtest.NewJob("a")
				job.F = f
				_, err := restore.New(rooms(w, f)).Rollback(t.Context(), job, toR1)
				if err == nil && f.Fired != "" && !strings.HasPrefix(f.Fired, "Ledger.Move") && f.Fired != "Ledger.Flip" {
					t.Errorf("a failed %s is no error", f.Fired)
				}
				if pointer, err := w.Ledger.Active(t.Context()); err != nil || pointer == "r1" && openMarks(t, w, "r1") > 0 {
					t.Errorf("after the failure %q is active (%v), with %d open marks", pointer, err, openMarks(t, w, "r1"))
				}
				// Between the tries edits go on.
				w.Invalidate(verbtest.Target("prefix:post:2"))
				number := w.Invalidate(verbtest.Target("tag:author:1"))
				_, err = w.Applier.Sweep(t.Context(), 0)
				w.Must(err)

				job.F = &verbtest.Faults{}
				report, err := restore.New(rooms(w, nil)).Rollback(t.Context(), job, toR1)
				w.Must(err)
				w.OnePointer("r1")
				wantEntries(t, w, "r1", without(before))
				if len(w.Entries("r2")) == 0 || w.State("r2") != release.Standby {
					t.Errorf("r2 is %s with %d entries", w.State("r2"), len(w.Entries("r2")))
				}
				if f.Fired != "" && report.FreshAsOf == 0 || report.To != "r1" || report.From != "r2" {
					t.Errorf("report %+v, invalidated was up to %d", report, number)
				}
				if n := openMarks(t, w, "r1"); n != 0 {
					t.Errorf("%d marks are open", n)
				}
				if via == restore.ViaArchive {
					w.Verify("r1")
				}
			})
		})
	}
}

// brokenCache fails or loses what is written.
type brokenCache struct {
	restore.Cache
	write func(entries []tasks.Entry) ([]tasks.Entry, error)
}

func (c brokenCache) Write(ctx context.Context, id string, entries []tasks.Entry) error {
	entries, err := c.write(entries)
	return errors.Join(c.Cache.Write(ctx, id, entries), err)
}

func TestFailedRestoreIsTakenBack(t *testing.T) {
	for name, write := range map[string]func([]tasks.Entry) ([]tasks.Entry, error){
		"error": func(e []tasks.Entry) ([]tasks.Entry, error) { return e, errors.New("out of memory") },
		"loss":  func(e []tasks.Entry) ([]tasks.Entry, error) { return e[:len(e)-len(e)/10], nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, before := archived(t)
			neighbours := w.Neighbours("r1")
			rs := rooms(w, nil)
			rs.Cache = brokenCache{rs.Cache, write}
			job := verbtest.NewJob("a")
			_, err := restore.New(rs).Rollback(t.Context(), job, toR1)
			if err == nil || errors.Is(err, tasks.ErrRefused) {
				t.Errorf("got %v, want an error that may be retried", err)
			}
			if w.State("r1") != release.Archived || len(w.Entries("r1")) != 0 || openMarks(t, w, "r1") != 0 {
				t.Errorf("r1 is %s, with %d entries and %d open marks", w.State("r1"), len(w.Entries("r1")), openMarks(t, w, "r1"))
			}
			if d := cmp.Diff(neighbours, w.Neighbours("r1")); d != "" {
				t.Errorf("neighbours (-before +after):\n%s", d)
			}
			w.OnePointer("r2")
			w.Verify("r1")
			_, err = restore.New(rooms(w, nil)).Rollback(t.Context(), job, toR1)
			w.Must(err)
			wantEntries(t, w, "r1", before)
		})
	}
}

func TestDrainedRestoreGoesOnFromItsBlock(t *testing.T) {
	w, before := archived(t)
	job := verbtest.NewJob("a")
	written := map[string]int{}
	var mu sync.Mutex // two blocks are written at a time
	var drain sync.Once
	rs := rooms(w, nil)
	rs.Cache = brokenCache{rs.Cache, func(entries []tasks.Entry) ([]tasks.Entry, error) {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range entries {
			written[e.Key]++
		}
		drain.Do(func() { close(job.Drain) })
		return entries, nil
	}}
	if _, err := restore.New(rs).Rollback(t.Context(), job, toR1); !errors.Is(err, tasks.ErrDraining) {
		t.Fatalf("got %v, want draining", err)
	}
	if w.State("r1") != release.Restoring || openMarks(t, w, "r1") != 1 || len(written) == len(before) {
		t.Errorf("r1 is %s with %d open marks, %d of %d entries written", w.State("r1"), openMarks(t, w, "r1"), len(written), len(before))
	}
	job.Drain = nil
	_, err := restore.New(rs).Rollback(t.Context(), job, toR1)
	w.Must(err)
	wantEntries(t, w, "r1", before)
	for key, n := range written {
		if n != 1 {
			t.Errorf("%q was written %d times", key, n)
		}
	}
}

func TestAnotherTaskIsRestoring(t *testing.T) {
	w, before := archived(t)
	dead := verbtest.NewJob("dead")
	close(dead.Drain)
	if _, err := restore.New(rooms(w, nil)).Rollback(t.Context(), dead, toR1); !errors.Is(err, tasks.ErrDraining) {
		t.Fatalf("got %v, want draining", err)
	}
	other := tasks.Rollback{To: "r1", By: tasks.By{Actor: "somebody else"}}
	_, err := restore.New(rooms(w, nil)).Rollback(t.Context(), verbtest.NewJob("b"), other)
	if !errors.Is(err, tasks.ErrRefused) || !strings.Contains(err.Error(), "task dead") {
		t.Errorf("while it may live: %v", err)
	}
	if w.State("r1") != release.Restoring || openMarks(t, w, "r1") != 1 {
		t.Errorf("r1 is %s with %d open marks", w.State("r1"), openMarks(t, w, "r1"))
	}
	rs := rooms(w, nil)
	rs.Now = func() time.Time { return time.Now().Add(restore.AbandonedAfter + time.Second) }
	_, err = restore.New(rs).Rollback(t.Context(), verbtest.NewJob("b"), other)
	w.Must(err)
	w.OnePointer("r1")
	wantEntries(t, w, "r1", before)

	// Should it live after all, it finds its release active.
	dead.Drain = make(chan struct{})
	_, err = restore.New(rooms(w, nil)).Rollback(t.Context(), dead, toR1)
	w.Must(err)
	wantEntries(t, w, "r1", before)
}

func TestTakeOverFailsAtEveryStep(t *testing.T) {
	w := verbtest.New(t)
	later := func() time.Time { return time.Now().Add(restore.AbandonedAfter + time.Second) }
	verbtest.EachFault(t, func(t *testing.T, f *verbtest.Faults) {
		w.Reset()
		before := archive(w)
		dead := verbtest.NewJob("dead")
		close(dead.Drain)
		if _, err := restore.New(rooms(w, nil)).Rollback(t.Context(), dead, toR1); !errors.Is(err, tasks.ErrDraining) {
			t.Fatalf("got %v, want draining", err)
		}
		invalidate(w)
		other := tasks.Rollback{To: "r1", By: tasks.By{Actor: "somebody else"}}
		job := verbtest.NewJob("b")
		job.F = f
		rs := rooms(w, f)
		rs.Now = later
		_, _ = restore.New(rs).Rollback(t.Context(), job, other)
		job.F = &verbtest.Faults{}
		rs = rooms(w, nil)
		rs.Now = later
		_, err := restore.New(rs).Rollback(t.Context(), job, other)
		w.Must(err)
		w.OnePointer("r1")
		wantEntries(t, w, "r1", without(before))
		if n := openMarks(t, w, "r1"); n != 0 {
			t.Errorf("%d marks are open", n)
		}
	})
}

// TestRollbacksAtOnce has operators press the button together: whatever the tasks do to one
// another, their retries end with the release active, whole and fresh.
func TestRollbacksAtOnce(t *testing.T) {
	w := verbtest.New(t)
	for range 5 {
		w.Reset()
		before := archive(w)
		invalidate(w)
		var wg sync.WaitGroup
		jobs := []*verbtest.Job{verbtest.NewJob("a"), verbtest.NewJob("b"), verbtest.NewJob("c")}
		for _, job := range jobs {
			wg.Go(func() { _, _ = restore.New(rooms(w, nil)).Rollback(t.Context(), job, toR1) })
		}
		wg.Wait()
		for _, job := range jobs {
			_, err := restore.New(rooms(w, nil)).Rollback(t.Context(), job, toR1)
			if err != nil && !errors.Is(err, tasks.ErrRefused) {
				t.Error(err)
			}
		}
		w.OnePointer("r1")
		wantEntries(t, w, "r1", without(before))
		if n := openMarks(t, w, "r1"); n != 0 {
			t.Errorf("%d marks are open", n)
		}
	}
}

func TestLaterDecisionStands(t *testing.T) {
	t.Run("another release was activated meanwhile", func(t *testing.T) {
		w, before := archived(t)
		job := verbtest.NewJob("a")
		close(job.Drain)
		if _, err := restore.New(rooms(w, nil)).Rollback(t.Context(), job, toR1); !errors.Is(err, tasks.ErrDraining) {
			t.Fatalf("got %v, want draining", err)
		}
		w.Activate("r3")
		job.Drain = nil
		_, err := restore.New(rooms(w, nil)).Rollback(t.Context(), job, toR1)
		if !errors.Is(err, tasks.ErrRefused) || !strings.Contains(err.Error(), `"r3" became active`) {
			t.Errorf("got %v", err)
		}
		w.OnePointer("r3")
		if w.State("r1") != release.Standby {
			t.Errorf("r1 is %s", w.State("r1"))
		}
		wantEntries(t, w, "r1", before)
	})
	t.Run("the release was replaced again", func(t *testing.T) {
		w := verbtest.New(t)
		w.Activate("r1", "r2")
		job := verbtest.NewJob("a")
		f := &verbtest.Faults{}
		rs := rooms(w, f)
		rs.Ledger = flipThenFail{rs.Ledger}
		if _, err := restore.New(rs).Rollback(t.Context(), job, toR1); err == nil {
			t.Fatal("the first try should fail after its flip")
		}
		w.Activate("r3")
		_, err := restore.New(rooms(w, nil)).Rollback(t.Context(), job, toR1)
		w.Must(err)
		w.OnePointer("r3")
	})
}

type flipThenFail struct{ restore.Ledger }

func (l flipThenFail) Flip(ctx context.Context, id string, from release.State, by tasks.By) (string, error) {
	_, err := l.Ledger.Flip(ctx, id, from, by)
	return "", errors.Join(err, verbtest.ErrFault)
}

func TestUnfinishedWriterHoldsRollbackUp(t *testing.T) {
	w := verbtest.New(t)
	w.Activate("r1", "r2")
	r := restore.New(rooms(w, nil))
	if ok, why, target := r.Ready(t.Context()); !ok || why != "" || target != "r1" {
		t.Errorf("ready: %v, %q, %q", ok, why, target)
	}
	_, err := w.Log.OpenMark(t.Context(), "r1", "writer")
	w.Must(err)
	if ok, why, target := r.Ready(t.Context()); ok || !strings.Contains(why, "have not finished") || target != "r1" {
		t.Errorf("with an open mark: %v, %q, %q", ok, why, target)
	}
	if _, err := r.Rollback(t.Context(), verbtest.NewJob("a"), last); !errors.Is(err, tasks.ErrRefused) {
		t.Errorf("got %v", err)
	}
	w.OnePointer("r2")
	w.Must(w.Log.CloseMark(t.Context(), "r1", "writer"))
	w.Archive("r1")
	if ok, why, target := r.Ready(t.Context()); ok || !strings.Contains(why, "rollback --to r1") || target != "" {
		t.Errorf("archived: %v, %q, %q", ok, why, target)
	}
}
