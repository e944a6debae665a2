// Package verbtest is a small site on a real Redis for the tests of the verbs that take
// releases away and bring them back, with faults that can be put at every step.
package verbtest

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/redistest"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/snapshot"
)

// App is the site's name.
const App = "blog"

// By is who asks for everything in these tests.
var By = tasks.By{Actor: "test", Reason: "to see"}

// World is a site with its releases, on one Redis.
type World struct {
	T        testing.TB
	Client   *redis.Client
	Keys     tasks.Keys
	Template tasks.Template
	Ledger   *release.Ledger
	Log      *invalidation.Log
	Cache    *namespace.Cache
	Applier  *invalidation.Applier
	Store    *snapshot.FileStore
	Logger   *slog.Logger
	Big      int  // bytes of a value that Fill adds, 0 for none
	Fields   bool // fields of hashes may expire on this Redis: Fill adds one that has such

	records int
}

// New starts a Redis and returns an empty world on it, with the default key template.
func New(t testing.TB) *World {
	t.Helper()
	w := &World{T: t, Client: redistest.Start(t).Client}
	w.SetTemplate(tasks.DefaultTemplate)
	w.Reset()
	var err error
	w.Fields, err = w.Cache.FieldExpiries(t.Context())
	w.Must(err)
	return w
}

// SetTemplate opens the world's rooms with another key template.
func (w *World) SetTemplate(text string) {
	w.T.Helper()
	template, err := tasks.ParseTemplate(text, App)
	w.Must(err)
	w.Template, w.Keys, w.Logger = template, tasks.KeysOf(App), slog.New(slog.DiscardHandler)
	w.Ledger = release.Open(w.Client, w.Keys)
	w.Log = invalidation.Open(w.Client, w.Keys, invalidation.Config{})
	w.Cache = namespace.New(w.Client, template, w.Keys, nil)
	w.Applier = invalidation.NewApplier(w.Log, w.Client, template, w.Ledger.Live, w.Cache)
}

// Reset empties the world: no keys, no releases, no archives.
func (w *World) Reset() {
	w.T.Helper()
	w.Store = snapshot.NewFileStore(w.T.TempDir())
	w.Must(w.Client.FlushAll(w.T.Context()).Err())
}

// Must ends the test on an error.
func (w *World) Must(err error) {
	w.T.Helper()
	if err != nil {
		w.T.Fatal(err)
	}
}

// Activate creates releases, fills their namespaces and makes each the active one in turn.
func (w *World) Activate(ids ...string) {
	w.T.Helper()
	for _, id := range ids {
		w.Create(id)
		w.Fill(id)
		_, err := w.Ledger.Flip(w.T.Context(), id, release.New, By)
		w.Must(err)
	}
}

// Create registers a release.
func (w *World) Create(id string) {
	w.T.Helper()
	w.Must(w.Ledger.Create(w.T.Context(), release.Record{ID: id, Template: w.Template.String()}, By))
}

// Posts is how many posts Fill writes, each with an index for its tag.
const Posts = 40

// Fill writes entries of every type to a namespace: keys of any bytes, with and without expiry,
// posts with tags, and a type without a portable encoding.
func (w *World) Fill(id string) {
	w.T.Helper()
	never, later := int64(0), time.Now().Add(time.Hour).UnixMilli()
	puts := []namespace.Put{
		{Entry: tasks.Entry{Key: "hash", Type: tasks.EntryHash, Items: []string{"a", "1", "b\x00", ""}, ExpiresAt: later}},
		{Entry: tasks.Entry{Key: "list", Type: tasks.EntryList, Items: []string{"x", "x", ""}, ExpiresAt: never}},
		{Entry: tasks.Entry{Key: "set", Type: tasks.EntrySet, Items: []string{"m", "\xff"}, ExpiresAt: later}},
		{Entry: tasks.Entry{Key: "zset", Type: tasks.EntryZSet, Items: []string{"m", "1.5", "n", "inf"}, ExpiresAt: never}},
		{Entry: tasks.Entry{Key: "glob*[?]\\ \x00tags\x00\xfe", Type: tasks.EntryString, Value: "\x00\xff", ExpiresAt: later}},
		{Entry: tasks.Entry{Key: "empty", Type: tasks.EntryString, ExpiresAt: never}},
		{Entry: tasks.Entry{Key: "short", Type: tasks.EntryString, Value: "soon gone", ExpiresAt: later}},
	}
	if w.Big > 0 {
		puts = append(puts, namespace.Put{Entry: tasks.Entry{Key: "big", Type: tasks.EntryString, Value: strings.Repeat("x", w.Big), ExpiresAt: later}})
	}
	if w.Fields {
		puts = append(puts, namespace.Put{Entry: tasks.Entry{Key: "fields", Type: tasks.EntryHash, Items: []string{"a", "1", "b", "2"}, FieldsExpireAt: []int64{time.Now().Add(24 * time.Hour).UnixMilli(), never}}})
	}
	for i := range Posts {
		key, expiry := fmt.Sprint("post:", i), never
		if i%2 == 0 {
			expiry = later
		}
		puts = append(puts, namespace.Put{
			Entry: tasks.Entry{Key: key, Type: tasks.EntryString, Value: fmt.Sprint(id, " ", key), ExpiresAt: expiry},
			Tags:  []string{fmt.Sprint("author:", i%4)},
		})
	}
	w.Must(w.Cache.Put(w.T.Context(), id, puts))
	w.Must(w.Client.XAdd(w.T.Context(), &redis.XAddArgs{Stream: w.Template.Key(id, "stream"), ID: "1-1", Values: []string{"f", "v"}}).Err())
}

