package sourcetest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/alphanode/stoker/worker/warm/source"
)

// asked are the keys that the contract asks for: all that a walk reads, and the others.
func (h Harness) asked() []string {
	known := slices.DeleteFunc(slices.Clone(h.Entries), func(key string) bool { return key == "" })
	return slices.Concat(known, h.Gone, h.Failing)
}

// find asks for every key, some of them twice: each must be answered once, as a walk reads it.
func (h Harness) find(t *testing.T) {
	h.Reset(t)
	want := entries(h.read(t, source.Part{}, ""))
	s := h.Open(t).(source.Finder)
	for range 2 { // it may be repeated
		h.Reset(t)
		var chunks []source.Chunk
		asked := h.asked()
		keys := slices.Concat(asked, asked[:len(asked)/2])
		if err := s.Find(t.Context(), keys, func(c source.Chunk) error { chunks = append(chunks, c); return nil }); err != nil {
			t.Fatal(err)
		}
		var got []source.Entry
		var gone, failing []string
		for _, c := range chunks {
			if c.Written != h.Written || c.Next != "" || c.Kept != 0 {
				t.Errorf("chunk written by %q, next %q, kept %d: want %q, none and none", c.Written, c.Next, c.Kept, h.Written)
			}
			got, gone = append(got, c.Entries...), append(gone, c.Gone...)
			for _, f := range c.Failed {
				failing = append(failing, f.Key)
				if f.Error == "" {
					t.Errorf("%q failed without a reason", f.Key)
				}
			}
		}
		if diff := cmp.Diff(want, got, byKey, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("entries, each once (-walk +find):\n%s", diff)
		}
		for what, lists := range map[string][2][]string{"gone": {h.Gone, gone}, "failing": {h.Failing, failing}} {
			if diff := cmp.Diff(lists[0], lists[1], cmpopts.SortSlices(strings.Compare), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s, each once (-want +got):\n%s", what, diff)
			}
		}
	}
}

// byKey orders entries.
var byKey = cmpopts.SortSlices(func(a, b source.Entry) int { return strings.Compare(a.Key, b.Key) })

func entries(chunks []source.Chunk) []source.Entry {
	var all []source.Entry
	for _, c := range chunks {
		for _, e := range c.Entries {
			if e.Key != "" {
				all = append(all, e)
			}
		}
	}
	return all
}

func (h Harness) findErrors(t *testing.T) {
	h.Reset(t)
	s := h.Open(t).(source.Finder)
	calls := 0
	stop := func(source.Chunk) error { calls++; return errStop }
	if err := s.Find(t.Context(), h.asked(), stop); !errors.Is(err, errStop) || calls != 1 {
		t.Errorf("got %v after %d chunks, want the callback's error after 1", err, calls)
	}
	calls = 0
	if err := s.Find(t.Context(), nil, stop); err != nil || calls != 0 {
		t.Errorf("no keys: got %v after %d chunks, want none", err, calls)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Find(ctx, h.asked(), stop); !errors.Is(err, context.Canceled) || calls != 0 {
		t.Errorf("got %v after %d chunks, want a cancelled context and none", err, calls)
	}
}
