package restore_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/governor"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/restore"
	"github.com/alphanode/stoker/worker/retire/verbtest"
)

// scarce is a pacer that lets some slices pass and then says that there is no room.
type scarce struct{ atomic.Int64 }

func slicesLeft(n int64) *scarce {
	p := new(scarce)
	p.Store(n)
	return p
}

func (*scarce) Size() int { return 5 }

func (p *scarce) Wait(context.Context) error {
	if p.Add(-1) < 0 {
		return governor.Headroom(0.1).Room(governor.Memory{Used: 95 << 20, Limit: 100 << 20})
	}
	return nil
}

func (*scarce) Done(time.Duration, int) {}

// TestRestoreEndsWithoutRoom: a restore, and a drill, whose room runs out in mid-work give back what
// they took; what was served is served, and the archive can come back later.
func TestRestoreEndsWithoutRoom(t *testing.T) {
	w, before := archived(t)
	served := w.Entries("r2")
	left := slicesLeft(3)
	r := rooms(w, nil)
	r.Cache = namespace.New(w.Client, w.Template, w.Keys, func(_ context.Context, work namespace.Work) namespace.Pacer {
		if work.Adds {
			return left
		}
		return slicesLeft(1000)
	})
	_, err := restore.New(r).Rollback(t.Context(), verbtest.NewJob("a"), toR1)
	if !errors.Is(err, tasks.ErrRefused) || !strings.Contains(err.Error(), "95 MiB of its 100 MiB in use") {
		t.Errorf("got %v", err)
	}
	if left.Load() >= 0 {
		t.Error("the room did not run out")
	}
	if n := len(w.Entries("r1")); w.State("r1") != release.Archived || n != 0 {
		t.Errorf("r1 is %s with %d entries", w.State("r1"), n)
	}
	drill, err := restore.New(r).Drill(t.Context(), verbtest.NewJob("drill"), tasks.Drill{Release: "r1", By: verbtest.By})
	if err != nil || drill.Good || !strings.Contains(drill.Why, "STOKER_MEMORY_HEADROOM") {
		t.Errorf("drill: %+v, %v", drill, err)
	}
	if left, err := w.Client.Keys(t.Context(), "*"+tasks.ScratchPrefix+"*").Result(); err != nil || len(left) != 0 {
		t.Errorf("the drill left %q, %v", left, err)
	}
	if len(w.Entries("r2")) != len(served) {
		t.Errorf("%d entries of r2 are left of %d", len(w.Entries("r2")), len(served))
	}
	w.OnePointer("r2")
	_, err = restore.New(rooms(w, nil)).Rollback(t.Context(), verbtest.NewJob("b"), toR1)
	w.Must(err)
	if n := len(w.Entries("r1")); n != len(before) {
		t.Errorf("with room, %d of %d entries came back", n, len(before))
	}
}