// Archive takes a release on standby to archived, with the verb's own order of steps.
func (w *World) Archive(id string) {
	w.T.Helper()
	ctx := w.T.Context()
	mark, err := w.Log.OpenReader(ctx, id, "archiver")
	w.Must(err)
	name := snapshot.Name(App, id, mark.Number, "archiver")
	draft, err := w.Store.Create(ctx, name)
	w.Must(err)
	defer func() { _ = draft.Abort() }()
	archive, err := snapshot.NewWriter(draft, snapshot.Header{App: App, Release: id, Mark: mark.Number, Epoch: mark.Epoch, Created: time.Now().UTC(), Fields: w.Fields})
	w.Must(err)
	w.Must(w.Cache.Read(ctx, id, func(entries []tasks.Entry) error {
		for part := range slices.Chunk(entries, 20) { // blocks so small that there are several
			w.Must(errors.Join(archive.Write(part...), archive.Flush()))
		}
		return nil
	}))
	sum, err := archive.Close()
	w.Must(errors.Join(err, draft.Commit()))
	w.Must(w.Ledger.SetDoc(ctx, id, release.DocSnapshot, snapshot.Describe(sum, name, w.Store.String(), time.Now().UTC())))
	w.Must(w.Log.CloseReader(ctx, "archiver"))
	w.Must(w.Ledger.Move(ctx, id, release.Standby, release.Archived, By))
	w.Purge(id)
}

// Purged notes that an expiry has proved a namespace empty.
func (w *World) Purged(id string) {
	w.T.Helper()
	servers, err := w.Cache.Servers(w.T.Context())
	w.Must(err)
	w.Must(w.Ledger.SetDoc(w.T.Context(), id, release.DocPurge, release.Purge{FinishedAt: time.Now().UTC(), Servers: servers}))
}

// Purge deletes a namespace, whatever it is.
func (w *World) Purge(id string) {
	w.T.Helper()
	w.Must(w.Cache.SetFence(w.T.Context(), id, "world"))
	_, err := w.Cache.Purge(w.T.Context(), id, "world", nil)
	w.Must(err)
}

// Invalidate records an invalidation of targets, without applying it.
func (w *World) Invalidate(targets ...tasks.Target) int64 {
	w.T.Helper()
	w.records++
	number, err := w.Log.Record(w.T.Context(), tasks.Record{
		ID: fmt.Sprint("record ", w.records), Calls: []tasks.Invalidation{{Targets: targets, By: By}},
	})
	w.Must(err)
	return number
}

// Target makes a target from "key:…", "tag:…" or "prefix:…".
func Target(text string) tasks.Target {
	kind, name, _ := strings.Cut(text, ":")
	return tasks.Target{Kind: tasks.Kind(kind), Name: tasks.Bytes(name)}
}

// State returns a release's state.
func (w *World) State(id string) release.State {
	w.T.Helper()
	rec, err := w.Ledger.Get(w.T.Context(), id)
	w.Must(err)
	return rec.State
}

