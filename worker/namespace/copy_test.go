package namespace_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/redistest"
)

// total copies and returns the sum of the slices.
var errEnough = errors.New("enough")

func total(t *testing.T, c *namespace.Cache, src, dst string, families ...string) namespace.CopySlice {
	t.Helper()
	var sum namespace.CopySlice
	ended := 0
	err := c.Copy(ctxOf(t), src, dst, families, "", func(s namespace.CopySlice) error {
		sum.Copied += s.Copied
		sum.Skipped += s.Skipped
		sum.Existed += s.Existed
		sum.Referring = append(sum.Referring, s.Referring...)
		sum.Keys = append(sum.Keys, s.Keys...)
		if s.Next == "" {
			ended++
		}
		return nil
	})
	if err != nil || ended != 1 {
		t.Fatalf("copy: %v, ended %d times", err, ended)
	}
	slices.Sort(sum.Referring)
	slices.Sort(sum.Keys)
	return sum
}

func TestCopy(t *testing.T) {
	servers(t, func(t *testing.T, f fixture) {
		want := everyType()
		for _, key := range oddKeys {
			want = append(want, tasks.Entry{Key: key, Type: tasks.EntryString, Value: "odd", ExpiresAt: inHours(1)})
		}
		if err := f.Write(ctxOf(t), "r1", want); err != nil {
			t.Fatal(err)
		}
		f.set("r1", tasks.LeaseKey("plain"))
		f.set("r10", "neighbour")
		got := total(t, f.Cache, "r1", "r2", "")
		if got.Copied != int64(len(want)) || len(got.Keys) != len(want) || got.Skipped+got.Existed != 0 || len(got.Referring) > 0 {
			t.Errorf("got %+v, want %d copied", got, len(want))
		}
		f.same("r2", want)
		f.same("r1", want)
		if again := total(t, f.Cache, "r1", "r2", ""); again.Existed != int64(len(want)) || again.Copied != 0 {
			t.Errorf("the second time: %+v, want %d that existed", again, len(want))
		}
		if f.exists("r2", tasks.LeaseKey("plain")) || f.exists("r2", "neighbour") {
			t.Error("a lease or a neighbour's entry was copied")
		}
	})
}

func TestCopyTakesNamedFamiliesOnly(t *testing.T) {
	servers(t, func(t *testing.T, f fixture) {
		f.set("r1", "nav:1", "nav:2", "asset*:1", "asset:1", "page:nav:", "na")
		f.do("SET", f.tmpl.Key("r2", "nav:2"), "the destination's own")
		got := total(t, f.Cache, "r1", "r2", "nav:", "asset*")
		diff(t, "copied", got.Keys, []string{"asset*:1", "nav:1"})
		if got.Skipped != 3 || got.Existed != 1 {
			t.Errorf("got %+v, want 3 skipped, 1 existed", got)
		}
		if v := f.rdb.Get(ctxOf(t), f.tmpl.Key("r2", "nav:2")).Val(); v != "the destination's own" {
			t.Errorf("the destination's entry became %q", v)
		}
	})
}

func TestCopyLeavesOutWhatRefersToTheSource(t *testing.T) {
	servers(t, func(t *testing.T, f fixture) {
		ref := "x\x00" + f.tmpl.Key("r1", "k")
		f.do("SET", f.tmpl.Key("r1", "string"), ref)
		f.do("RPUSH", f.tmpl.Key("r1", "list"), "a", ref)
		f.do("HSET", f.tmpl.Key("r1", "hash"), ref, "v")
		f.do("SADD", f.tmpl.Key("r1", "set"), ref)
		f.do("ZADD", f.tmpl.Key("r1", "zset"), 1, ref)
		f.do("XADD", f.tmpl.Key("r1", "stream"), "*", "f", "v")
		f.do("SET", f.tmpl.Key("r1", "other"), f.tmpl.Key("r10", "k"))
		want := []string{"hash", "list", "set", "stream", "string", "zset"}
		if f.slop == 0 { // too much for the embedded server
			f.do("SET", f.tmpl.Key("r1", "big"), strings.Repeat("x", 2_000_000)+ref)
			f.do(append([]any{"SADD", f.tmpl.Key("r1", "big set"), ref}, numbers(10_000)...)...)
			want = append([]string{"big", "big set"}, want...)
		}
		got := total(t, f.Cache, "r1", "r2", "")
		diff(t, "referring", got.Referring, want)
		diff(t, "copied", got.Keys, []string{"other"})
	})
}

