package retire_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/retire"
	"github.com/alphanode/stoker/worker/retire/verbtest"
	"github.com/alphanode/stoker/worker/snapshot"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rooms are those of the world, with faults; nil means none.
func rooms(w *verbtest.World, f *verbtest.Faults) retire.Rooms {
	if f == nil {
		f = &verbtest.Faults{}
	}
	return retire.Rooms{
		App: verbtest.App, Template: w.Template,
		Ledger:  verbtest.Ledger{Ledger: w.Ledger, F: f},
		Log:     verbtest.Log{Log: w.Log, F: f},
		Applier: verbtest.Applier{Applier: w.Applier, F: f},
		Cache:   verbtest.Cache{Cache: w.Cache, F: f},
		Store:   verbtest.Store{Store: w.Store, F: f},
		Rule:    release.Rule{Standby: 1, Archived: 1},
		Server:  retire.ServerVersion(w.Client),
		Logger:  w.Logger,
	}
}

// archived reads the recorded archive of a release back as World.Entries shows a namespace.
func archived(w *verbtest.World, id string) map[string]string {
	w.T.Helper()
	in, err := w.Store.Open(w.T.Context(), w.Snapshot(id).Name)
	w.Must(err)
	defer func() { _ = in.Close() }()
	r, err := snapshot.NewReader(in)
	w.Must(err)
	all := map[string]string{}
	for b, err := r.Next(); err == nil; b, err = r.Next() {
		for _, e := range b.Entries {
			all[e.Key] = verbtest.Text(e)
		}
	}
	return all
}

func openReaders(w *verbtest.World) int64 {
	n, err := w.Client.ZCard(w.T.Context(), w.Keys.Readers()).Result()
	w.Must(err)
	return n
}

func TestSnapshot(t *testing.T) {
	w := verbtest.New(t)
	w.Activate("r1", "r2")
	r := retire.New(rooms(w, nil))
	for _, id := range []string{"r1", "r2"} { // standby and active
		before := w.Entries(id)
		first, err := r.Snapshot(t.Context(), verbtest.NewJob("a"), id)
		w.Must(err)
		second, err := r.Snapshot(t.Context(), verbtest.NewJob("b"), id)
		w.Must(err)
		if first.Name == second.Name || second.Replaces != first.Name {
			t.Errorf("two snapshots are called %q and %q", first.Name, second.Name)
		}
		if d := cmp.Diff(before, archived(w, id)); d != "" {
			t.Errorf("archive of %s (-namespace +archive):\n%s", id, d)
		}
		if d := cmp.Diff(second, w.Snapshot(id)); d != "" || second.Server == "" || second.Entries == 0 || second.VerifiedAt.IsZero() {
			t.Errorf("recorded (-returned +recorded):\n%s\n%+v", d, second)
		}
	}
	if got := w.Archives(); len(got) != 2 {
		t.Errorf("archives %v: the older of each release should be gone", got)
	}
	if n := openReaders(w); n != 0 {
		t.Errorf("%d readers are open", n)
	}
}

