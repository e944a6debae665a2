package namespace_test

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/redistest"
)

var scanCalls = regexp.MustCompile(`cmdstat_scan:calls=(\d+)`)

// scans returns how many steps of a SCAN the server was asked for since the last call.
func scans(t *testing.T, rdb redis.UniversalClient) int {
	t.Helper()
	info, err := rdb.Info(t.Context(), "commandstats").Result()
	if err == nil {
		err = rdb.ConfigResetStat(t.Context()).Err()
	}
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if found := scanCalls.FindStringSubmatch(info); found != nil {
		n, _ = strconv.Atoi(found[1])
	}
	return n
}

// lateTags is a namespace of 5,000 entries under 50 tags, in which every step of a work is followed by the put
// of an entry with a tag of its own. Some servers tell of new tag indexes, some do not.
func lateTags(t *testing.T, run func(t *testing.T, f fixture, pass int, late func())) {
	for name, rule := range map[string]string{"told": "+client|tracking", "not told": "-client|tracking"} {
		t.Run(name, func(t *testing.T) {
			f := on(t, redistest.Start(t).Client)
			f.do("ACL", "SETUSER", "default", rule)
			var puts []namespace.Put
			for i := range 5_000 {
				puts = append(puts, namespace.Put{Entry: tasks.Entry{Key: fmt.Sprint("k", i), Type: tasks.EntryString, Value: "v"}, Tags: []string{fmt.Sprint("t", i%50)}})
			}
			put := func(puts ...namespace.Put) {
				t.Helper()
				if err := f.Put(t.Context(), "r1", puts); err != nil {
					t.Fatal(err)
				}
			}
			put(puts...)
			scans(t, f.rdb)
			if err := f.Read(t.Context(), "none", func([]tasks.Entry) error { return nil }); err != nil {
				t.Fatal(err)
			}
			pass := scans(t, f.rdb) // how many steps go over the whole server
			if rule[0] == '-' {
				pass /= 2
			}
			n := 0
			run(t, f, pass, func() {
				n++
				put(namespace.Put{Entry: tasks.Entry{Key: fmt.Sprint("late", n), Type: tasks.EntryString, Value: "v"}, Tags: []string{fmt.Sprint("late", n)}})
			})
		})
	}
}

// TestReadWithTagsThatCame: an entry that is handed out is in the indexes that follow, whenever it
// was put; and where the server tells of new ones, one SCAN is enough.
func TestReadWithTagsThatCame(t *testing.T) {
	lateTags(t, func(t *testing.T, f fixture, pass int, late func()) {
		entries, listed := map[string]bool{}, map[string]bool{}
		err := f.Read(t.Context(), "r1", func(got []tasks.Entry) error {
			for _, e := range got {
				if _, ok := tasks.TagOf(e.Key); !ok {
					entries[e.Key] = true
					continue
				}
				for i := 0; i < len(e.Items); i += 2 {
					listed[e.Items[i]] = true
				}
			}
			if len(listed) == 0 {
				late()
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for key := range entries {
			if !listed[key] {
				t.Errorf("%s was handed out, its tag's index was not", key)
			}
		}
		want, got := 2*pass, scans(t, f.rdb)
		if told(f) {
			want = pass
		}
		if len(entries) < 5_000 || got > want+pass/2 {
			t.Errorf("%d entries in %d steps, want 5,000 or more in about %d", len(entries), got, want)
		}
	})
}

// TestCopyWithTagsThatCame: what is copied is in the destination's indexes when the copy has ended.
func TestCopyWithTagsThatCame(t *testing.T) {
	lateTags(t, func(t *testing.T, f fixture, pass int, late func()) {
		err := f.Copy(t.Context(), "r1", "r2", []string{""}, "", func(s namespace.CopySlice) error {
			if s.Next != "" {
				late()
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		got := scans(t, f.rdb)
		var keys []string
		for _, e := range f.all("r2") {
			if _, ok := tasks.TagOf(e.Key); !ok {
				keys = append(keys, e.Key)
			}
		}
		sizes, err := f.TagsOf(t.Context(), "r2", keys[:min(len(keys), 100)], time.Now())
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(keys)
		for _, key := range keys[len(keys)-10:] { // those that came late are the last by name
			one, err := f.TagsOf(t.Context(), "r2", []string{key}, time.Now())
			if err != nil || len(one[key]) == 0 {
				t.Errorf("%s was copied without its tag: %v, %v", key, one, err)
			}
		}
		// The server holds twice as much at the end, when the tags are looked for again.
		if most := 3 * pass; len(sizes) != 100 || told(f) && got > most {
			t.Errorf("%d of 100 entries have tags, %d steps, want at most %d", len(sizes), got, most)
		}
	})
}

// told reports whether the server tells of changes.
func told(f fixture) bool {
	return f.rdb.Do(f.t.Context(), "CLIENT", "GETREDIR").Err() == nil &&
		f.rdb.Do(f.t.Context(), "ACL", "DRYRUN", "default", "CLIENT", "TRACKING", "OFF").Val() == "OK"
}
