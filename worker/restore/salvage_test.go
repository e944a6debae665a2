package restore_test

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/governor"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/restore"
	"github.com/alphanode/stoker/worker/retire/verbtest"
)

// spoilBlock flips a bit in the body of an archive's block, from 1.
func spoilBlock(w *verbtest.World, id string, number int) {
	w.T.Helper()
	raw, err := os.ReadFile(archiveFile(w, id))
	w.Must(err)
	at := 8
	for range number {
		at += 25 + int(binary.LittleEndian.Uint32(raw[at+5:]))
	}
	raw[at+25] ^= 1
	w.Must(os.WriteFile(archiveFile(w, id), raw, 0o600))
}

func TestSalvage(t *testing.T) {
	w, before := archived(t)
	spoilBlock(w, "r1", 2)
	invalidate(w)
	r := restore.New(rooms(w, nil))
	_, err := r.Rollback(t.Context(), verbtest.NewJob("a"), toR1)
	if !errors.Is(err, tasks.ErrRefused) || !strings.Contains(err.Error(), "stoker rollback --to r1 --salvage") || !strings.Contains(err.Error(), "frame 2 at offset") {
		t.Errorf("without being asked to: %v", err)
	}
	w.OnePointer("r2")

	salvage := toR1
	salvage.Salvage = true
	report, err := r.Rollback(t.Context(), verbtest.NewJob("b"), salvage)
	w.Must(err)
	w.OnePointer("r1")
	if s := report.Salvaged; s == nil || len(s.Lost) != 1 || s.Lost[0].Block != 2 || s.Lost[0].Entries != report.Lost || s.Lost[0].First == "" ||
		s.Entries+report.Lost != int64(len(before)) || report.Lost == 0 {
		t.Fatalf("report %+v, %+v", report, report.Salvaged)
	}
	want, got := without(before), w.Entries("r1")
	for key, text := range got {
		if want[key] != text {
			t.Errorf("%q came back as %q, want %q", key, text, want[key])
		}
	}
	if len(got) < len(want)-int(report.Lost) {
		t.Errorf("%d entries came back of %d, %d lost", len(got), len(want), report.Lost)
	}
	history, err := w.Ledger.History(t.Context(), "r1")
	w.Must(err)
	found := false
	for _, move := range history {
		found = found || move.To == release.Standby && strings.Contains(move.Reason, "salvaged from a damaged archive")
	}
	if !found {
		t.Errorf("the history does not tell: %+v", history)
	}
}

// TestSalvageNeedsTheTags: an entry whose tags nobody knows would outlive their invalidation.
func TestSalvageNeedsTheTags(t *testing.T) {
	w, _ := archived(t)
	for number := 1; ; number++ { // the indexes are in the last block
		raw, err := os.ReadFile(archiveFile(w, "r1"))
		w.Must(err)
		at := 8
		for range number + 1 {
			at += 25 + int(binary.LittleEndian.Uint32(raw[at+5:]))
		}
		if raw[at] == 'I' {
			spoilBlock(w, "r1", number)
			break
		}
	}
	salvage := toR1
	salvage.Salvage = true
	_, err := restore.New(rooms(w, nil)).Rollback(t.Context(), verbtest.NewJob("a"), salvage)
	if !errors.Is(err, tasks.ErrRefused) || !strings.Contains(err.Error(), "4 of its 4 tag indexes are damaged") {
		t.Errorf("got %v", err)
	}
	if w.State("r1") != release.Archived {
		t.Errorf("r1 is %s", w.State("r1"))
	}
}

// fakeServer is a cache Redis as a restore sees it.
type fakeServer struct {
	used, limit int64
	dump        int
}

func (s fakeServer) Memory(context.Context) ([]governor.Memory, error) {
	return []governor.Memory{{Used: s.used, Limit: s.limit}}, nil
}
func (s fakeServer) DumpVersion(context.Context) (int, error) { return s.dump, nil }

func TestRestoreThatCannotFit(t *testing.T) {
	w, _ := archived(t)
	for says, server := range map[string]fakeServer{
		"maxmemory 1.0 MiB, 922 KiB in use, 10% kept free": {944_000, 1 << 20, 99},
		"this cache Redis takes up to 9":                   {0, 0, 9},
	} {
		r := rooms(w, nil)
		r.Server = server
		_, err := restore.New(r).Rollback(t.Context(), verbtest.NewJob("a"), toR1)
		if !errors.Is(err, tasks.ErrRefused) || !strings.Contains(err.Error(), says) || w.State("r1") != release.Archived {
			t.Errorf("%+v: %v, want %q", server, err, says)
		}
	}
}
