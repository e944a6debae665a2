package carry_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/redistest"
	"github.com/alphanode/stoker/worker/warm/carry"
	"github.com/alphanode/stoker/worker/warm/source"
	"github.com/alphanode/stoker/worker/warm/source/sourcetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const app = "site"

// world is a cache Redis with release r1: 1,500 entries of nav:, one of them referring to r1
// by name, and neighbours that no carry may touch.
func world(t *testing.T) (cache *namespace.Cache, keys []string, reset func(*testing.T)) {
	t.Helper()
	server := redistest.Start(t)
	tmpl, err := tasks.ParseTemplate(tasks.DefaultTemplate, app)
	if err != nil {
		t.Fatal(err)
	}
	cache = namespace.New(server.Client, tmpl, tasks.KeysOf(app), nil)
	var puts []namespace.Put
	put := func(key, value string) {
		puts = append(puts, namespace.Put{Entry: tasks.Entry{Key: key, Type: tasks.EntryString, Value: value}})
	}
	for i := range 1_500 {
		key := fmt.Sprintf("nav:%d*\x00", i)
		keys = append(keys, key)
		put(key, "v")
		put(fmt.Sprintf("post:%d", i), "v")
	}
	put("nav:tags", tmpl.Key("r1", "post:1"))
	if err := cache.Put(t.Context(), "r1", puts); err != nil {
		t.Fatal(err)
	}
	return cache, keys, func(t *testing.T) {
		if _, err := cache.Remove(t.Context(), "r2", keys); err != nil {
			t.Fatal(err)
		}
	}
}

func open(t *testing.T, cache carry.Cache, from string) source.Source {
	t.Helper()
	s, err := carry.New(cache, from, "r2", []string{"nav:"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestContract(t *testing.T) {
	cache, keys, reset := world(t)
	sourcetest.Run(t, sourcetest.Harness{
		Open:  func(t *testing.T) source.Source { return open(t, cache, "r1") },
		Reset: reset, Keys: append(slices.Clone(keys), "nav:tags"), Entries: keys, Failed: 1,
		Written: source.ByServer, Resumes: true, Whole: true, Forgives: true,
	})
}

// walk carries and adds up what its chunks hold.
func walk(t *testing.T, s source.Source, share float64) (copied, kept, failed int) {
	t.Helper()
	err := s.Walk(t.Context(), source.Part{Share: share}, "", func(c source.Chunk) error {
		copied += len(c.Entries)
		kept += int(c.Kept)
		failed += len(c.Failed)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return copied, kept, failed
}

// TestAgain: a second carry finds its entries there and leaves them as they are.
func TestAgain(t *testing.T) {
	cache, keys, _ := world(t)
	src := open(t, cache, "r1")
	if copied, kept, failed := walk(t, src, 0); copied != len(keys) || kept != 0 || failed != 1 {
		t.Errorf("first: copied %d, kept %d, failed %d", copied, kept, failed)
	}
	if copied, kept, failed := walk(t, src, 0); copied != 0 || kept != len(keys) || failed != 1 {
		t.Errorf("again: copied %d, kept %d, failed %d", copied, kept, failed)
	}
}

func TestSampled(t *testing.T) {
	cache, keys, _ := world(t)
	copied, _, _ := walk(t, open(t, cache, "r1"), 0.05)
	if copied == 0 || copied > len(keys)/2 {
		t.Errorf("a sampled carry copied %d of %d", copied, len(keys))
	}
}

func TestNothingToCarry(t *testing.T) {
	src := open(t, nil, "")
	if copied, kept, failed := walk(t, src, 0); copied+kept+failed != 0 {
		t.Error("carried from no release")
	}
	if err := src.Keys(t.Context(), func(string) error { return errors.New("a key") }); err != nil {
		t.Error(err)
	}
}

func TestFromItself(t *testing.T) {
	if _, err := carry.New(nil, "r2", "r2", []string{"a"}); !errors.Is(err, tasks.ErrInvalid) {
		t.Errorf("got %v, want invalid input", err)
	}
}
