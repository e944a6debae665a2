package restore_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/restore"
	"github.com/alphanode/stoker/worker/retire/verbtest"
)

var drillR1 = tasks.Drill{Release: "r1", By: verbtest.By}

// scratchKeys returns the keys of scratch namespaces and of stoker's bookkeeping of them.
func scratchKeys(t *testing.T, w *verbtest.World) []string {
	t.Helper()
	keys, err := w.Client.Keys(t.Context(), "*"+tasks.ScratchPrefix+"*").Result()
	w.Must(err)
	noted, err := w.Client.HKeys(t.Context(), w.Keys.Drills()).Result()
	w.Must(err)
	return append(keys, noted...)
}

func lastDrill(t *testing.T, w *verbtest.World, id string) (d restore.Drill) {
	t.Helper()
	rec, err := w.Ledger.Get(t.Context(), id)
	w.Must(err)
	_, err = rec.Doc(release.DocDrill, &d)
	w.Must(err)
	return d
}

func archiveFile(w *verbtest.World, id string) string {
	return filepath.Join(strings.TrimPrefix(w.Store.String(), "file://"), w.Snapshot(id).Name)
}

func TestDrill(t *testing.T) {
	w, before := archived(t)
	invalidate(w)
	neighbours := w.Neighbours("r1")
	live, err := w.Ledger.Live(t.Context())
	w.Must(err)

	got, err := restore.New(rooms(w, nil)).Drill(t.Context(), verbtest.NewJob("a"), tasks.Drill{By: verbtest.By})
	w.Must(err)
	if !got.Good || got.Release != "r1" || got.Compared != int64(len(before)) || got.Replayed != 3 || got.Seconds <= 0 || got.LastGood.IsZero() {
		t.Errorf("drill %+v, want %d compared", got, len(before))
	}
	if d := cmp.Diff(got, lastDrill(t, w, "r1")); d != "" {
		t.Errorf("recorded drill (-returned +recorded):\n%s", d)
	}
	if left := scratchKeys(t, w); len(left) > 0 {
		t.Errorf("the drill leaves %q", left)
	}
	if d := cmp.Diff(neighbours, w.Neighbours("r1")); d != "" {
		t.Errorf("neighbours (-before +after):\n%s", d)
	}
	now, err := w.Ledger.Live(t.Context())
	w.Must(err)
	if d := cmp.Diff(live, now); d != "" || w.State("r1") != release.Archived || len(w.Entries("r1")) > 0 {
		t.Errorf("r1 is %s, live (-before +after):\n%s", w.State("r1"), d)
	}
	w.OnePointer("r2")
}

// lossyCache changes one entry and drops another on their way into a scratch namespace.
type lossyCache struct{ restore.Cache }

func (c lossyCache) Write(ctx context.Context, id string, entries []tasks.Entry) error {
	var kept []tasks.Entry
	for _, e := range entries {
		switch e.Key {
		case "post:1":
			e.Value += "!"
		case "post:2":
			e.ExpiresAt += 5
		case "hash":
			continue
		}
		kept = append(kept, e)
	}
	return c.Cache.Write(ctx, id, kept)
}

func TestDrillFindsWhatIsDifferent(t *testing.T) {
	w, _ := archived(t)
	r := rooms(w, nil)
	w.Must(w.Ledger.SetDoc(t.Context(), "r1", release.DocDrill, restore.Drill{LastGood: time.Unix(1000, 0).UTC(), Seconds: 7}))
	r.Cache = lossyCache{r.Cache}
	got, err := restore.New(r).Drill(t.Context(), verbtest.NewJob("a"), drillR1)
	w.Must(err)
	if d := cmp.Diff([]tasks.Bytes{"hash", "post:1", "post:2"}, got.Examples); d != "" || got.Good || got.Different != 3 || !strings.Contains(got.Why, "3 of ") {
		t.Errorf("drill %+v, examples (-want +got):\n%s", got, d)
	}
	if kept := lastDrill(t, w, "r1"); kept.LastGood.Unix() != 1000 || kept.Seconds != 7 {
		t.Errorf("the last good drill is forgotten: %+v", kept)
	}
	if left := scratchKeys(t, w); len(left) > 0 {
		t.Errorf("the drill leaves %q", left)
	}
}

func TestDrillThatTellsOfARefusedRollback(t *testing.T) {
	w := verbtest.New(t)
	for name, spoil := range map[string]func(){
		" at offset ": func() {
			raw, err := os.ReadFile(archiveFile(w, "r1"))
			w.Must(err)
			raw[len(raw)/2] ^= 1
			w.Must(os.WriteFile(archiveFile(w, "r1"), raw, 0o600))
		},
		"queue Redis was lost": func() { w.Must(w.Client.HSet(t.Context(), w.Keys.LogMeta(), "epoch", "another").Err()) },
		"is missing":           func() { w.Must(os.Remove(archiveFile(w, "r1"))) },
	} {
		w.Reset()
		archive(w)
		spoil()
		got, err := restore.New(rooms(w, nil)).Drill(t.Context(), verbtest.NewJob("a"), drillR1)
		if err != nil || got.Good || !strings.Contains(got.Why, name) || lastDrill(t, w, "r1").Why != got.Why {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	w.Reset()
	got, err := restore.New(rooms(w, nil)).Drill(t.Context(), verbtest.NewJob("a"), tasks.Drill{By: verbtest.By})
	if err != nil || got.Good || got.Why == "" {
		t.Errorf("without any archive: %+v, %v", got, err)
	}
}

// TestDrillFailsAtEveryStep: whatever fails, the retry is good and leaves nothing; and what a
// drill left whose task is gone for good, housekeeping finds.
func TestDrillFailsAtEveryStep(t *testing.T) {
	w := verbtest.New(t)
	archive(w)
	neighbours := w.Neighbours("r1")
	verbtest.EachFault(t, func(t *testing.T, f *verbtest.Faults) {
		job := verbtest.NewJob("a")
		job.F = f
		_, err := restore.New(rooms(w, f)).Drill(t.Context(), job, drillR1)
		if err == nil && f.Fired != "" {
			t.Errorf("a failed %s is no error", f.Fired)
		}
		if f.At%2 == 0 { // the task is gone for good
			r := rooms(w, nil)
			r.Now = func() time.Time { return time.Now().Add(restore.AbandonedAfter + time.Minute) }
			_, err = restore.New(r).DropScratches(t.Context())
			w.Must(err)
		} else {
			job.F = &verbtest.Faults{}
			got, err := restore.New(rooms(w, nil)).Drill(t.Context(), job, drillR1)
			w.Must(err)
			if !got.Good {
				t.Errorf("the retry is not good: %+v", got)
			}
		}
		var left []string
		for _, key := range scratchKeys(t, w) {
			if key != w.Keys.Fence(strings.TrimPrefix(key, w.Keys.Fence(""))) {
				left = append(left, key)
			}
		}
		if len(left) > 0 {
			t.Errorf("left: %q", left)
		}
		if d := cmp.Diff(neighbours, w.Neighbours("r1")); d != "" {
			t.Errorf("neighbours (-before +after):\n%s", d)
		}
	})
}

// TestScratchIsNoRelease: no release can have the name of a scratch namespace.
func TestScratchIsNoRelease(t *testing.T) {
	w := verbtest.New(t)
	err := w.Ledger.Create(t.Context(), release.Record{ID: tasks.ScratchPrefix + "x", Template: w.Template.String()}, verbtest.By)
	if !errors.Is(err, tasks.ErrInvalid) {
		t.Errorf("create: %v", err)
	}
}
