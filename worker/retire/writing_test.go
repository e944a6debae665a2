package retire_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/retire"
	"github.com/alphanode/stoker/worker/retire/verbtest"
	"github.com/alphanode/stoker/worker/snapshot"
)

// steps is a pacer of slices so small that a reading has many.
type steps struct{}

func (steps) Size() int                      { return 10 }
func (steps) Wait(ctx context.Context) error { return ctx.Err() }
func (steps) Done(time.Duration, int)        {}

// manySlices is a world whose r1, on standby, is read in many slices.
func manySlices(t *testing.T) *verbtest.World {
	t.Helper()
	w := verbtest.New(t)
	w.Cache = namespace.New(w.Client, w.Template, w.Keys, func(context.Context, namespace.Work) namespace.Pacer { return steps{} })
	w.Activate("r1", "r2")
	return w
}

// countingCache counts the entries that are read.
type countingCache struct {
	retire.Cache
	read *int
}

func (c countingCache) ReadFrom(ctx context.Context, id, cursor string, fn func([]tasks.Entry, string) error) error {
	return c.Cache.ReadFrom(ctx, id, cursor, func(entries []tasks.Entry, next string) error {
		*c.read += len(entries)
		return fn(entries, next)
	})
}

// drafts returns what is left of archives that were never finished.
func drafts(w *verbtest.World) (names []string) {
	w.T.Helper()
	files, err := os.ReadDir(strings.TrimPrefix(w.Store.String(), "file://"))
	if !errors.Is(err, os.ErrNotExist) {
		w.Must(err)
	}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), ".") {
			names = append(names, f.Name())
		}
	}
	return names
}

// TestSnapshotGoesOnWhereItEnded kills a snapshot's worker, or has it drain, after each of its slices: its
// retry reads the rest alone, and the archive holds every entry once.
func TestSnapshotGoesOnWhereItEnded(t *testing.T) {
	w := manySlices(t)
	all := len(w.Entries("r1"))
	for name, end := range map[string]func(slice int, job *verbtest.Job, r *retire.Rooms){
		"killed": func(slice int, _ *verbtest.Job, r *retire.Rooms) {
			f := &verbtest.Faults{Mode: verbtest.Mode{Dead: true}, At: slice + 1} // the first call is no slice
			r.Cache = verbtest.Cache{Cache: w.Cache, F: f}
			r.Log = verbtest.Log{Log: w.Log, F: &verbtest.Faults{}}
		},
		"draining": func(slice int, job *verbtest.Job, r *retire.Rooms) {
			r.Cache = drainingCache{r.Cache, job, slice}
		},
	} {
		rereads := 0
		for slice := 2; ; slice++ {
			w.Store = snapshot.NewFileStore(t.TempDir())
			job, rs := verbtest.NewJob("a"), rooms(w, nil)
			end(slice, job, &rs)
			if _, err := retire.New(rs).Snapshot(t.Context(), job, "r1"); err == nil {
				if slice < 6 {
					t.Fatalf("%s: only %d slices", name, slice)
				}
				break
			}
			if n := openReaders(w); n != 1 || len(drafts(w)) != 1 || len(w.Archives()) != 0 {
				t.Fatalf("%s at slice %d leaves %d readers, drafts %q and archives %q", name, slice, n, drafts(w), w.Archives())
			}
			job.Drain, job.F = make(chan struct{}), &verbtest.Faults{}
			read := 0
			rs = rooms(w, nil)
			rs.Cache = countingCache{rs.Cache, &read}
			d, err := retire.New(rs).Snapshot(t.Context(), job, "r1")
			w.Must(err)
			if d.Entries != int64(all) || read >= all {
				t.Errorf("%s at slice %d: %d entries in the archive, %d read by the retry, %d there are", name, slice, d.Entries, read, all)
			}
			rereads += read
			if diff := cmp.Diff(w.Entries("r1"), archived(w, "r1")); diff != "" {
				t.Errorf("%s at slice %d (-namespace +archive):\n%s", name, slice, diff)
			}
			w.Verify("r1")
			if left := drafts(w); len(left) > 0 || openReaders(w) > 0 {
				t.Errorf("%s at slice %d leaves %q and %d readers", name, slice, left, openReaders(w))
			}
		}
		t.Logf("%s: %d entries, the retries read %d", name, all, rereads)
	}
}

// drainingCache has the worker drain at one slice.
type drainingCache struct {
	retire.Cache
	job   *verbtest.Job
	slice int
}

func (c drainingCache) ReadFrom(ctx context.Context, id, cursor string, fn func([]tasks.Entry, string) error) error {
	n := 0
	return c.Cache.ReadFrom(ctx, id, cursor, func(entries []tasks.Entry, next string) error {
		if n++; n == c.slice-1 {
			close(c.job.Drain)
		}
		return fn(entries, next)
	})
}

