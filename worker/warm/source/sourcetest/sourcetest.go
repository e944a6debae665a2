// Package sourcetest is the contract of [source.Source] and [source.Finder] as tests that every source runs.
package sourcetest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/source"
)

// Harness is a source under test, over data that stays as it is unless Reset changes it back.
type Harness struct {
	Open    func(t *testing.T) source.Source
	Reset   func(t *testing.T) // before each walk; nil when a walk leaves no trace
	Keys    []string           // what Keys must name
	Entries []string           // the keys of what a walk must read; "" counts too
	Failed  int                // items of which a walk must say that they failed
	Written source.Written
	Resumes bool // chunks tell a position
	Whole   bool // a sampled walk cannot choose single keys
	// Forgives says that a position which nobody can read is the beginning, and no error.
	Forgives bool
	// Gone are keys that the source, a [source.Finder] then, must not find: of its keys' shape
	// and of others. Failing are those that it must say it cannot read.
	Gone, Failing []string
}

// Run runs the contract.
func Run(t *testing.T, h Harness) {
	if h.Reset == nil {
		h.Reset = func(*testing.T) {}
	}
	t.Run("keys", h.keys)
	t.Run("walk", h.walk)
	t.Run("errors of the callback", h.callback)
	t.Run("cancelled", h.cancelled)
	t.Run("resume", h.resume)
	t.Run("wrong position", h.position)
	t.Run("sampled", h.sampled)
	t.Run("items", h.items)
	if _, ok := h.Open(t).(source.Finder); ok {
		t.Run("find", h.find)
		t.Run("find: errors", h.findErrors)
	} else if len(h.Gone)+len(h.Failing) > 0 {
		t.Error("the source cannot be asked for single entries")
	}
}

func (h Harness) keys(t *testing.T) {
	var got []string
	err := h.Open(t).Keys(t.Context(), func(key string) error { got = append(got, key); return nil })
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, h.Keys)
}

