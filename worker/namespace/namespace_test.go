package namespace_test

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// oddKeys are logical keys that clients write and that break careless tools.
var oddKeys = []string{
	"", "plain", "post:42", "a b", "nul\x00nul", "\x00tags\x00android", "bytes\xff\xfe\x80", "glob*[a-z]?\\", "new\nline\r\n",
	"colon:r10:x", "{tag}", "wp_query-00a2 0.5 1795371029", "ключ", string(make([]byte, 160)),
}

func template(t testing.TB, text string) tasks.Template {
	t.Helper()
	tmpl, err := tasks.ParseTemplate(text, "site")
	if err != nil {
		t.Fatal(err)
	}
	return tmpl
}

// fixture is a cache Redis with the namespaces of one app.
type fixture struct {
	*namespace.Cache
	t    testing.TB
	rdb  redis.UniversalClient
	tmpl tasks.Template
	keys tasks.Keys
	slop int64 // milliseconds by which the server itself misses an expiry
}

func on(t testing.TB, rdb redis.UniversalClient) fixture {
	t.Helper()
	return with(t, rdb, tasks.DefaultTemplate)
}

func with(t testing.TB, rdb redis.UniversalClient, tmpl string) fixture {
	t.Helper()
	f := fixture{t: t, rdb: rdb, tmpl: template(t, tmpl), keys: tasks.KeysOf("site")}
	f.Cache = namespace.New(rdb, f.tmpl, f.keys, nil)
	return f
}

// servers runs a test on a real server and on an embedded one, or on the Cluster of TestOnCluster.
func servers(t *testing.T, test func(t *testing.T, f fixture)) {
	if onCluster != nil {
		test(t, onCluster(t))
		return
	}
	t.Run("redis", func(t *testing.T) { test(t, on(t, redistest.Start(t).Client)) })
	t.Run("mini", func(t *testing.T) {
		f := on(t, redistest.Mini(t))
		f.slop = 60_000 // it keeps the time left, which stands still
		test(t, f)
	})
}