func numbers(n int) []any {
	out := make([]any, n)
	for i := range out {
		out[i] = i
	}
	return out
}

func TestCopyCarriesTags(t *testing.T) {
	servers(t, func(t *testing.T, f fixture) {
		expires := inHours(1)
		put := func(release string, puts ...namespace.Put) {
			t.Helper()
			if err := f.Put(ctxOf(t), release, puts); err != nil {
				t.Fatal(err)
			}
		}
		put("r1",
			namespace.Put{Entry: tasks.Entry{Key: "nav:1", Type: tasks.EntryString, Value: "1", ExpiresAt: expires}, Tags: []string{"x", "y\x00 *"}},
			namespace.Put{Entry: tasks.Entry{Key: "page:1", Type: tasks.EntryString, Value: "1"}, Tags: []string{"x"}})
		f.do("ZADD", f.tmpl.Key("r1", "#tag:x"), 1000, "nav:dead")
		put("r2", namespace.Put{Entry: tasks.Entry{Key: "own", Type: tasks.EntryString}, Tags: []string{"x"}})
		total(t, f.Cache, "r1", "r2", "nav:")
		f.same("r2", []tasks.Entry{
			{Key: "#tag:x", Type: tasks.EntryZSet, Items: []string{"nav:1", fmt.Sprint(float64(expires)), "own", "+Inf"}},
			{Key: "#tag:y\x00 *", Type: tasks.EntryZSet, Items: []string{"nav:1", fmt.Sprint(float64(expires))}},
			{Key: "nav:1", Type: tasks.EntryString, Value: "1", ExpiresAt: expires},
			{Key: "own", Type: tasks.EntryString},
		})
	})
}

// TestCopyIndexesFirst looks at the destination at every slice: each entry there must be in
// the index, also one that the source gained after the copy began.
func TestCopyIndexesFirst(t *testing.T) {
	f := on(t, redistest.Start(t).Client)
	f.Cache = namespace.New(f.rdb, f.tmpl, f.keys, small)
	entry := func(i int) namespace.Put {
		return namespace.Put{Entry: tasks.Entry{Key: fmt.Sprint("k", i), Type: tasks.EntryString}, Tags: []string{fmt.Sprint("t", i%3)}}
	}
	for i := range 300 {
		if err := f.Put(ctxOf(t), "r1", []namespace.Put{entry(i)}); err != nil {
			t.Fatal(err)
		}
	}
	late := 1000
	err := f.Copy(ctxOf(t), "r1", "r2", []string{""}, "", func(s namespace.CopySlice) error {
		for _, key := range s.Keys {
			var i int
			if _, err := fmt.Sscanf(key, "k%d", &i); err != nil {
				t.Fatal(err)
			}
			if i >= 1000 && s.Next != "" {
				continue // must be there at the end
			}
			if err := f.rdb.ZScore(ctxOf(t), f.tmpl.Key("r2", tasks.TagIndex(fmt.Sprint("t", i%3))), key).Err(); err != nil {
				t.Errorf("%s is copied, but in no index: %v", key, err)
			}
		}
		late++
		return f.Put(ctxOf(t), "r1", []namespace.Put{entry(late)})
	})
	if err != nil {
		t.Fatal(err)
	}
	indexed := map[string]bool{}
	for _, e := range f.all("r2") {
		if _, ok := tasks.TagOf(e.Key); ok {
			for i := 0; i < len(e.Items); i += 2 {
				indexed[e.Items[i]] = true
			}
		} else if !indexed[e.Key] { // indexes sort before entries
			t.Errorf("%s is in no index after the copy", e.Key)
		}
	}
}

// TestStoppedCopyHasItsTags ends a copy right after it copied entries that the source gained
// behind the first look at the indexes.
func TestStoppedCopyHasItsTags(t *testing.T) {
	f := on(t, redistest.Start(t).Client)
	f.Cache = namespace.New(f.rdb, f.tmpl, f.keys, small)
	var late []namespace.Put
	for i := range 1000 {
		f.set("r1", fmt.Sprint("k", i))
		if i < 50 { // so many that the scan meets some of them
			late = append(late, namespace.Put{Entry: tasks.Entry{Key: fmt.Sprint("late", i), Type: tasks.EntryString}, Tags: []string{"t"}})
		}
	}
	var copied []string
	err := f.Copy(ctxOf(t), "r1", "r2", []string{""}, "", func(s namespace.CopySlice) error {
		for _, key := range s.Keys {
			if strings.HasPrefix(key, "late") {
				copied = append(copied, key)
			}
		}
		if len(copied) > 0 {
			return errEnough
		}
		return f.Put(ctxOf(t), "r1", late)
	})
	wantErr(t, "copy", err, errEnough)
	for _, key := range copied {
		if err := f.rdb.ZScore(ctxOf(t), f.tmpl.Key("r2", "#tag:t"), key).Err(); err != nil {
			t.Errorf("%s is copied, but in no index: %v", key, err)
		}
	}
}