// TestSnapshotThatCannotGoOn begins anew: what was read, or where it was to go on, is not what it was.
func TestSnapshotThatCannotGoOn(t *testing.T) {
	for name, change := range map[string]func(w *verbtest.World, job *verbtest.Job){
		"the draft is gone": func(w *verbtest.World, _ *verbtest.Job) {
			w.Must(os.Remove(strings.TrimPrefix(w.Store.String(), "file://") + "/" + drafts(w)[0]))
		},
		"the release has moved": func(w *verbtest.World, _ *verbtest.Job) {
			for _, to := range []release.State{release.Archived, release.Restoring, release.Standby} {
				rec, err := w.Ledger.Get(w.T.Context(), "r1")
				w.Must(err)
				w.Must(w.Ledger.Move(w.T.Context(), "r1", rec.State, to, verbtest.By))
			}
		},
		"the server is another process": func(w *verbtest.World, job *verbtest.Job) {
			job.Cursor = regexp.MustCompile(`"read":"0\.\d+"`).ReplaceAll(job.Cursor, []byte(`"read":"0.281474976710657"`))
		},
		"the reader was closed": func(w *verbtest.World, _ *verbtest.Job) {
			w.Must(w.Log.CloseReader(w.T.Context(), "a/r1"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := manySlices(t)
			all := len(w.Entries("r1"))
			job, rs := verbtest.NewJob("a"), rooms(w, nil)
			rs.Cache = verbtest.Cache{Cache: w.Cache, F: &verbtest.Faults{Mode: verbtest.Mode{Dead: true}, At: 4}}
			if _, err := retire.New(rs).Snapshot(t.Context(), job, "r1"); !errors.Is(err, verbtest.ErrFault) {
				t.Fatalf("got %v", err)
			}
			w.Invalidate(verbtest.Target("key:none")) // so that a new mark is another
			change(w, job)
			read := 0
			rs = rooms(w, nil)
			rs.Cache = countingCache{rs.Cache, &read}
			d, err := retire.New(rs).Snapshot(t.Context(), job, "r1")
			w.Must(err)
			if d.Entries != int64(all) || read < all {
				t.Errorf("%d entries in the archive, %d read by the retry, %d there are", d.Entries, read, all)
			}
			w.Verify("r1")
			if left := drafts(w); len(left) > 0 || len(w.Archives()) != 1 || openReaders(w) > 0 {
				t.Errorf("drafts %q, archives %q, %d readers are left", left, w.Archives(), openReaders(w))
			}
		})
	}
}

// TestForsaken: what a snapshot wrote whose task is gone for good goes, and a neighbour's stays.
func TestForsaken(t *testing.T) {
	w := manySlices(t)
	for _, id := range []string{"a", "b"} {
		rs := rooms(w, nil)
		rs.Cache = verbtest.Cache{Cache: w.Cache, F: &verbtest.Faults{Mode: verbtest.Mode{Dead: true}, At: 4}}
		if _, err := retire.New(rs).Snapshot(t.Context(), verbtest.NewJob(id), "r1"); !errors.Is(err, verbtest.ErrFault) {
			t.Fatalf("got %v", err)
		}
	}
	readers, err := w.Log.OpenReaders(t.Context())
	w.Must(err)
	for range 2 {
		w.Must(retire.New(rooms(w, nil)).Forsake(t.Context(), "a/r1", readers["a/r1"]))
	}
	if left := drafts(w); len(left) != 1 || !strings.Contains(left[0], snapshot.Name(verbtest.App, "r1", readers["b/r1"].Number, "b")) {
		t.Errorf("drafts left: %q", left)
	}
}

// TestPublishedArchiveIsNotReadAgain: a worker that dies while it reads its archive back has only that to do
// again.
func TestPublishedArchiveIsNotReadAgain(t *testing.T) {
	w := verbtest.New(t)
	w.Activate("r1", "r2")
	job, rs := verbtest.NewJob("a"), rooms(w, nil)
	f := &verbtest.Faults{Mode: verbtest.Mode{Dead: true}, At: 1}
	rs.Store = unreadable{rs.Store, f}
	if _, err := retire.New(rs).Snapshot(t.Context(), job, "r1"); !errors.Is(err, verbtest.ErrFault) {
		t.Fatalf("got %v", err)
	}
	read := 0
	rs = rooms(w, nil)
	rs.Cache = countingCache{rs.Cache, &read}
	_, err := retire.New(rs).Snapshot(t.Context(), job, "r1")
	w.Must(err)
	if read > 0 {
		t.Errorf("%d entries were read again", read)
	}
	w.Verify("r1")
	if got := fmt.Sprint(drafts(w), openReaders(w), len(w.Archives())); got != "[] 0 1" {
		t.Errorf("left: %s", got)
	}
}

// unreadable is a store from which nothing can be read.
type unreadable struct {
	snapshot.Store
	f *verbtest.Faults
}

func (s unreadable) Open(ctx context.Context, name string) (in snapshot.Source, err error) {
	err = s.f.Do("Store.Open", func() error { in, err = s.Store.Open(ctx, name); return err })
	return in, err
}