func TestSnapshotRefuses(t *testing.T) {
	w := verbtest.New(t)
	w.Activate("r1", "r2")
	other, err := tasks.ParseTemplate("<app>/<release>/<key>", verbtest.App)
	w.Must(err)
	none, err := snapshot.Open("")
	w.Must(err)
	for name, change := range map[string]func(*retire.Rooms){
		"key template":        func(r *retire.Rooms) { r.Template = other },
		"STOKER_SNAPSHOT_URL": func(r *retire.Rooms) { r.Store = none },
	} {
		rs := rooms(w, nil)
		change(&rs)
		if _, err := retire.New(rs).Snapshot(t.Context(), verbtest.NewJob("a"), "r1"); !errors.Is(err, tasks.ErrRefused) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := retire.New(rooms(w, nil))
	_, err = r.Expire(t.Context(), verbtest.NewJob("x"), tasks.Expire{Release: "r1", By: verbtest.By})
	w.Must(err)
	name := w.Snapshot("r1").Name
	if _, err := r.Snapshot(t.Context(), verbtest.NewJob("a"), "r1"); !errors.Is(err, tasks.ErrRefused) {
		t.Errorf("archived: %v", err)
	}
	w.Must(w.Ledger.Move(t.Context(), "r1", release.Archived, release.Restoring, verbtest.By))
	if _, err := r.Snapshot(t.Context(), verbtest.NewJob("a"), "r1"); !errors.Is(err, tasks.ErrRefused) {
		t.Errorf("restoring: %v", err)
	}
	if _, err := r.Snapshot(t.Context(), verbtest.NewJob("a"), "r9"); !errors.Is(err, tasks.ErrNotFound) {
		t.Errorf("unknown: %v", err)
	}
	if got := w.Snapshot("r1").Name; got != name || len(w.Archives()) != 1 {
		t.Errorf("refused, yet the archive %q became %q of %v", name, got, w.Archives())
	}
	if n := openReaders(w); n != 0 {
		t.Errorf("%d readers are open", n)
	}
}

// movingCache moves the release while it is read, as an expiry in another worker would.
type movingCache struct {
	retire.Cache
	move func()
}

func (c movingCache) ReadFrom(ctx context.Context, id, cursor string, fn func([]tasks.Entry, string) error) error {
	err := c.Cache.ReadFrom(ctx, id, cursor, fn)
	c.move()
	return err
}

func TestSnapshotOfMovingReleaseIsNotRecorded(t *testing.T) {
	w := verbtest.New(t)
	w.Activate("r1", "r2")
	r := retire.New(rooms(w, nil))
	good, err := r.Snapshot(t.Context(), verbtest.NewJob("a"), "r1")
	w.Must(err)
	rs := rooms(w, nil)
	rs.Cache = movingCache{rs.Cache, func() {
		_, err := r.Expire(t.Context(), verbtest.NewJob("x"), tasks.Expire{Release: "r1", By: verbtest.By})
		w.Must(err)
	}}
	_, err = retire.New(rs).Snapshot(t.Context(), verbtest.NewJob("b"), "r1")
	if !errors.Is(err, tasks.ErrRefused) {
		t.Errorf("got %v", err)
	}
	if d := w.Snapshot("r1"); d.Name != good.Name {
		t.Errorf("recorded %q, want %q", d.Name, good.Name)
	}
	w.Verify("r1")
	if got := w.Archives(); len(got) != 1 {
		t.Errorf("archives: %v", got)
	}
}

// A switch under a snapshot costs it a retry: the release is as live as before.
func TestSnapshotUnderASwitchIsReadAnew(t *testing.T) {
	w := verbtest.New(t)
	w.Activate("r1", "r2")
	rs := rooms(w, nil)
	rs.Cache = movingCache{rs.Cache, func() {
		_, err := w.Ledger.Flip(t.Context(), "r1", release.Standby, verbtest.By)
		w.Must(err)
	}}
	job := verbtest.NewJob("a")
	_, err := retire.New(rs).Snapshot(t.Context(), job, "r1")
	if err == nil || errors.Is(err, tasks.ErrRefused) {
		t.Fatalf("got %v, want an error that is worth a retry", err)
	}
	if got := w.Archives(); len(got) != 0 {
		t.Errorf("archives before the retry: %v", got)
	}
	d, err := retire.New(rooms(w, nil)).Snapshot(t.Context(), job, "r1")
	w.Must(err)
	if got := w.Archives(); len(got) != 1 || w.Snapshot("r1").Name != d.Name {
		t.Errorf("archives %v, recorded %q", got, w.Snapshot("r1").Name)
	}
	w.Verify("r1")
}

func TestSnapshotFailsAtEveryStep(t *testing.T) {
	w := verbtest.New(t)
	verbtest.EachFault(t, func(t *testing.T, f *verbtest.Faults) {
		w.Reset()
		w.Activate("r1", "r2")
		_, err := retire.New(rooms(w, nil)).Snapshot(t.Context(), verbtest.NewJob("before"), "r1")
		w.Must(err)
		job := verbtest.NewJob("a")
		job.F = f
		_, err = retire.New(rooms(w, f)).Snapshot(t.Context(), job, "r1")
		if err == nil && f.Fired != "" && f.Fired != "Store.Discard" { // which is only tidiness
			t.Errorf("a failed %s is no error", f.Fired)
		}
		job.F = &verbtest.Faults{}
		_, err = retire.New(rooms(w, nil)).Snapshot(t.Context(), job, "r1")
		w.Must(err)
		if d := cmp.Diff(w.Entries("r1"), archived(w, "r1")); d != "" {
			t.Errorf("(-namespace +archive):\n%s", d)
		}
		w.Verify("r1")
		if got := w.Archives(); len(got) != 1 {
			t.Errorf("archives: %v", got)
		}
		if n := openReaders(w); n != 0 {
			t.Errorf("%d readers are open", n)
		}
	})
}

// Four of what it reads are tag indexes.
func TestExpireByName(t *testing.T) {
	w := verbtest.New(t)
	w.Activate("r1", "r10", "r2")
	neighbours := w.Neighbours("r1")
	before := w.Entries("r1")
	r := retire.New(rooms(w, nil))
	p := tasks.Expire{Release: "r1", By: verbtest.By}

	plan, err := r.Plan(t.Context(), p)
	w.Must(err)
	if len(plan) != 1 || plan[0].To != release.Archived || plan[0].Entries != int64(len(before)-4) || plan[0].Bytes == 0 || len(plan[0].Sample) == 0 {
		t.Errorf("plan: %+v", plan)
	}
	if w.State("r1") != release.Standby || !cmp.Equal(before, w.Entries("r1")) || len(w.Archives()) != 0 {
		t.Error("the plan changed something")
	}

	job := verbtest.NewJob("x")
	report, err := r.Expire(t.Context(), job, p)
	w.Must(err)
	if len(report.Archived) != 1 || report.Deleted < int64(len(before)) {
		t.Errorf("report: %+v", report)
	}
	gone := func() {
		t.Helper()
		if left := w.Entries("r1"); len(left) != 0 {
			t.Errorf("%d entries are left", len(left))
		}
		if d := cmp.Diff(neighbours, w.Neighbours("r1")); d != "" {
			t.Errorf("neighbours (-before +after):\n%s", d)
		}
		w.OnePointer("r2")
	}
	gone()
	if d := cmp.Diff(before, archived(w, "r1")); d != "" || w.State("r1") != release.Archived {
		t.Errorf("%s, archive (-before +archive):\n%s", w.State("r1"), d)
	}

	// The same task run once more, as asynq may: the release goes no further.
	_, err = r.Expire(t.Context(), job, p)
	w.Must(err)
	w.Verify("r1")
	if w.State("r1") != release.Archived {
		t.Errorf("run again, the task took it to %s", w.State("r1"))
	}

	// Another task of the same name expires it.
	plan, err = r.Plan(t.Context(), p)
	w.Must(err)
	if len(plan) != 1 || plan[0].To != release.Expired || plan[0].Archive != w.Snapshot("r1").Name {
		t.Errorf("plan: %+v", plan)
	}
	report, err = r.Expire(t.Context(), verbtest.NewJob("y"), p)
	w.Must(err)
	if len(report.Expired) != 1 || w.State("r1") != release.Expired || len(w.Archives()) != 0 || w.Snapshot("r1").DeletedAt.IsZero() {
		t.Errorf("%s, archives %v, %+v", w.State("r1"), w.Archives(), report)
	}
	gone()
}

func TestExpireRefuses(t *testing.T) {
	w := verbtest.New(t)
	w.Activate("pinned", "r1", "active")
	for _, id := range []string{"new", "warming"} {
		w.Create(id)
		w.Fill(id)
	}
	w.Must(w.Ledger.Pin(t.Context(), "pinned", true, verbtest.By))
	w.Must(w.Ledger.Move(t.Context(), "warming", release.New, release.Warming, verbtest.By))
	all := w.Neighbours("none")
	r := retire.New(rooms(w, nil))
	for id, want := range map[string]string{
		"active": "activate another release", "warming": "wait for the run", "pinned": "unpin", "new": "--no-snapshot",
	} {
		for _, noSnapshot := range []bool{false, true} {
			if id == "new" && noSnapshot {
				continue
			}
			p := tasks.Expire{Release: id, NoSnapshot: noSnapshot, By: verbtest.By}
			if _, err := r.Expire(t.Context(), verbtest.NewJob("x"), p); !errors.Is(err, tasks.ErrRefused) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", id, err, want)
			}
		}
	}
	if _, err := r.Expire(t.Context(), verbtest.NewJob("x"), tasks.Expire{NoSnapshot: true, By: verbtest.By}); !errors.Is(err, tasks.ErrInvalid) {
		t.Errorf("without a name: %v", err)
	}
	if _, err := r.Expire(t.Context(), verbtest.NewJob("x"), tasks.Expire{Release: "r9", By: verbtest.By}); !errors.Is(err, tasks.ErrNotFound) {
		t.Errorf("unknown: %v", err)
	}
	if d := cmp.Diff(all, w.Neighbours("none")); d != "" {
		t.Errorf("refused, yet (-before +after):\n%s", d)
	}
	for _, id := range []string{"new", "r1"} {
		_, err := r.Expire(t.Context(), verbtest.NewJob("x "+id), tasks.Expire{Release: id, NoSnapshot: true, By: verbtest.By})
		w.Must(err)
		if w.State(id) != release.Expired || len(w.Entries(id)) != 0 || len(w.Archives()) != 0 {
			t.Errorf("%s without a snapshot: %s, %d entries", id, w.State(id), len(w.Entries(id)))
		}
	}
}

