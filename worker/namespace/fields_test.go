package namespace_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/redistest"
)

// expiring returns a hash of n fields, every third of which expires by itself, each at another
// millisecond.
func expiring(key string, n int) tasks.Entry {
	e := tasks.Entry{Key: key, Type: tasks.EntryHash}
	for i := range n {
		e.Items = append(e.Items, fmt.Sprintf("field-%06d\x00", i), fmt.Sprint("value ", i))
		at := int64(0)
		if i%3 == 0 {
			at = inHours(1) + int64(i)
		}
		e.FieldsExpireAt = append(e.FieldsExpireAt, at)
	}
	return e
}

// TestFieldExpiries moves hashes of every size, whose fields expire, by value and by COPY.
func TestFieldExpiries(t *testing.T) {
	server := redistest.Start(t)
	redistest.NeedFieldExpiries(t, server.Client)
	f := on(t, server.Client)
	small := expiring("small", 10)
	want := []tasks.Entry{expiring("one", 1), small, expiring("table", 700), expiring("big", 20_000)}
	mortal := expiring("key and fields", 4)
	mortal.ExpiresAt = inHours(2)
	want = append(want, mortal,
		tasks.Entry{Key: "all", Type: tasks.EntryHash, Items: []string{"", "\xff", "b", ""}, FieldsExpireAt: []int64{inHours(1), inHours(3)}},
		tasks.Entry{Key: "plain", Type: tasks.EntryHash, Items: []string{"a", "b"}},
	)
	f.do("SET", f.tmpl.Key("r1", "one"), "of another type")
	for range 2 {
		if err := f.Write(ctxOf(t), "r1", want); err != nil {
			t.Fatal(err)
		}
	}
	f.same("r1", want)
	var copied int64
	err := f.Copy(ctxOf(t), "r1", "r2", []string{""}, "", func(s namespace.CopySlice) error {
		copied += s.Copied
		return nil
	})
	if err != nil || copied != int64(len(want)) {
		t.Fatalf("copied %d, %v; want %d", copied, err, len(want))
	}
	f.same("r2", want)
	got, err := f.Get(ctxOf(t), "r1", []string{"small"})
	if err != nil {
		t.Fatal(err)
	}
	diff(t, "small", canonical(got), canonical([]tasks.Entry{small}))
	if keys, _, err := f.rdb.Scan(ctxOf(t), 0, "*#part*", 10_000).Result(); err != nil || len(keys) > 0 {
		t.Errorf("parts left behind: %q, %v", keys, err)
	}
}

// TestExpiredFieldsAreLeftOut writes hashes some or all of whose fields are past.
func TestExpiredFieldsAreLeftOut(t *testing.T) {
	servers(t, func(t *testing.T, f fixture) { // a server without the commands is enough
		half := tasks.Entry{Key: "half", Type: tasks.EntryHash, Items: []string{"a", "1", "b", "2"}, FieldsExpireAt: []int64{1, 0}}
		none := tasks.Entry{Key: "none", Type: tasks.EntryHash, Items: []string{"a", "1", "b", "2"}, FieldsExpireAt: []int64{1, 2}}
		if err := f.Write(ctxOf(t), "r1", []tasks.Entry{half, none}); err != nil {
			t.Fatal(err)
		}
		f.same("r1", []tasks.Entry{{Key: "half", Type: tasks.EntryHash, Items: []string{"b", "2"}}})
	})
}

