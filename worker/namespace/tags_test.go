package namespace_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/redistest"
)

func TestPruneTags(t *testing.T) {
	servers(t, func(t *testing.T, f fixture) {
		now := time.Now()
		past, soon := now.Add(-time.Minute).UnixMilli(), now.Add(time.Minute).UnixMilli()
		expires := inHours(3)
		f.set("r1", "alive", "outlived")
		f.do("SET", f.tmpl.Key("r1", "renewed"), "v", "PXAT", expires)
		f.do("ZADD", f.tmpl.Key("r1", "#tag:x"), past, "dead", past, "outlived", past, "renewed", soon, "gone early", "+inf", "alive", "+inf", "lost")
		f.do("ZADD", f.tmpl.Key("r1", "#tag:empty"), past, "dead")
		f.do("ZADD", f.tmpl.Key("r10", "#tag:x"), past, "dead")
		prune := func(at time.Time, want int64) {
			t.Helper()
			if n, err := f.PruneTags(ctxOf(t), "r1", at); err != nil || n != want {
				t.Errorf("dropped %d, %v; want %d", n, err, want)
			}
		}
		members := func(want ...string) {
			t.Helper()
			got, err := f.rdb.ZRange(ctxOf(t), f.tmpl.Key("r1", "#tag:x"), 0, -1).Result()
			if err != nil {
				t.Fatal(err)
			}
			diff(t, "members", got, want)
		}
		prune(now, 2)
		members("gone early", "lost", "renewed", "alive", "outlived")
		if s := f.rdb.ZScore(ctxOf(t), f.tmpl.Key("r1", "#tag:x"), "renewed").Val(); int64(s) < expires-f.slop || int64(s) > expires+f.slop {
			t.Errorf("the renewed entry's score is %v, want its expiry %d", int64(s), expires)
		}
		if f.exists("r1", "#tag:empty") || !f.exists("r10", "#tag:x") {
			t.Error("the empty index is still there, or the neighbour's is gone")
		}
		prune(now.Add(2*time.Minute), 1)
		prune(now.Add(2*time.Hour), 1)
		members("renewed", "alive", "outlived")
	})
}

// TestPruneSparesAnUnfinishedPut prunes between the two halves of a put without an expiry.
func TestPruneSparesAnUnfinishedPut(t *testing.T) {
	f := on(t, redistest.Mini(t))
	now := time.Now()
	f.do("ZADD", f.tmpl.Key("r1", "#tag:x"), "+inf", "k")
	if n, err := f.PruneTags(ctxOf(t), "r1", now); n != 0 || err != nil {
		t.Fatalf("dropped %d, %v; want none yet", n, err)
	}
	f.set("r1", "k")
	if n, err := f.PruneTags(ctxOf(t), "r1", now.Add(24*time.Hour)); n != 0 || err != nil {
		t.Errorf("dropped %d, %v of an entry that is there", n, err)
	}
	f.same("r1", []tasks.Entry{
		{Key: "#tag:x", Type: tasks.EntryZSet, Items: []string{"k", "+Inf"}},
		{Key: "k", Type: tasks.EntryString, Value: "value of k"},
	})
}

func TestPruneManyAndLargeIndexes(t *testing.T) {
	f := on(t, redistest.Start(t).Client)
	f.Cache = namespace.New(f.rdb, f.tmpl, f.keys, small)
	past := time.Now().Add(-time.Hour).UnixMilli()
	for i := range 40 {
		args := []any{"ZADD", f.tmpl.Key("r1", fmt.Sprint("#tag:", i))}
		for m := range 300 {
			args = append(args, past, fmt.Sprint("dead", m))
		}
		f.do(append(args, "+inf", "alive")...)
	}
	f.set("r1", "alive")
	if n, err := f.PruneTags(ctxOf(t), "r1", time.Now()); n != 40*300 || err != nil {
		t.Errorf("dropped %d, %v; want %d", n, err, 40*300)
	}
	if got := len(f.all("r1")); got != 41 {
		t.Errorf("%d keys left, want 40 indexes and the entry", got)
	}
}