func TestExpireByRule(t *testing.T) {
	w := verbtest.New(t)
	w.Activate("r1", "r2", "r3", "r4", "r5")
	w.Must(w.Ledger.Pin(t.Context(), "r2", true, verbtest.By))
	r := retire.New(rooms(w, nil))
	p := tasks.Expire{By: verbtest.By}
	report, err := r.Expire(t.Context(), verbtest.NewJob("hour 1"), p) // r4 stays
	w.Must(err)
	if d := cmp.Diff([]string{"r1", "r3"}, slices.Sorted(slices.Values(report.Archived))); d != "" {
		t.Errorf("archived (-want +got):\n%s", d)
	}
	report, err = r.Expire(t.Context(), verbtest.NewJob("hour 2"), p) // one may stay archived
	w.Must(err)
	if d := cmp.Diff([]string{"r1"}, report.Expired); d != "" || len(report.Archived) != 0 {
		t.Errorf("expired (-want +got):\n%s", d)
	}
	report, err = r.Expire(t.Context(), verbtest.NewJob("hour 3"), p)
	w.Must(err)
	if len(report.Archived)+len(report.Expired)+len(report.Skipped) != 0 {
		t.Errorf("nothing is left to do, yet: %+v", report)
	}
	for id, want := range map[string]release.State{"r1": "expired", "r2": "standby", "r3": "archived", "r4": "standby", "r5": "active"} {
		if got := w.State(id); got != want {
			t.Errorf("%s is %s, want %s", id, got, want)
		}
		if entries := len(w.Entries(id)); (entries > 0) != want.Live() {
			t.Errorf("%s is %s with %d entries", id, want, entries)
		}
	}
	w.Verify("r3")
}