// read walks from a position and returns every chunk.
func (h Harness) read(t *testing.T, part source.Part, from string) []source.Chunk {
	t.Helper()
	h.Reset(t)
	var chunks []source.Chunk
	err := h.Open(t).Walk(t.Context(), part, from, func(c source.Chunk) error { chunks = append(chunks, c); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return chunks
}

func (h Harness) walk(t *testing.T) {
	for range 2 { // a walk may be repeated
		h.Reset(t)
		var failed int
		chunks := h.read(t, source.Part{}, "")
		for _, c := range chunks {
			failed += len(c.Failed)
			if c.Written != h.Written {
				t.Errorf("chunk written by %q, want %q", c.Written, h.Written)
			}
			for _, e := range c.Entries {
				if err := source.CheckKey(e.Key); e.Key != "" && err != nil {
					t.Error(err)
				}
				if err := e.Validate(); c.Written == source.ByRunner && err != nil {
					t.Error(err)
				}
			}
			for _, f := range c.Failed {
				if f.Error == "" {
					t.Errorf("%q failed without a reason", f.Key)
				}
			}
		}
		if failed != h.Failed {
			t.Errorf("%d failed, want %d", failed, h.Failed)
		}
		same(t, keysOf(chunks), h.Entries)
	}
}

var errStop = errors.New("stop")

func (h Harness) callback(t *testing.T) {
	h.Reset(t)
	calls := 0
	stop := func() error { calls++; return errStop }
	if err := h.Open(t).Keys(t.Context(), func(string) error { return stop() }); !errors.Is(err, errStop) || calls != 1 {
		t.Errorf("keys: got %v after %d calls, want the callback's error after 1", err, calls)
	}
	calls = 0
	if err := h.Open(t).Walk(t.Context(), source.Part{}, "", func(source.Chunk) error { return stop() }); !errors.Is(err, errStop) || calls != 1 {
		t.Errorf("walk: got %v after %d calls, want the callback's error after 1", err, calls)
	}
}

func (h Harness) cancelled(t *testing.T) {
	h.Reset(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	calls := 0
	err := h.Open(t).Walk(ctx, source.Part{}, "", func(source.Chunk) error { calls++; return nil })
	if !errors.Is(err, context.Canceled) || calls != 0 {
		t.Errorf("got %v after %d chunks, want a cancelled context and none", err, calls)
	}
}

// resume walks on from every position: nothing may be left out.
func (h Harness) resume(t *testing.T) {
	h.Reset(t)
	chunks := h.read(t, source.Part{}, "")
	positions := 0
	for i, c := range chunks {
		if c.Next == "" {
			continue
		}
		positions++
		h.Reset(t)
		all := append(slices.Clone(chunks[:i+1]), h.read(t, source.Part{}, c.Next)...)
		same(t, keysOf(all), h.Entries)
	}
	if h.Resumes != (positions > 0) {
		t.Errorf("%d positions in %d chunks; resumes: %v", positions, len(chunks), h.Resumes)
	}
}

func (h Harness) position(t *testing.T) {
	if !h.Resumes {
		t.Skip("the source has no positions")
	}
	h.Reset(t)
	var chunks []source.Chunk
	err := h.Open(t).Walk(t.Context(), source.Part{}, "no position", func(c source.Chunk) error { chunks = append(chunks, c); return nil })
	if h.Forgives && err == nil {
		same(t, keysOf(chunks), h.Entries)
	} else if !errors.Is(err, tasks.ErrInvalid) {
		t.Errorf("got %v, want invalid input", err)
	}
}

func (h Harness) sampled(t *testing.T) {
	if h.Whole {
		t.Skip("the source cannot choose single keys")
	}
	h.Reset(t)
	const share = 0.5
	first := keysOf(h.read(t, source.Part{Share: share}, ""))
	same(t, keysOf(h.read(t, source.Part{Share: share}, "")), first)
	if len(first) == 0 || len(first) >= len(h.Entries) {
		t.Errorf("a half of %d entries holds %d", len(h.Entries), len(first))
	}
	more := count(keysOf(h.read(t, source.Part{Share: 0.9}, "")))
	for key := range count(first) {
		if more[key] == 0 {
			t.Errorf("%q is in the smaller sample only", key)
		}
	}
}

// items walks the source's own keys as a list: it finds the same, in whatever parts, and goes on
// from a position.
func (h Harness) items(t *testing.T) {
	h.Reset(t)
	chunks := h.read(t, source.Part{Items: h.Keys}, "")
	same(t, keysOf(chunks), h.Entries)
	for i, c := range chunks {
		if c.Next == "" {
			t.Fatalf("chunk %d of a list tells no position", i)
		}
	}
	middle := len(chunks) / 2
	h.Reset(t)
	all := append(slices.Clone(chunks[:middle+1]), h.read(t, source.Part{Items: h.Keys}, chunks[middle].Next)...)
	same(t, keysOf(all), h.Entries)
	half := h.Keys[:len(h.Keys)/2]
	except := map[string]bool{}
	for _, key := range half {
		except[key] = true
	}
	h.Reset(t)
	first := keysOf(h.read(t, source.Part{Items: half}, ""))
	h.Reset(t)
	rest := keysOf(h.read(t, source.Part{Items: h.Keys, Except: except}, ""))
	same(t, append(first, rest...), h.Entries)
	if len(first) > len(half) || len(first)+len(rest) > len(h.Entries) {
		t.Errorf("%d of a list of %d, %d of the rest", len(first), len(half), len(rest))
	}
}

func keysOf(chunks []source.Chunk) []string {
	var keys []string
	for _, c := range chunks {
		for _, e := range c.Entries {
			keys = append(keys, e.Key)
		}
	}
	return keys
}

func count(keys []string) map[string]int {
	n := map[string]int{}
	for _, k := range keys {
		n[k]++
	}
	return n
}

// same compares keys without regard to order; a key read twice is no error.
func same(t *testing.T, got, want []string) {
	t.Helper()
	sorted := func(keys []string) []string { return slices.Sorted(maps.Keys(count(keys))) }
	if diff := cmp.Diff(sorted(want), sorted(got)); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
}
