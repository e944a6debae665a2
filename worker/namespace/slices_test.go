package namespace_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/redistest"
)

// recorder is a pacer that keeps its samples.
type recorder struct {
	took  []time.Duration
	items []int
	wait  func(context.Context) error // before every slice but the first
}

func (r *recorder) Size() int {
	if len(r.took) == 0 {
		return 100
	}
	return 50
}

func (r *recorder) Wait(ctx context.Context) error {
	if r.wait == nil || len(r.took) == 0 {
		return ctx.Err()
	}
	return r.wait(ctx)
}

func (r *recorder) Done(took time.Duration, items int) {
	r.took, r.items = append(r.took, took), append(r.items, items)
}

// paced is f's cache with that pacer for every work of the verb.
func (f *fixture) paced(verb string, p namespace.Pacer) {
	f.Cache = namespace.New(f.rdb, f.tmpl, f.keys, func(_ context.Context, w namespace.Work) namespace.Pacer {
		if w.Verb == verb {
			return p
		}
		return stride(50)
	})
}

func TestPacerSeesEverySlice(t *testing.T) {
	f := on(t, redistest.Start(t).Client)
	r := &recorder{}
	f.paced("list", r)
	for i := range 1000 {
		f.set("r1", fmt.Sprint("k", i))
	}
	if got := len(f.all("r1")); got != 1000 {
		t.Fatalf("read %d entries", got)
	}
	if len(r.took) < 15 {
		t.Errorf("%d slices of about 50 items for 1000 keys", len(r.took))
	}
	for i, took := range r.took {
		want := 50
		if i == 0 {
			want = 100 // the first, before any sample
		}
		if took <= 0 || took > 5*time.Second || r.items[i] != want {
			t.Errorf("slice %d took %v for %d items, want some time and %d", i, took, r.items[i], want)
		}
	}
	values := &recorder{}
	f.paced("read", values)
	read := 0
	for f.all("r1"); len(values.items) > 0; values.items = values.items[1:] {
		read += values.items[0]
	}
	if read != 1000 {
		t.Errorf("1000 values were read in slices of %d", read)
	}
	f.paced("write", r)
	f.do("CONFIG", "SET", "maxmemory", "1")
	err := f.Write(ctxOf(t), "r1", []tasks.Entry{{Key: "k", Type: tasks.EntryString}})
	if last := r.items[len(r.items)-1]; err == nil || last != 0 {
		t.Errorf("write to a full server: %v, reported as a slice of %d items; want an error and 0", err, last)
	}
}

func TestPauseEndsWithItsContext(t *testing.T) {
	f := on(t, redistest.Start(t).Client)
	for i := range 1000 {
		f.set("r1", fmt.Sprint("k", i))
	}
	ctx, cancel := context.WithCancel(ctxOf(t))
	f.paced("read", &recorder{wait: func(ctx context.Context) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}})
	wantErr(t, "read", f.Read(ctx, "r1", func([]tasks.Entry) error { return nil }), context.Canceled)
}

// TestWorkThatAddsSaysSo tells a pacer what must end before the server is full, and what must not.
func TestWorkThatAddsSaysSo(t *testing.T) {
	f := on(t, redistest.Start(t).Client)
	adds := map[string]bool{}
	f.Cache = namespace.New(f.rdb, f.tmpl, f.keys, func(_ context.Context, w namespace.Work) namespace.Pacer {
		adds[w.Verb] = w.Adds
		return stride(100)
	})
	ctx := ctxOf(t)
	entry := tasks.Entry{Key: "k", Type: tasks.EntryString}
	for _, err := range []error{
		f.Write(ctx, "r1", []tasks.Entry{entry}),
		f.Put(ctx, "r1", []namespace.Put{{Entry: entry, Tags: []string{"t"}}}),
		f.Copy(ctx, "r1", "r2", []string{""}, "", func(namespace.CopySlice) error { return nil }),
		f.Read(ctx, "r1", func([]tasks.Entry) error { return nil }),
		f.SetFence(ctx, "r2", "token"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, do := range []func() error{
		func() error { _, err := f.Usage(ctx, "r1"); return err },
		func() error { _, err := f.PruneTags(ctx, "r1", time.Now()); return err },
		func() error { _, err := f.Unlink(ctx, "r1", ""); return err },
		func() error { _, err := f.Purge(ctx, "r2", "token", nil); return err },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]bool{"write": true, "put": true, "copy": true, "list": false, "read": false, "tags": false, "count": false, "prune": false, "delete": false}
	if d := gocmp.Diff(want, adds); d != "" {
		t.Errorf("verbs that add (-want +got):\n%s", d)
	}
}

// anyEntry draws an entry of any bytes and shape.
func anyEntry(t *rapid.T) tasks.Entry {
	text := rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 20), func(b []byte) string { return string(b) })
	e := tasks.Entry{
		Key:  text.Filter(func(s string) bool { return s == "" || s[:1] != tasks.Reserved }).Draw(t, "key"),
		Type: rapid.SampledFrom([]string{tasks.EntryString, tasks.EntryHash, tasks.EntryList, tasks.EntrySet, tasks.EntryZSet}).Draw(t, "type"),
	}
	if rapid.Bool().Draw(t, "expires") {
		e.ExpiresAt = inHours(1) + rapid.Int64Range(0, 1<<40).Draw(t, "after")
	}
	switch e.Type {
	case tasks.EntryString:
		e.Value = text.Draw(t, "value")
	case tasks.EntryList:
		e.Items = rapid.SliceOfN(text, 1, 30).Draw(t, "elements")
	default:
		e.Items = rapid.SliceOfNDistinct(text, 1, 30, rapid.ID).Draw(t, "members")
	}
	if e.Type == tasks.EntryHash || e.Type == tasks.EntryZSet {
		var pairs []string
		for _, m := range e.Items {
			second := text.Draw(t, "field's value")
			if e.Type == tasks.EntryZSet {
				second = fmt.Sprint(rapid.Float64().Draw(t, "score"))
			}
			pairs = append(pairs, m, second)
		}
		e.Items = pairs
	}
	return e
}

// TestAnyNamespace moves any namespace and brings it back.
func TestAnyNamespace(t *testing.T) {
	f := on(t, redistest.Start(t).Client)
	f.Cache = namespace.New(f.rdb, f.tmpl, f.keys, small)
	f.set("r", oddKeys...)
	rapid.Check(t, func(rt *rapid.T) {
		want := rapid.SliceOfNDistinct(rapid.Custom(anyEntry), 0, 40, func(e tasks.Entry) string { return e.Key }).Draw(rt, "entries")
		for _, release := range []string{"r1", "r11"} { // what a failed try left
			if _, err := f.Unlink(ctxOf(t), release, ""); err != nil {
				rt.Fatal(err)
			}
		}
		if err := f.Write(ctxOf(t), "r1", want); err != nil {
			rt.Fatal(err)
		}
		check := func(release string, want []tasks.Entry) {
			if d := gocmp.Diff(canonical(want), f.all(release), cmpopts.EquateEmpty()); d != "" {
				rt.Fatalf("entries of %s (-want +got):\n%s", release, d)
			}
		}
		check("r1", want)
		total(t, f.Cache, "r1", "r11", "")
		check("r11", want)
		purge(t, f.Cache, "r1", len(want))
		check("r1", nil)
		purge(t, f.Cache, "r11", len(want))
	})
	if got := len(f.all("r")); got != len(oddKeys) {
		t.Errorf("the neighbour has %d entries left of %d", got, len(oddKeys))
	}
}