// TestExpireByMemory: of those that the numbers keep on standby, the oldest go until the rest fits,
// by measured sizes, and the plan says why.
func TestExpireByMemory(t *testing.T) {
	w := verbtest.New(t)
	w.Activate("r1", "r2", "r3", "r4")
	one, err := w.Cache.Usage(t.Context(), "r1")
	w.Must(err)
	rs := rooms(w, nil)
	rs.Rule = release.Rule{Standby: 3, Archived: 3, Memory: 2*one.Bytes + one.Bytes/2}
	r, p := retire.New(rs), tasks.Expire{By: verbtest.By}
	plan, err := r.Plan(t.Context(), p)
	w.Must(err)
	if len(plan) != 1 || plan[0].Release != "r1" || plan[0].To != release.Archived || !strings.Contains(plan[0].Why, "together") || plan[0].Keys <= plan[0].Entries || plan[0].Bytes == 0 {
		t.Errorf("plan: %+v", plan)
	}
	for task, want := range []string{"r1", ""} {
		report, err := r.Expire(t.Context(), verbtest.NewJob(fmt.Sprint("hour ", task)), p)
		w.Must(err)
		if strings.Join(report.Archived, " ") != want {
			t.Errorf("archived %q, want %q", report.Archived, want)
		}
	}
	rs.Rule.Memory = 1
	report, err := retire.New(rs).Expire(t.Context(), verbtest.NewJob("a byte"), p)
	w.Must(err)
	if d := cmp.Diff([]string{"r2"}, report.Archived); d != "" || w.State("r3") != release.Standby {
		t.Errorf("with a budget of a byte, r3 is %s; archived (-want +got):\n%s", w.State("r3"), d)
	}
}