// TestFieldsThatExpireOnTheServer has fields expire between the caller's clock and the server's step: past for
// the server, though not when Write looked.
func TestFieldsThatExpireOnTheServer(t *testing.T) {
	server := redistest.Start(t)
	redistest.NeedFieldExpiries(t, server.Client)
	f := on(t, server.Client)
	f.rdb.AddHook(before("evalsha", func() { f.past(time.Now().UnixMilli() + 30) }))
	soon := time.Now().UnixMilli() + 20
	big := expiring("big", 3000)
	for i := range big.FieldsExpireAt {
		big.FieldsExpireAt[i] = soon
	}
	none := tasks.Entry{Key: "none", Type: tasks.EntryHash, Items: []string{"a", "1", "b", "2"}, FieldsExpireAt: []int64{soon, soon}}
	half := tasks.Entry{Key: "half", Type: tasks.EntryHash, Items: []string{"a", "1", "b", "2"}, FieldsExpireAt: []int64{soon, 0}}
	if err := f.Write(ctxOf(t), "r1", []tasks.Entry{none, half, big}); err != nil {
		t.Fatal(err)
	}
	f.same("r1", []tasks.Entry{{Key: "half", Type: tasks.EntryHash, Items: []string{"b", "2"}}})
	if n := f.rdb.DBSize(ctxOf(t)).Val(); n != 1 {
		t.Errorf("%d keys, want half alone", n)
	}
}

// past returns when the server's clock is past a time in Unix milliseconds.
func (f fixture) past(at int64) {
	f.t.Helper()
	redistest.Eventually(f.t, "a moment later", func() bool {
		now, err := f.rdb.Time(ctxOf(f.t)).Result()
		return err == nil && now.UnixMilli() > at
	})
}

// TestReadWhileFieldsExpire reads hashes whose fields expire before, and in the middle of, the reading.
func TestReadWhileFieldsExpire(t *testing.T) {
	server := redistest.Start(t, "--enable-debug-command", "yes")
	redistest.NeedFieldExpiries(t, server.Client)
	f := on(t, server.Client)
	f.do("DEBUG", "SET-ACTIVE-EXPIRE", 0) // what is past stays, unseen, as it may for a moment anywhere
	gone, half, big := expiring("gone", 3), expiring("half", 3), expiring("big", 20_000)
	early := time.Now().UnixMilli() + 50
	gone.FieldsExpireAt = []int64{early, early, early}
	half.FieldsExpireAt = []int64{early, 0, early}
	if err := f.Write(ctxOf(t), "r1", []tasks.Entry{gone, half}); err != nil {
		t.Fatal(err)
	}
	f.past(early)
	soon := time.Now().UnixMilli() + 500 // enough to write it and to read some of it
	for i := range big.FieldsExpireAt {
		if i%2 == 0 {
			big.FieldsExpireAt[i] = soon
		}
	}
	if err := f.Write(ctxOf(t), "r1", []tasks.Entry{big}); err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer func() { _ = rdb.Close() }()
	scans := 0
	rdb.AddHook(after("hscan", func() {
		if scans++; scans == 1 { // some fields were read, and are gone when their expiries are asked for
			f.past(soon)
		}
	}))
	got := readAll(t, namespace.New(rdb, f.tmpl, f.keys, nil), "r1")
	if scans == 0 {
		t.Fatal("the big hash was not scanned")
	}
	var want []tasks.Entry
	for _, e := range []tasks.Entry{half, big} {
		left, _ := e.Left(soon)
		want = append(want, left)
	}
	diff(t, "entries", got, canonical(want))
}

// TestServersWithoutFieldExpiriesAreSpared: nothing is tried that such a server would count as an error.
func TestServersWithoutFieldExpiriesAreSpared(t *testing.T) {
	f := on(t, redistest.Start(t).Client)
	want := []tasks.Entry{{Key: "h", Type: tasks.EntryHash, Items: []string{"a", "1"}}}
	for i := range 3000 {
		want = append(want, tasks.Entry{Key: fmt.Sprint("h", i), Type: tasks.EntryHash, Items: []string{"a", "1"}})
	}
	if err := f.Write(ctxOf(t), "r1", want); err != nil {
		t.Fatal(err)
	}
	f.same("r1", want) // opens the connections: what a client says of itself then is unknown to old servers
	f.do("CONFIG", "RESETSTAT")
	f.same("r1", want)
	stats, err := f.rdb.Info(ctxOf(t), "errorstats").Result()
	if err != nil || strings.Contains(stats, "errorstat_ERR") {
		t.Errorf("error statistics after a read: %s, %v", stats, err)
	}
}
