package namespace_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/redistest"
)

// TestUses: the entries that were read most, or last, come out as that, under either kind of policy, and
// to ask is no use.
func TestUses(t *testing.T) {
	s := redistest.Start(t)
	f := on(t, s.Client)
	for _, policy := range []string{"allkeys-lfu", "allkeys-lru", "noeviction"} {
		t.Run(policy, func(t *testing.T) {
			f.do("FLUSHALL")
			f.do("CONFIG", "SET", "maxmemory-policy", policy)
			for i := range 300 {
				f.set("r1", fmt.Sprint("k", i))
			}
			f.set("r10", "neighbour")
			f.set("r1", tasks.TagIndex("reserved"))
			for range 500 {
				f.do("GET", f.tmpl.Key("r1", "k7"))
			}
			read := func() map[string]namespace.Use {
				all := map[string]namespace.Use{}
				err := f.Uses(ctxOf(t), "r1", func(counted bool, uses []namespace.Use) error {
					if counted != strings.HasSuffix(policy, "lfu") {
						t.Errorf("counted: %v", counted)
					}
					for _, u := range uses {
						all[u.Key] = u
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				return all
			}
			all := read()
			if len(all) != 300 {
				t.Fatalf("%d entries, want 300", len(all))
			}
			for key, u := range all {
				if policy == "allkeys-lfu" && key != "k7" && u.Freq >= all["k7"].Freq {
					t.Errorf("%+v is used as much as %+v", u, all["k7"])
				}
			}
			if again := read(); policy == "allkeys-lfu" && again["k8"].Freq > all["k8"].Freq {
				t.Errorf("asked twice, k8 went from %d to %d", all["k8"].Freq, again["k8"].Freq)
			}
		})
	}
}

// TestCopyKeys copies entries by name, with their tags and by the rules of a copy.
func TestCopyKeys(t *testing.T) {
	servers(t, func(t *testing.T, f fixture) {
		want := everyType()
		if err := f.Write(ctxOf(t), "r1", want); err != nil {
			t.Fatal(err)
		}
		f.set("r1", "other", "kept")
		f.do("SET", f.tmpl.Key("r2", "kept"), "the destination's own")
		f.do("SET", f.tmpl.Key("r1", "refers"), "see "+f.tmpl.Key("r1", "x"))
		keys := []string{"gone", "kept", "refers"}
		for _, e := range want {
			keys = append(keys, e.Key)
		}
		var sum namespace.CopySlice
		err := f.CopyKeys(ctxOf(t), "r1", "r2", keys, func(s namespace.CopySlice) error {
			sum.Copied += s.Copied
			sum.Existed += s.Existed
			sum.Referring = append(sum.Referring, s.Referring...)
			sum.Keys = append(sum.Keys, s.Keys...)
			return nil
		})
		if err != nil || sum.Copied != int64(len(want)) || sum.Existed != 1 || !slices.Equal(sum.Referring, []string{"refers"}) || len(sum.Keys) != len(want) {
			t.Errorf("got %+v, %v, want %d copied", sum, err, len(want))
		}
		if f.exists("r2", "other") || f.exists("r2", "gone") {
			t.Error("another entry was copied")
		}
		if err := f.CopyKeys(ctxOf(t), "r1", "r1", keys, nil); err == nil {
			t.Error("copied to itself")
		}
		if err := f.CopyKeys(ctxOf(t), "r1", "r2", []string{tasks.TagIndex("a")}, nil); err == nil {
			t.Error("copied a reserved key by name")
		}
	})
}