func TestExpireByRuleSkipsWhatIsRefused(t *testing.T) {
	w := verbtest.New(t)
	w.Activate("r1", "r2", "r3")
	none, err := snapshot.Open("")
	w.Must(err)
	rs := rooms(w, nil)
	rs.Store = none
	report, err := retire.New(rs).Expire(t.Context(), verbtest.NewJob("x"), tasks.Expire{By: verbtest.By})
	w.Must(err)
	if len(report.Skipped) != 1 || !strings.Contains(report.Skipped[0].Why, "STOKER_SNAPSHOT_URL") || w.State("r1") != release.Standby || len(w.Entries("r1")) == 0 {
		t.Errorf("%+v, r1 is %s", report, w.State("r1"))
	}
}

func TestExpireFailsAtEveryStep(t *testing.T) {
	for name, p := range map[string]tasks.Expire{
		"archive by name":   {Release: "r1", By: verbtest.By},
		"archive by rule":   {By: verbtest.By},
		"no snapshot":       {Release: "r1", NoSnapshot: true, By: verbtest.By},
		"expire an archive": {Release: "r1", By: verbtest.By},
	} {
		t.Run(name, func(t *testing.T) {
			w := verbtest.New(t)
			verbtest.EachFault(t, func(t *testing.T, f *verbtest.Faults) {
				w.Reset()
				w.Activate("r1", "r2", "r3")
				want := release.Archived
				if name == "expire an archive" {
					_, err := retire.New(rooms(w, nil)).Expire(t.Context(), verbtest.NewJob("before"), p)
					w.Must(err)
				}
				if name == "expire an archive" || p.NoSnapshot {
					want = release.Expired
				}
				neighbours, before := w.Neighbours("r1"), w.Entries("r1")
				job := verbtest.NewJob("x")
				job.F = f
				_, err := retire.New(rooms(w, f)).Expire(t.Context(), job, p)
				if err == nil && f.Fired != "" && !f.After && !strings.HasPrefix(f.Fired, "Ledger.Move") && f.Fired != "Store.Discard" {
					t.Errorf("a failed %s is no error", f.Fired)
				}
				if len(w.Entries("r1")) < len(before) && w.State("r1").Live() {
					t.Errorf("keys of a release that is %s are gone", w.State("r1"))
				}
				job.F = &verbtest.Faults{}
				_, err = retire.New(rooms(w, nil)).Expire(t.Context(), job, p)
				w.Must(err)
				if got := w.State("r1"); got != want || len(w.Entries("r1")) != 0 {
					t.Errorf("r1 is %s with %d entries, want %s", got, len(w.Entries("r1")), want)
				}
				if want == release.Archived {
					w.Verify("r1")
					if d := cmp.Diff(before, archived(w, "r1")); d != "" {
						t.Errorf("archive (-before +after):\n%s", d)
					}
				}
				if archives := len(w.Archives()); (archives == 1) != (want == release.Archived) {
					t.Errorf("%d archives of a release that is %s", archives, want)
				}
				if d := cmp.Diff(neighbours, w.Neighbours("r1")); d != "" {
					t.Errorf("neighbours (-before +after):\n%s", d)
				}
				w.OnePointer("r3")
				if n := openReaders(w); n != 0 {
					t.Errorf("%d readers are open", n)
				}
				report, err := retire.New(rooms(w, nil)).Expire(t.Context(), verbtest.NewJob("later"), tasks.Expire{By: verbtest.By})
				w.Must(err)
				if len(report.Archived)+len(report.Expired) != 0 {
					t.Errorf("left undone: %+v", report)
				}
			})
		})
	}
}

// purgingCache does something in the middle of a purge.
type purgingCache struct {
	retire.Cache
	before func()
}

func (c purgingCache) Purge(ctx context.Context, id, token string, progress func(int64)) (int64, error) {
	c.before()
	return c.Cache.Purge(ctx, id, token, progress)
}

// TestPurgeStopsWhenReleaseComesBack: a restore that begins while a purge is on its way wins.
func TestPurgeStopsWhenReleaseComesBack(t *testing.T) {
	w := verbtest.New(t)
	w.Activate("r1", "r2")
	rs := rooms(w, nil)
	rs.Cache = purgingCache{rs.Cache, func() {
		w.Must(w.Ledger.Move(t.Context(), "r1", release.Archived, release.Restoring, verbtest.By))
		w.Must(w.Cache.SetFence(t.Context(), "r1", "restore"))
	}}
	before := w.Entries("r1")
	_, err := retire.New(rs).Expire(t.Context(), verbtest.NewJob("x"), tasks.Expire{Release: "r1", By: verbtest.By})
	if !errors.Is(err, tasks.ErrRefused) {
		t.Errorf("got %v, want a refusal", err)
	}
	if d := cmp.Diff(before, w.Entries("r1")); d != "" {
		t.Errorf("keys of a release that is being restored (-before +after):\n%s", d)
	}
}

