package namespace_test

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/redistest"
)

// everyType is an entry of each portable type with awkward contents.
func everyType() []tasks.Entry {
	bytes := make([]byte, 256)
	for i := range bytes {
		bytes[i] = byte(i)
	}
	b := string(bytes)
	return []tasks.Entry{
		{Key: "hash", Type: tasks.EntryHash, Items: []string{"", "", "f\x00", b, b, "v"}},
		{Key: "list", Type: tasks.EntryList, Items: []string{"b", "a", "", b, "a"}, ExpiresAt: inHours(2)},
		{Key: "set", Type: tasks.EntrySet, Items: []string{"", "1", "x", b}, ExpiresAt: inHours(3)},
		{Key: "string", Type: tasks.EntryString, Value: b, ExpiresAt: inHours(1)},
		{Key: "string for ever", Type: tasks.EntryString},
		{Key: "zset", Type: tasks.EntryZSet, Items: []string{"m1", "0.1", "m2", "-Inf", "m3", "+Inf", b, "-1.5e+300"}, ExpiresAt: inHours(4)},
	}
}

func TestWriteThenRead(t *testing.T) {
	servers(t, func(t *testing.T, f fixture) {
		want := everyType()
		for _, key := range oddKeys {
			want = append(want, tasks.Entry{Key: key, Type: tasks.EntryString, Value: "odd", ExpiresAt: inHours(1)})
		}
		f.set("r10", "hash", "list")
		f.do("RPUSH", f.tmpl.Key("r1", "string"), "of another type")
		for range 2 { // twice is as good as once
			if err := f.Write(ctxOf(t), "r1", want); err != nil {
				t.Fatal(err)
			}
		}
		f.same("r1", want)
		if got := len(f.all("r10")); got != 2 {
			t.Errorf("the neighbour has %d entries, want its 2", got)
		}
	})
}

func TestReadLeavesOutLeasesAndKeepsIndexes(t *testing.T) {
	servers(t, func(t *testing.T, f fixture) {
		f.set("r1", "k", tasks.LeaseKey("k"), "#part:x:k")
		f.do("ZADD", f.tmpl.Key("r1", tasks.TagIndex("t")), "+inf", "k")
		var keys []string
		for _, e := range f.all("r1") {
			keys = append(keys, e.Key)
		}
		diff(t, "keys", keys, []string{"#tag:t", "k"})
	})
}

func TestWriteLeavesOutTheExpiredAndMergesIndexes(t *testing.T) {
	servers(t, func(t *testing.T, f fixture) {
		f.do("ZADD", f.tmpl.Key("r1", "#tag:t"), "+inf", "added meanwhile")
		entries := []tasks.Entry{
			{Key: "gone", Type: tasks.EntryString, Value: "v", ExpiresAt: 1000},
			{Key: "gone list", Type: tasks.EntryList, Items: []string{"v"}, ExpiresAt: 1000},
			{Key: "here", Type: tasks.EntryString, Value: "v"},
			{Key: "#lease:here", Type: tasks.EntryString, Value: "v"},
			{Key: "#tag:t", Type: tasks.EntryZSet, Items: []string{"here", "inf"}},
		}
		if err := f.Write(ctxOf(t), "r1", entries); err != nil {
			t.Fatal(err)
		}
		want := []tasks.Entry{
			{Key: "#tag:t", Type: tasks.EntryZSet, Items: []string{"added meanwhile", "+Inf", "here", "+Inf"}},
			{Key: "here", Type: tasks.EntryString, Value: "v"},
		}
		diff(t, "entries", f.all("r1"), want)
	})
}