// Snapshot returns a release's recorded archive.
func (w *World) Snapshot(id string) snapshot.Descriptor {
	w.T.Helper()
	rec, err := w.Ledger.Get(w.T.Context(), id)
	w.Must(err)
	var d snapshot.Descriptor
	_, err = rec.Doc(release.DocSnapshot, &d)
	w.Must(err)
	return d
}

// present returns the members of a tag index, each with its score, that are not marked as gone.
func present(items []string) (kept []string) {
	for pair := range slices.Chunk(items, 2) {
		if !strings.HasPrefix(pair[1], "-") {
			kept = append(kept, pair...)
		}
	}
	return kept
}

// Entries returns a namespace by logical key, each entry as its [Text]; members of tag indexes
// that an invalidation marked as gone are left out, and indexes that hold no others.
func (w *World) Entries(id string) map[string]string {
	w.T.Helper()
	all := map[string]string{}
	w.Must(w.Cache.Read(w.T.Context(), id, func(entries []tasks.Entry) error {
		for _, e := range entries {
			if _, isTag := tasks.TagOf(e.Key); isTag {
				if e.Items = present(e.Items); len(e.Items) == 0 {
					continue
				}
			}
			all[e.Key] = Text(e)
		}
		return nil
	}))
	return all
}

// Text is an entry's type, expiry and value as one string; the order of a hash's, set's and
// sorted set's items does not count.
func Text(e tasks.Entry) string {
	items := slices.Clone(e.Items)
	for i, at := range e.FieldsExpireAt { // a field's expiry is told with its value
		items[2*i+1] = fmt.Sprint(items[2*i+1], " until ", at)
	}
	switch e.Type {
	case tasks.EntrySet:
		slices.Sort(items)
	case tasks.EntryHash, tasks.EntryZSet:
		pairs := map[string]string{}
		for p := range slices.Chunk(items, 2) {
			pairs[p[0]] = p[1]
		}
		items = items[:0]
		for _, k := range slices.Sorted(maps.Keys(pairs)) {
			items = append(items, k, pairs[k])
		}
	}
	value := e.Value
	if len(value) > 1000 {
		value = fmt.Sprintf("%d bytes, %x", len(value), xxhash.Sum64String(value))
	}
	return fmt.Sprintf("%s %d %q %q", e.Type, e.ExpiresAt, value, items)
}

// Neighbours returns every key of the server outside of the release's namespace and of stoker's own
// keys, with a fingerprint of its value.
func (w *World) Neighbours(id string) map[string]string {
	w.T.Helper()
	keys, err := w.Client.Keys(w.T.Context(), "*").Result()
	w.Must(err)
	dumps := map[string]*redis.StringCmd{}
	pipe := w.Client.Pipeline()
	for _, key := range keys {
		if !strings.HasPrefix(key, w.Template.Prefix(id)) && !strings.HasPrefix(key, "stoker:") {
			dumps[key] = pipe.Dump(w.T.Context(), key)
		}
	}
	_, err = pipe.Exec(w.T.Context())
	w.Must(err)
	out := map[string]string{}
	for key, dump := range dumps {
		out[key] = dump.Val()
	}
	return out
}

// Archives returns the names in the store, drafts not among them.
func (w *World) Archives() []string {
	w.T.Helper()
	objects, err := w.Store.List(w.T.Context())
	w.Must(err)
	var names []string
	for _, o := range objects {
		names = append(names, o.Name)
	}
	return names
}

// Verify ends the test unless the release's recorded archive is there and whole.
func (w *World) Verify(id string) {
	w.T.Helper()
	d := w.Snapshot(id)
	in, err := w.Store.Open(w.T.Context(), d.Name)
	w.Must(err)
	defer func() { _ = in.Close() }()
	s, err := snapshot.Verify(w.T.Context(), in)
	w.Must(errors.Join(err, d.Matches(s)))
}

// OnePointer ends the test unless exactly the named release is active, by pointer and by state.
func (w *World) OnePointer(active string) {
	w.T.Helper()
	pointer, err := w.Ledger.Active(w.T.Context())
	w.Must(err)
	records, err := w.Ledger.List(w.T.Context())
	w.Must(err)
	var actives []string
	for _, rec := range records {
		if rec.State == release.Active {
			actives = append(actives, rec.ID)
		}
	}
	if pointer != active || !slices.Equal(actives, []string{active}) {
		w.T.Fatalf("the pointer says %q, active are %v; want %q", pointer, actives, active)
	}
}