// TestLatePurgeDoesNotBegin: an expiry that slept between its move and its fence finds the
// release restored, and deletes nothing.
func TestLatePurgeDoesNotBegin(t *testing.T) {
	w := verbtest.New(t)
	w.Activate("r1", "r2")
	before := w.Entries("r1")
	rs := rooms(w, nil)
	rs.Ledger = wakingLedger{rs.Ledger, func() {
		w.Must(w.Ledger.Move(t.Context(), "r1", release.Archived, release.Restoring, verbtest.By))
		w.Must(w.Ledger.Move(t.Context(), "r1", release.Restoring, release.Standby, verbtest.By))
		_, err := w.Ledger.Flip(t.Context(), "r1", release.Standby, verbtest.By)
		w.Must(err)
	}}
	_, err := retire.New(rs).Expire(t.Context(), verbtest.NewJob("x"), tasks.Expire{Release: "r1", By: verbtest.By})
	if !errors.Is(err, tasks.ErrRefused) {
		t.Errorf("got %v, want a refusal", err)
	}
	if d := cmp.Diff(before, w.Entries("r1")); d != "" {
		t.Errorf("keys of the active release (-before +after):\n%s", d)
	}
	w.OnePointer("r1")
}

// wakingLedger does something right after the move to archived.
type wakingLedger struct {
	retire.Ledger
	after func()
}

func (l wakingLedger) Move(ctx context.Context, id string, from, to release.State, by tasks.By) error {
	err := l.Ledger.Move(ctx, id, from, to, by)
	if to == release.Archived {
		l.after()
	}
	return err
}

func TestOldSnapshotIsNotEnough(t *testing.T) {
	w := verbtest.New(t)
	w.Activate("r1")
	r := retire.New(rooms(w, nil))
	old, err := r.Snapshot(t.Context(), verbtest.NewJob("while active"), "r1")
	w.Must(err)
	w.Activate("r2")
	late := tasks.Entry{Key: "late", Type: tasks.EntryString, Value: "written after the snapshot"}
	w.Must(w.Cache.Write(t.Context(), "r1", []tasks.Entry{late}))
	_, err = r.Expire(t.Context(), verbtest.NewJob("x"), tasks.Expire{Release: "r1", By: verbtest.By})
	w.Must(err)
	if got := archived(w, "r1")["late"]; w.Snapshot("r1").Name == old.Name || got != verbtest.Text(late) {
		t.Errorf("archived with the old snapshot: late is %q", got)
	}
}

func TestDamagedSnapshotIsTakenAgain(t *testing.T) {
	w := verbtest.New(t)
	w.Activate("r1", "r2")
	r := retire.New(rooms(w, nil))
	good, err := r.Snapshot(t.Context(), verbtest.NewJob("a"), "r1")
	w.Must(err)
	w.Must(os.WriteFile(filepath.Join(strings.TrimPrefix(w.Store.String(), "file://"), good.Name), []byte("damaged"), 0o600))
	_, err = r.Expire(t.Context(), verbtest.NewJob("x"), tasks.Expire{Release: "r1", By: verbtest.By})
	w.Must(err)
	w.Verify("r1")
}

func TestExpireDrains(t *testing.T) {
	w := verbtest.New(t)
	w.Activate("r1", "r2")
	job := verbtest.NewJob("x")
	close(job.Drain)
	p := tasks.Expire{Release: "r1", By: verbtest.By}
	if _, err := retire.New(rooms(w, nil)).Expire(t.Context(), job, p); !errors.Is(err, tasks.ErrDraining) {
		t.Errorf("got %v", err)
	}
	if w.State("r1") != release.Standby || len(w.Archives()) != 0 {
		t.Errorf("draining, r1 became %s with archives %v", w.State("r1"), w.Archives())
	}
	ctx, cancel := context.WithTimeout(t.Context(), -time.Second)
	defer cancel()
	if _, err := retire.New(rooms(w, nil)).Snapshot(ctx, verbtest.NewJob("a"), "r1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
