package namespace_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/redistest"
)

func TestSample(t *testing.T) {
	servers(t, func(t *testing.T, f fixture) {
		for i := range 300 {
			f.set("r1", fmt.Sprint("post:", i))
			f.set("r10", fmt.Sprint("other:", i))
		}
		f.do("ZADD", f.tmpl.Key("r1", tasks.TagIndex("x")), "+inf", "post:1")
		for _, n := range []int{1, 7, 300, 500} {
			keys, err := f.Sample(ctxOf(t), "r1", n)
			if err != nil || len(keys) != min(n, 300) {
				t.Fatalf("%d keys of 300 when asked for %d, %v", len(keys), n, err)
			}
			seen := map[string]bool{}
			for _, k := range keys {
				if seen[k] || !f.exists("r1", k) || k[0] == '#' {
					t.Errorf("asked for %d: %q came twice, or is no entry of r1", n, k)
				}
				seen[k] = true
			}
		}
		if keys, err := f.Sample(ctxOf(t), "r2", 5); err != nil || len(keys) != 0 {
			t.Errorf("of an empty namespace: %q, %v", keys, err)
		}
	})
}

// TestSampleReachesEveryEntry: no entry is out of reach. Those that share a bucket with others come less
// often: 200 samples missed one of the 40 in one run of some 40, so there are five times as many.
func TestSampleReachesEveryEntry(t *testing.T) {
	f := on(t, redistest.Start(t).Client)
	for i := range 40 {
		f.set("r1", fmt.Sprint("post:", i))
	}
	seen := map[string]int{}
	for range 1000 {
		keys, err := f.Sample(ctxOf(t), "r1", 4)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			seen[k]++
		}
	}
	if len(seen) != 40 {
		t.Errorf("%d of 40 entries were ever sampled", len(seen))
	}
}

func TestGet(t *testing.T) {
	servers(t, func(t *testing.T, f fixture) {
		at := inHours(3)
		f.do("SET", f.tmpl.Key("r1", "a\x00b"), "v", "PXAT", at)
		f.do("HSET", f.tmpl.Key("r1", "h"), "f", "w")
		f.set("r2", "c")
		got, err := f.Get(ctxOf(t), "r1", []string{"c", "h", "a\x00b"})
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			if e := got[i].ExpiresAt; e != 0 && e >= at-f.slop && e <= at+f.slop {
				got[i].ExpiresAt = at
			}
		}
		diff(t, "entries", canonical(got), canonical([]tasks.Entry{
			{Key: "a\x00b", Type: tasks.EntryString, ExpiresAt: at, Value: "v"},
			{Key: "h", Type: tasks.EntryHash, Items: []string{"f", "w"}},
		}))
		if got, err := f.Get(ctxOf(t), "r1", nil); err != nil || len(got) != 0 {
			t.Errorf("of no keys: %v, %v", got, err)
		}
	})
}

func TestTagsOf(t *testing.T) {
	servers(t, func(t *testing.T, f fixture) {
		now := time.Now()
		past, soon := now.Add(-time.Minute).UnixMilli(), now.Add(time.Minute).UnixMilli()
		f.do("ZADD", f.tmpl.Key("r1", "#tag:x"), past, "dead", soon, "a", "+inf", "b")
		f.do("ZADD", f.tmpl.Key("r1", "#tag:y\x00"), "+inf", "a")
		f.do("ZADD", f.tmpl.Key("r1", "#tag:z"), "+inf", "c")
		f.do("ZADD", f.tmpl.Key("r10", "#tag:other"), "+inf", "a")
		got, err := f.TagsOf(ctxOf(t), "r1", []string{"a", "b", "lonely"}, now)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string][]namespace.TagSize{"a": {{Tag: "x", Entries: 2}, {Tag: "y\x00", Entries: 1}}, "b": {{Tag: "x", Entries: 2}}}
		if d := cmp.Diff(want, got, cmpopts.SortSlices(func(a, b namespace.TagSize) bool { return a.Tag < b.Tag })); d != "" {
			t.Errorf("tags (-want +got):\n%s", d)
		}

		for i := range 100 { // more than one slice of indexes
			f.do("ZADD", f.tmpl.Key("r1", fmt.Sprint("#tag:", i)), "+inf", "popular")
		}
		if got, err := f.TagsOf(ctxOf(t), "r1", []string{"popular"}, now); err != nil || len(got["popular"]) != 100 {
			t.Errorf("%d tags of an entry that has 100, %v", len(got["popular"]), err)
		}
	})
}
