package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/alphanode/stoker/tasks"
)

// TestArchivingGoesOn kills the writer of an archive again and again, at any place: what is published is whole,
// and holds what was written up to each checkpoint and after the last one.
func TestArchivingGoesOn(t *testing.T) {
	const name = "r1.stoker"
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		s := NewFileStore(dir)
		must := func(err error) {
			rt.Helper()
			if err != nil {
				rt.Fatal(err)
			}
		}
		a, err := Begin(t.Context(), s, name, testHeader)
		must(err)
		var kept []byte                    // the last checkpoint, as a job keeps it
		var safe, all []int                // entries up to it, and all
		entry := func(i int) tasks.Entry { // some are larger than a block
			e := testEntries[i%len(testEntries)]
			if e.Key = fmt.Sprint(i); single(e.Type) {
				e.Value = fmt.Sprint(i, string(make([]byte, i%7*200_000)))
			}
			return e
		}
		for i := range rapid.IntRange(1, 60).Draw(rt, "entries") {
			must(a.Write(entry(i)))
			all = append(all, i)
			switch rapid.IntRange(0, 5).Draw(rt, "then") {
			case 0:
				c, ok, err := a.Checkpoint()
				must(err)
				if !ok {
					rt.Fatal("no checkpoint of a file")
				}
				kept, err = json.Marshal(c)
				must(err)
				safe = append([]int{}, all...)
			case 1: // killed
				if kept == nil {
					break
				}
				must(a.Leave())
				var c Checkpoint
				must(json.Unmarshal(kept, &c))
				a, err = Resume(t.Context(), s, c)
				must(err)
				if a.Entries() != int64(len(safe)) {
					rt.Fatalf("%d entries at the checkpoint, %d after it", len(safe), a.Entries())
				}
				all = append([]int{}, safe...)
			}
		}
		wrote, err := a.Commit()
		must(err)
		in, err := s.Open(t.Context(), name)
		must(err)
		defer func() { _ = in.Close() }()
		got, read, err := readAll(in)
		must(err)
		var want []tasks.Entry
		for _, i := range all {
			want = append(want, entry(i))
		}
		if d := cmp.Diff(wrote, read, asWritten); d != "" || !cmp.Equal(want, got) {
			rt.Fatalf("%d entries, want %d; summary (-wrote +read):\n%s", len(got), len(want), d)
		}
		if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
			rt.Fatalf("left behind: %v, %v", files, err)
		}
	})
}

// TestCheckpointOfAnotherStore: it is no reason to fail.
func TestCheckpointOfAnotherStore(t *testing.T) {
	s := NewFileStore(t.TempDir())
	for _, draft := range []string{`{"upload":"x","parts":["y"],"tail":""}`, `null`, `{"file":".r1.stoker.1.draft","size":3}`} {
		_, err := Resume(context.Background(), s, Checkpoint{Name: "r1.stoker", Header: testHeader, Draft: json.RawMessage(draft)})
		if !errors.Is(err, tasks.ErrNotFound) {
			t.Errorf("%s: %v", draft, err)
		}
	}
}