func ctxOf(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func (f fixture) do(args ...any) {
	f.t.Helper()
	if err := f.rdb.Do(ctxOf(f.t), args...).Err(); err != nil {
		f.t.Fatalf("%.60q: %v", args, err)
	}
}

// set sets a string entry of a release, without an expiry.
func (f fixture) set(release string, logical ...string) {
	f.t.Helper()
	for _, l := range logical {
		f.do("SET", f.tmpl.Key(release, l), "value of "+l)
	}
}

func (f fixture) exists(release, logical string) bool {
	f.t.Helper()
	n, err := f.rdb.Exists(ctxOf(f.t), f.tmpl.Key(release, logical)).Result()
	if err != nil {
		f.t.Fatal(err)
	}
	return n == 1
}

// all reads a namespace in canonical order.
func (f fixture) all(release string) []tasks.Entry {
	f.t.Helper()
	return readAll(f.t, f.Cache, release)
}

// same fails the test unless the release holds exactly these entries.
func (f fixture) same(release string, want []tasks.Entry) {
	f.t.Helper()
	got, want := f.all(release), canonical(want)
	for i := range min(len(got), len(want)) {
		if d := got[i].ExpiresAt - want[i].ExpiresAt; d != 0 && d <= f.slop && d >= -f.slop {
			got[i].ExpiresAt = want[i].ExpiresAt
		}
	}
	if len(got)+len(want) > 0 {
		diff(f.t, "entries of "+release, got, want)
	}
}

func readAll(t testing.TB, c *namespace.Cache, release string) []tasks.Entry {
	t.Helper()
	var out []tasks.Entry
	err := c.Read(ctxOf(t), release, func(entries []tasks.Entry) error {
		out = append(out, entries...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return canonical(out)
}

// canonical sorts entries, and the items of those whose order means nothing.
func canonical(entries []tasks.Entry) []tasks.Entry {
	for _, e := range entries {
		switch e.Type {
		case tasks.EntrySet:
			slices.Sort(e.Items)
		case tasks.EntryHash, tasks.EntryZSet:
			sortFields(e.Items, e.FieldsExpireAt)
			sortPairs(e.Items)
			if e.Type == tasks.EntryZSet {
				for i := 1; i < len(e.Items); i += 2 {
					f, _ := strconv.ParseFloat(e.Items[i], 64)
					e.Items[i] = strconv.FormatFloat(f+0, 'g', -1, 64) // to Redis -0 is 0
				}
			}
		}
	}
	slices.SortFunc(entries, func(a, b tasks.Entry) int { return cmp.Compare(a.Key, b.Key) })
	return entries
}

// sortFields sorts the expiries of a hash's fields as sortPairs will its items.
func sortFields(items []string, expiries []int64) {
	at := map[string]int64{}
	for i := range expiries {
		at[items[2*i]] = expiries[i]
	}
	for i, field := range slices.Sorted(maps.Keys(at)) {
		expiries[i] = at[field]
	}
}

func sortPairs(flat []string) {
	pairs := slices.Collect(slices.Chunk(slices.Clone(flat), 2))
	slices.SortFunc(pairs, func(a, b []string) int { return cmp.Compare(a[0], b[0]) })
	copy(flat, slices.Concat(pairs...))
}

func diff(t testing.TB, what string, got, want any) {
	t.Helper()
	if reflect.DeepEqual(want, got) { // far quicker on big values
		return
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%.4000s", what, d)
	}
}

// inHours returns an expiry in milliseconds that is no whole second.
func inHours(h int) int64 { return time.Now().Add(time.Duration(h)*time.Hour).Unix()*1000 + 123 }

func wantErr(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got error %v, want %v", what, got, want)
	}
}

func TestRefusesWhatItCannotDo(t *testing.T) {
	ctx := ctxOf(t)
	f := on(t, redistest.Mini(t))
	f.set("r1", "k")
	read := func([]tasks.Entry) error { return nil }
	wantErr(t, "bad ID", f.Read(ctx, "r1*", read), tasks.ErrInvalid)
	wantErr(t, "empty ID", f.Write(ctx, "", nil), tasks.ErrInvalid)
	_, err := f.Purge(ctx, "r1", "", nil)
	wantErr(t, "purge without a token", err, tasks.ErrInvalid)
	_, err = f.Unlink(ctx, "r1", "#")
	wantErr(t, "unlink reserved", err, tasks.ErrInvalid)
	_, err = f.Remove(ctx, "r1", []string{"k", "#tag:x"})
	wantErr(t, "remove reserved", err, tasks.ErrInvalid)
	wantErr(t, "copy to itself", f.Copy(ctx, "r1", "r1", []string{""}, "", nil), tasks.ErrInvalid)
	wantErr(t, "copy nothing", f.Copy(ctx, "r1", "r2", nil, "", nil), tasks.ErrInvalid)
	wantErr(t, "copy reserved", f.Copy(ctx, "r1", "r2", []string{"#tag:"}, "", nil), tasks.ErrInvalid)
	put := namespace.Put{Entry: tasks.Entry{Key: "#lease:k", Type: tasks.EntryString}}
	wantErr(t, "put reserved", f.Put(ctx, "r1", []namespace.Put{put}), tasks.ErrInvalid)
	wantErr(t, "write nonsense", f.Write(ctx, "r1", []tasks.Entry{{Key: "k", Type: "jelly"}}), tasks.ErrInvalid)
	wantErr(t, "write a wrong index", f.Write(ctx, "r1", []tasks.Entry{{Key: "#tag:x", Type: tasks.EntryString}}), tasks.ErrInvalid)

	empty := namespace.New(f.rdb, tasks.Template{}, f.keys, nil)
	_, err = empty.Unlink(ctx, "r1", "")
	wantErr(t, "no template", err, tasks.ErrInvalid)
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"one": "127.0.0.1:1"}})
	defer func() { _ = ring.Close() }()
	_, err = namespace.New(ring, f.tmpl, f.keys, nil).Usage(ctx, "r1")
	wantErr(t, "ring", err, tasks.ErrInvalid)
	if !f.exists("r1", "k") {
		t.Error("a refused call deleted an entry")
	}
}

// stride is a pacer that makes many small slices.
type stride int

func (s stride) Size() int { return int(s) }

func (stride) Wait(ctx context.Context) error { return ctx.Err() }

func (stride) Done(time.Duration, int) {}

func small(context.Context, namespace.Work) namespace.Pacer { return stride(7) }