func TestPutIndexesFirst(t *testing.T) {
	servers(t, func(t *testing.T, f fixture) {
		expires := inHours(1)
		puts := []namespace.Put{
			{Entry: tasks.Entry{Key: "a", Type: tasks.EntryString, Value: "1", ExpiresAt: expires}, Tags: []string{"x", "y"}},
			{Entry: tasks.Entry{Key: "b", Type: tasks.EntryList, Items: []string{"1"}}, Tags: []string{"x"}},
			{Entry: tasks.Entry{Key: "gone", Type: tasks.EntryString, ExpiresAt: 1}, Tags: []string{"x"}},
		}
		if err := f.Put(ctxOf(t), "r1", puts); err != nil {
			t.Fatal(err)
		}
		want := []tasks.Entry{
			{Key: "#tag:x", Type: tasks.EntryZSet, Items: []string{"a", fmt.Sprint(float64(expires)), "b", "+Inf"}},
			{Key: "#tag:y", Type: tasks.EntryZSet, Items: []string{"a", fmt.Sprint(float64(expires))}},
			puts[0].Entry, puts[1].Entry,
		}
		f.same("r1", want)

		f.set("r1", "#tag:broken")
		bad := namespace.Put{Entry: tasks.Entry{Key: "c", Type: tasks.EntryString}, Tags: []string{"broken"}}
		if err := f.Put(ctxOf(t), "r1", []namespace.Put{bad}); err == nil || f.exists("r1", "c") {
			t.Errorf("put under an index that takes nothing: error %v, entry there: %v; want an error and no entry", err, f.exists("r1", "c"))
		}
	})
}

func TestLookup(t *testing.T) {
	servers(t, func(t *testing.T, f fixture) {
		f.set("r1", "k")
		f.do("SET", f.tmpl.Key("r1", "t"), "v", "EX", 100)
		found, err := f.Lookup(ctxOf(t), "r1", []string{"none", "k", "t"})
		if err != nil {
			t.Fatal(err)
		}
		if ttl := found[2].TTL.Seconds(); ttl < 90 || ttl > 100 {
			t.Errorf("t lives for %v seconds more, want almost 100", ttl)
		}
		found[2].TTL = 0
		diff(t, "found", found, []namespace.Found{{}, {Exists: true, TTL: -1}, {Exists: true}})
	})
}

func TestUsage(t *testing.T) {
	servers(t, func(t *testing.T, f fixture) {
		for i := range 300 {
			f.do("SET", f.tmpl.Key("r1", fmt.Sprint("k", i)), strings.Repeat("x", 1000))
		}
		f.set("r1", "#tag:t", "#lease:k1")
		f.set("r10", "k")
		u, err := f.Usage(ctxOf(t), "r1")
		if err != nil {
			t.Fatal(err)
		}
		if u.Entries != 300 || u.Reserved != 2 || u.Bytes < 300_000 || u.Bytes > 400_000 || len(u.Sample) != 10 {
			t.Errorf("got %+v, want 300 entries and 2 reserved keys, somewhat over 300 kB, a sample of 10", u)
		}
		// Of k1, k2, k10 to k29 and k100 to k299.
		some, err := f.UsageOf(ctxOf(t), "r1", []string{"k1", "k2"})
		if err != nil {
			t.Fatal(err)
		}
		if some.Entries != 222 || some.Bytes < u.Bytes*222/300*9/10 || some.Bytes > u.Bytes*222/300*11/10 {
			t.Errorf("of two families %+v, of all %+v", some, u)
		}
		for _, key := range some.Sample {
			if !strings.HasPrefix(key, "k1") && !strings.HasPrefix(key, "k2") {
				t.Errorf("%s is in the sample of k1 and k2", key)
			}
		}
		if none, err := f.UsageOf(ctxOf(t), "r1", []string{"x"}); none.Entries != 0 || none.Bytes != 0 || err != nil {
			t.Errorf("of a family without entries: %+v, %v", none, err)
		}
	})
}