// lastSlice is a pacer that lets one slice pass and then says that there is no room.
type lastSlice struct {
	stride
	before func() // the slice
	passed bool
}

func (p *lastSlice) Wait(context.Context) error {
	if p.passed {
		return tasks.ErrRefused
	}
	p.before()
	p.passed = true
	return nil
}

// TestRefusedCopyHasItsTags ends a copy for want of room right after it copied entries that the
// source gained behind the first look at the indexes.
func TestRefusedCopyHasItsTags(t *testing.T) {
	f := on(t, redistest.Start(t).Client)
	var late []namespace.Put
	for i := range 1000 {
		f.set("r1", fmt.Sprint("k", i))
		late = append(late, namespace.Put{Entry: tasks.Entry{Key: fmt.Sprint("late", i), Type: tasks.EntryString}, Tags: []string{"t"}})
	}
	plain := f.Cache
	f.Cache = namespace.New(f.rdb, f.tmpl, f.keys, func(_ context.Context, w namespace.Work) namespace.Pacer {
		if !w.Adds {
			return stride(100)
		}
		return &lastSlice{stride: 100, before: func() {
			if err := plain.Put(ctxOf(t), "r1", late); err != nil {
				t.Error(err)
			}
		}}
	})
	var copied []string
	err := f.Copy(ctxOf(t), "r1", "r2", []string{"late"}, "", func(s namespace.CopySlice) error {
		copied = append(copied, s.Keys...)
		return nil
	})
	wantErr(t, "copy", err, tasks.ErrRefused)
	if len(copied) == 0 {
		t.Error("nothing was copied")
	}
	for _, key := range copied {
		if err := f.rdb.ZScore(ctxOf(t), f.tmpl.Key("r2", "#tag:t"), key).Err(); err != nil {
			t.Errorf("%s is copied, but in no index: %v", key, err)
		}
	}
}

func TestCopyResumes(t *testing.T) {
	f := on(t, redistest.Start(t).Client)
	f.Cache = namespace.New(f.rdb, f.tmpl, f.keys, small)
	for i := range 400 {
		f.set("r1", fmt.Sprint("k", i))
	}
	var cursor string
	var told int64
	for {
		err := f.Copy(ctxOf(t), "r1", "r2", []string{"k"}, cursor, func(s namespace.CopySlice) error {
			cursor = s.Next
			told += s.Copied + s.Existed // the slice under way when the one before ends the copy is copied as well
			return errEnough
		})
		wantErr(t, "copy", err, errEnough)
		if cursor == "" {
			break
		}
	}
	if d := gocmp.Diff(f.all("r1"), f.all("r2")); d != "" || told != 400 {
		t.Errorf("told of %d, want 400; %s", told, d)
	}
}

// TestCopyIntoWrappedKeys uses a template with something after the key.
func TestCopyIntoWrappedKeys(t *testing.T) {
	f := on(t, redistest.Start(t).Client)
	f.tmpl = template(t, "<app>:<release>:{<key>}")
	f.Cache = namespace.New(f.rdb, f.tmpl, f.keys, nil)
	puts := []namespace.Put{{Entry: tasks.Entry{Key: "k", Type: tasks.EntryString, Value: "v"}, Tags: []string{"t"}}}
	if err := f.Put(ctxOf(t), "r1", puts); err != nil {
		t.Fatal(err)
	}
	f.do("SET", f.tmpl.Prefix("r1")+"not ours", "v")
	total(t, f.Cache, "r1", "r2", "")
	f.same("r2", f.all("r1"))
	if n, err := f.Unlink(ctxOf(t), "r1", "k"); n != 1 || err != nil {
		t.Errorf("unlinked %d, %v; want 1", n, err)
	}
	if n := f.rdb.Exists(ctxOf(t), f.tmpl.Prefix("r1")+"not ours", f.tmpl.Key("r1", "#tag:t")).Val(); n != 2 {
		t.Errorf("%d of the foreign key and the tag index are left, want both", n)
	}
}