// TestEstimate: of a large server a part is looked at, and taken for all of it.
func TestEstimate(t *testing.T) {
	f := on(t, redistest.Start(t).Client)
	fill := func(release, family string, n int) {
		const step, script = 5_000, `for i = ARGV[2] + 1, ARGV[3] do redis.call('SET', ARGV[1] .. i, string.rep('x', 100)) end return 1`
		for from := 0; from < n; from += step {
			if err := f.rdb.Eval(t.Context(), script, nil, f.tmpl.Key(release, family), from, from+step).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	estimate := func(families ...string) namespace.Usage {
		t.Helper()
		u, err := f.EstimateOf(t.Context(), "r1", families)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	fill("r1", "a:", 30_000)
	fill("r1", "b:", 60_000)
	if u := estimate("a:"); u.Entries != 30_000 || u.About {
		t.Errorf("of a server of 90,000 keys: %+v, want 30,000, counted", u)
	}
	fill("r2", "a:", 160_000)
	whole, err := f.UsageOf(t.Context(), "r1", []string{"a:"})
	if err != nil {
		t.Fatal(err)
	}
	near := func(got, want int64) bool { return got > want*9/10 && got < want*11/10 }
	if u := estimate("a:"); !near(u.Entries, 30_000) || !near(u.Bytes, whole.Bytes) || !u.About || len(u.Sample) != 10 {
		t.Errorf("of a server of 250,000 keys: %+v, want about 30,000 of %d bytes", u, whole.Bytes)
	}
	if u := estimate(""); !near(u.Entries, 90_000) {
		t.Errorf("of all families: %+v, want about 90,000", u)
	}
}

// TestBigValues moves values that no slice may hold.
func TestBigValues(t *testing.T) {
	f := on(t, redistest.Start(t).Client)
	members := make([]string, 20_000)
	for i := range members {
		members[i] = fmt.Sprintf("member-%06d", i)
	}
	scored := make([]string, 0, 2*len(members))
	fields := make([]string, 0, 2*len(members))
	for i, m := range members {
		scored = append(scored, m, fmt.Sprint(float64(i)/7))
		fields = append(fields, m, "v"+m)
	}
	heavy := []string{strings.Repeat("a", 700_000), strings.Repeat("b", 700_000), "c"}
	want := []tasks.Entry{
		{Key: "big hash", Type: tasks.EntryHash, Items: fields, ExpiresAt: inHours(2)},
		{Key: "big list", Type: tasks.EntryList, Items: members, ExpiresAt: inHours(2)},
		{Key: "big set", Type: tasks.EntrySet, Items: members},
		{Key: "big string", Type: tasks.EntryString, Value: strings.Repeat("0123456789", 300_000), ExpiresAt: inHours(1)},
		{Key: "big zset", Type: tasks.EntryZSet, Items: scored, ExpiresAt: inHours(2)},
		{Key: "heavy list", Type: tasks.EntryList, Items: heavy},
	}
	for i := range 8 { // more than one slice's bytes
		want = append(want, tasks.Entry{Key: fmt.Sprint("page", i), Type: tasks.EntryString, Value: strings.Repeat("p", 400_000)})
	}
	if err := f.Write(ctxOf(t), "r1", want); err != nil {
		t.Fatal(err)
	}
	diff(t, "entries", f.all("r1"), canonical(want))

	var copied int64
	err := f.Copy(ctxOf(t), "r1", "r2", []string{""}, "", func(s namespace.CopySlice) error {
		copied += s.Copied
		return nil
	})
	if err != nil || copied != int64(len(want)) {
		t.Fatalf("copied %d, %v; want %d", copied, err, len(want))
	}
	diff(t, "copies", f.all("r2"), canonical(want))
	if keys, _, err := f.rdb.Scan(ctxOf(t), 0, "*#part*", 10_000).Result(); err != nil || len(keys) > 0 {
		t.Errorf("parts left behind: %q, %v", keys, err)
	}
	for name, atLeast := range map[string]int{"hgetall": 0, "smembers": 0, "lrange": 50, "zrange": 50} {
		if n := calls(t, f.rdb, name); atLeast == 0 && n > 0 || n < atLeast {
			t.Errorf("%d calls of %s: big values were not moved in chunks", n, name)
		}
	}
}

// calls returns how often the server has run a command.
func calls(t *testing.T, rdb redis.UniversalClient, name string) int {
	t.Helper()
	stats, err := rdb.Info(ctxOf(t), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`cmdstat_` + name + `:calls=(\d+)`).FindStringSubmatch(stats)
	if found == nil {
		return 0
	}
	n, _ := strconv.Atoi(found[1])
	return n
}

// TestChangingBigValue reads a value that somebody changes between its chunks.
func TestChangingBigValue(t *testing.T) {
	server := redistest.Start(t)
	f := on(t, server.Client)
	old, changed := strings.Repeat("a", 3_000_000), strings.Repeat("b", 3_000_000)
	key := f.tmpl.Key("r1", "k")
	f.do("SET", key, old)
	changes := 0
	for _, limit := range []int{1, 1000} { // once; always
		changes = 0
		rdb := redis.NewClient(&redis.Options{Addr: server.Addr})
		rdb.AddHook(after("getrange", func() {
			if changes++; changes <= limit {
				f.do("SET", key, []string{old, changed}[changes%2])
			}
		}))
		got := readAll(t, namespace.New(rdb, f.tmpl, f.keys, nil), "r1")
		_ = rdb.Close()
		if len(got) != 1 || (got[0].Value != old && got[0].Value != changed) {
			t.Errorf("limit %d: read a value that the key never held", limit)
		}
		if changes == 0 {
			t.Error("the value did not change while it was read")
		}
	}
}

func TestOtherTypesGoAsDumps(t *testing.T) {
	f, g := on(t, redistest.Start(t).Client), on(t, redistest.Start(t).Client)
	f.do("XADD", f.tmpl.Key("r1", "stream"), "1-1", "field", "v\x00")
	f.do("PEXPIREAT", f.tmpl.Key("r1", "stream"), inHours(1))
	want := f.all("r1")
	if err := g.Write(ctxOf(t), "r1", want); err != nil {
		t.Fatal(err)
	}
	diff(t, "entries", g.all("r1"), want)
	if got, err := g.rdb.XRange(ctxOf(t), f.tmpl.Key("r1", "stream"), "-", "+").Result(); err != nil || got[0].Values["field"] != "v\x00" {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestReadGoesOnAfterARestart(t *testing.T) {
	server := redistest.Start(t)
	f := on(t, server.Client)
	f.Cache = namespace.New(f.rdb, f.tmpl, f.keys, small)
	var want []string
	for i := range 500 {
		want = append(want, fmt.Sprintf("k%03d", i))
	}
	f.set("r1", want...)
	f.set("r10", want...)
	f.do("CONFIG", "SET", "save", "3600 1")
	got := map[string]bool{}
	slices := 0
	err := f.Read(ctxOf(t), "r1", func(entries []tasks.Entry) error {
		if slices++; slices == 10 {
			server.Restart() // another hash seed: the cursor now points anywhere
			got = map[string]bool{}
		}
		for _, e := range entries {
			got[e.Key] = true
		}
		return nil
	})
	if err != nil || len(got) != len(want) {
		t.Errorf("read %d entries since the restart, %v; want all %d", len(got), err, len(want))
	}
}

// TestReadFrom stops after every slice and goes on in another process: nothing is missing, nothing comes
// twice but what SCAN itself returns twice.
func TestReadFrom(t *testing.T) {
	server := redistest.Start(t)
	f := on(t, server.Client)
	f.Cache = namespace.New(f.rdb, f.tmpl, f.keys, small)
	want := map[string]bool{}
	for i := range 300 {
		key := fmt.Sprintf("k%03d", i)
		f.set("r1", key)
		f.do("ZADD", f.tmpl.Key("r1", tasks.TagIndex(key)), "+inf", key)
		want[key], want[tasks.TagIndex(key)] = true, true
	}
	stop := errors.New("enough")
	got, cursor, middle := map[string]bool{}, "", ""
	for reads := 0; ; reads++ {
		seen := false
		err := namespace.New(f.rdb, f.tmpl, f.keys, small).ReadFrom(ctxOf(t), "r1", cursor, func(entries []tasks.Entry, next string) error {
			for _, e := range entries {
				got[e.Key] = true
			}
			if next == "" {
				return nil
			}
			cursor, seen = next, true
			return stop
		})
		if reads == 2 {
			middle = cursor
		}
		if err == nil && !seen {
			break
		}
		if !errors.Is(err, stop) || reads > 600 {
			t.Fatalf("read %d from %q: %v", reads, cursor, err)
		}
	}
	if len(got) != len(want) {
		t.Errorf("read %d entries, want %d", len(got), len(want))
	}
	never := func([]tasks.Entry, string) error { t.Error("read from nowhere"); return nil }
	wantErr(t, "no cursor", f.ReadFrom(ctxOf(t), "r1", "nonsense", never), namespace.ErrRestarted)
	wantErr(t, "no such pass", f.ReadFrom(ctxOf(t), "r1", "3.0", never), namespace.ErrRestarted)
	f.do("CONFIG", "SET", "save", "3600 1")
	server.Restart()
	wantErr(t, "another process's cursor", f.ReadFrom(ctxOf(t), "r1", middle, never), namespace.ErrRestarted)
	slices := 0
	err := f.ReadFrom(ctxOf(t), "r1", "", func([]tasks.Entry, string) error {
		if slices++; slices == 5 {
			server.Restart()
		}
		return nil
	})
	wantErr(t, "a restart in the middle", err, namespace.ErrRestarted)
}
