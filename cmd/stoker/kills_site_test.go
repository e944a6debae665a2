package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/redistest"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/snapshot"
)

// carryPlan carries all but the family odd:, which has types that cannot be looked into.
const carryPlan = `version: 1
sources:
  - name: unchanged
    carry: {from: active, families: ["cold:", "post:"]}
certificate: {coverage: 90%, sample: 200}
`

// The entries that a release has to have, by their keys' beginning. None of them is ever invalidated.
var (
	carried    = []string{"cold:", "#tag:shelf:"}
	everything = []string{"cold:", "odd:", "#tag:shelf:"}
)

const (
	hot    = 128 // posts that are edited and read all the time
	shelfs = 16  // tags of the cold entries
	busy   = 4   // editors, who read as well
)

// site is what the killed works must leave right.
type site struct {
	t       *testing.T
	cache   topology
	tmpl    tasks.Template
	client  *tasks.Client
	ledger  *release.Ledger
	log     *invalidation.Log
	store   snapshot.Store
	served  string
	standby string

	cold       map[string]value // a full release's entries that never change, by logical key
	neighbours map[string]value // what no work may touch, by key
	stop       func()

	mu       sync.Mutex
	versions map[int]int // guarded by mu; of each post at the origin,
	told     map[int]int // guarded by mu; and of what Invalidate was told
}

// newKills starts an installation with two full releases, r1, which is served, and r2, on standby, beside
// another release and others' keys whose names begin alike.
func newKills(t *testing.T, cache topology, entries int, rng *rand.Rand) *kills {
	t.Helper()
	in := newInstall(t)
	in = in.with("STOKER_CACHE_URL="+cache.url, "STOKER_KEY_TEMPLATE="+cache.template, "STOKER_PACE="+string(cache.pace), "STOKER_WATCH_FOR=0s")
	tmpl, err := tasks.ParseTemplate(cache.template, "site")
	if err != nil {
		t.Fatal(err)
	}
	app, err := tasks.NewClient(tasks.Config{App: "site", RedisURL: in.redis.URL, CacheURL: cache.url, KeyTemplate: cache.template, FillLimit: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = app.Close() })
	keys := tasks.KeysOf("site")
	s := &site{
		t: t, cache: cache, tmpl: tmpl, client: app, served: "r1", standby: "r2", versions: map[int]int{}, told: map[int]int{},
		ledger: release.Open(in.redis.Client, keys), store: snapshot.NewFileStore(filepath.Join(in.dir, "archives")),
		log: invalidation.Open(in.redis.Client, keys, invalidation.Config{FillLimit: time.Second}),
	}
	ns := namespace.New(cache.client, tmpl, keys, nil)
	s.fill(ns, "r1", entries)
	s.fill(ns, "r2", entries)
	s.fill(ns, "r10", entries/10)
	s.foreign(entries / 10)
	s.cold = s.entries("r1", everything)
	if diff := cmp.Diff(s.cold, s.entries("r2", everything)); diff != "" {
		t.Fatalf("the releases are not alike: %s", diff)
	}
	s.neighbours = s.beside()
	if len(s.cold) < entries || len(s.neighbours) < entries/5 {
		t.Fatalf("%d entries, %d neighbours", len(s.cold), len(s.neighbours))
	}
	k := &kills{install: in, site: s, rng: rng, took: map[string]time.Duration{}, recovered: map[string]time.Duration{}}
	k.worker = k.start("worker")
	k.must("release", "create", "r1", "--adopt", "--active", "--no-git")
	k.must("release", "create", "r2", "--adopt", "--no-git")
	k.must("release", "create", "r10", "--adopt", "--no-git")
	s.open()
	return k
}

// born is the moment from which expiries are counted: the same in all releases.
var born = time.Now().UnixMilli()

// fill writes so many entries of all types to a release.
func (s *site) fill(ns *namespace.Cache, id string, entries int) {
	s.t.Helper()
	ctx := context.Background()
	var puts []namespace.Put
	for i := range entries {
		name, expiry := fmt.Sprintf("cold:%05d", i), int64(0)
		if i%3 > 0 {
			expiry = born + int64(3*time.Hour/time.Millisecond) + int64(i)*977
		}
		e := tasks.Entry{Key: name, Type: tasks.EntryString, Value: fmt.Sprint(name, strings.Repeat("\x00\xff ", i%50)), ExpiresAt: expiry}
		switch {
		case i%40 == 1:
			e.Type, e.Value, e.Items = tasks.EntryHash, "", []string{"f", name, "g\x00", ""}
		case i%40 == 2:
			e.Type, e.Value, e.Items = tasks.EntryList, "", []string{"x", name, "x"}
		case i%40 == 3:
			e.Type, e.Value, e.Items = tasks.EntrySet, "", []string{"m", name}
		case i%40 == 4:
			e.Type, e.Value, e.Items = tasks.EntryZSet, "", []string{"m", "1.5", name, "inf"}
		}
		puts = append(puts, namespace.Put{Entry: e, Tags: []string{fmt.Sprint("shelf:", i%shelfs)}})
	}
	for some := range slices.Chunk(puts, 1000) {
		if err := ns.Put(ctx, id, some); err != nil {
			s.t.Fatal(err)
		}
	}
	for i := range 1 + entries/100 {
		key := s.tmpl.Key(id, fmt.Sprint("odd:", i))
		if err := s.cache.client.XAdd(ctx, &redis.XAddArgs{Stream: key, ID: "1-1", Values: []string{"f", "v"}}).Err(); err != nil {
			s.t.Fatal(err)
		}
	}
}

// foreign writes others' keys, whose names begin as those of the releases do.
func (s *site) foreign(n int) {
	s.t.Helper()
	_, err := s.cache.client.Pipelined(context.Background(), func(p redis.Pipeliner) error {
		for i := range n {
			p.Set(context.Background(), fmt.Sprintf("%s:%d", []string{"site:r1x", "site:r", "site", "sites:r1", "other"}[i%5], i), i, time.Duration(i%2)*5*time.Hour)
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// open has editors and readers go on until stop. Each edits posts of its own, by key or by tag.
func (s *site) open() {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for desk := range busy {
		all.Go(func() {
			pause := time.NewTicker(5 * time.Millisecond)
			defer pause.Stop()
			for ctx.Err() == nil {
				s.edit(ctx, desk+busy*rand.IntN(hot/busy))
				for range 3 {
					s.read(ctx, rand.IntN(hot))
				}
				<-pause.C
			}
		})
	}
	s.stop = func() { cancel(); all.Wait() }
}

func (s *site) edit(ctx context.Context, post int) {
	s.mu.Lock()
	s.versions[post]++
	version := s.versions[post]
	s.mu.Unlock()
	target := tasks.Target{Kind: tasks.KindKey, Name: tasks.Bytes(fmt.Sprint("post:", post))}
	if post%2 == 1 {
		target = tasks.Target{Kind: tasks.KindTag, Name: tasks.Bytes(fmt.Sprint("about:", post))}
	}
	_, err := s.client.Invalidate(ctx, tasks.Invalidation{Targets: []tasks.Target{target}, By: tasks.By{Actor: "editor"}})
	if err == nil || errors.Is(err, tasks.ErrNotEnqueued) {
		s.mu.Lock()
		s.told[post] = version
		s.mu.Unlock()
	}
}

func (s *site) read(ctx context.Context, post int) {
	_, _ = s.client.Fetch(ctx, fmt.Sprint("post:", post), []string{fmt.Sprint("about:", post)}, time.Hour, func(context.Context) ([]byte, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return []byte(strconv.Itoa(s.versions[post])), nil
	})
}

// close ends the work, and lets the shelves' tags be invalidated: an entry without its tag would stay.
func (k *kills) close() {
	k.Helper()
	k.stop()
	call := tasks.Invalidation{By: tasks.By{Actor: "test"}}
	for i := range shelfs {
		call.Targets = append(call.Targets, tasks.Target{Kind: tasks.KindTag, Name: tasks.Bytes(fmt.Sprint("shelf:", i))})
	}
	if _, err := k.client.Invalidate(context.Background(), call); err != nil {
		k.Fatal(err)
	}
	k.settled()
	for _, id := range []string{k.served, k.standby} {
		if left := k.entries(id, []string{"cold:"}); len(left) > 0 {
			k.Errorf("release %s: %d entries are left of tags that were invalidated, %s for one", id, len(left), slices.Sorted(maps.Keys(left))[0])
		}
	}
}

// stateOf returns a release's state. A warm that was not certified ends the test.
func (k *kills) stateOf(id string) release.State {
	k.Helper()
	rec, err := k.ledger.Get(context.Background(), id)
	if err != nil {
		k.Fatal(err)
	}
	if _, judged := rec.Docs[release.DocCertificate]; judged && rec.State == release.New {
		k.Fatalf("release %s is %s again: %s", id, rec.State, rec.Docs[release.DocCertificate])
	}
	return rec.State
}

// settled waits until no invalidation is pending and nothing older than what stoker was told is in a live release.
func (k *kills) settled() {
	k.Helper()
	ctx := context.Background()
	k.mu.Lock()
	told := maps.Clone(k.told)
	k.mu.Unlock()
	number, err := k.client.Invalidate(ctx, tasks.Invalidation{Targets: []tasks.Target{{Kind: tasks.KindKey, Name: "nothing"}}, By: tasks.By{Actor: "test"}})
	if err != nil {
		k.Fatal(err)
	}
	redistest.Eventually(k.T, "the invalidations to be applied", func() bool {
		oldest, err := k.redis.Client.ZRangeWithScores(ctx, tasks.KeysOf("site").Pending(), 0, 0).Result()
		return err == nil && (len(oldest) == 0 || int64(oldest[0].Score) > number.Number)
	})
	live, err := k.ledger.Live(ctx)
	if err != nil {
		k.Fatal(err)
	}
	for _, id := range live {
		var stale []string
		for deadline := time.Now().Add(5 * time.Second); ; { // what is on probation is given its time to vanish
			stale = stale[:0]
			for key, v := range k.entries(id, []string{"post:"}) {
				post, _ := strconv.Atoi(strings.TrimPrefix(key, "post:"))
				if version, _ := strconv.Atoi(fmt.Sprint(v.Value)); version < told[post] {
					stale = append(stale, fmt.Sprintf("%s has version %d, stoker was told of %d", key, version, told[post]))
				}
			}
			if len(stale) == 0 {
				break
			}
			if time.Now().After(deadline) {
				k.Errorf("release %s: %d posts are stale: %.400s", id, len(stale), strings.Join(stale, "; "))
				break
			}
		}
	}
}

// assertComplete fails unless a release has all its cold entries of the families, equal, and no others.
func (k *kills) assertComplete(id string, families []string) {
	k.Helper()
	want := map[string]value{}
	for key, v := range k.cold {
		if in(key, families) {
			want[key] = v
		}
	}
	k.compare("release "+id, want, k.entries(id, families))
}

func (k *kills) compare(what string, want, got map[string]value) {
	k.Helper()
	var missing, others, wrong []string
	for key, v := range want {
		w, ok := got[key]
		switch {
		case !ok:
			missing = append(missing, key)
		case w.Expires-v.Expires > 1 || v.Expires-w.Expires > 1 || !cmp.Equal(w.Value, v.Value) || w.Type != v.Type:
			wrong = append(wrong, fmt.Sprintf("%s: %.300s", key, cmp.Diff(v, w)))
		}
	}
	for key := range got {
		if _, ok := want[key]; !ok {
			others = append(others, key)
		}
	}
	if len(missing)+len(others)+len(wrong) > 0 {
		slices.Sort(missing)
		k.Fatalf("%s: of %d entries %d are missing, %.200q; %d are too many, %.200q; %d differ, %.600s",
			what, len(want), len(missing), fmt.Sprint(missing), len(others), fmt.Sprint(others), len(wrong), strings.Join(wrong, "\n"))
	}
}

// assertNeighbours fails unless all that belongs to others is as it was, and the served release has all it had.
func (k *kills) assertNeighbours() {
	k.Helper()
	k.compare("the neighbours", k.neighbours, k.beside())
}

// assertGone fails when a key of the release is left on any server.
func (k *kills) assertGone(id string) {
	k.Helper()
	if left := k.keys(k.tmpl.Prefix(id)); len(left) > 0 {
		k.Fatalf("release %s: %d keys are left, %q for one", id, len(left), left[0])
	}
}

// assertArchive fails unless the recorded archive of a release is whole and equal to it, and nothing in it is
// older than what had been invalidated when it was read.
func (k *kills) assertArchive(id string) {
	k.Helper()
	ctx := context.Background()
	rec, err := k.ledger.Get(ctx, id)
	if err != nil {
		k.Fatal(err)
	}
	var d snapshot.Descriptor
	if _, err := rec.Doc(release.DocSnapshot, &d); err != nil || d.Name == "" {
		k.Fatalf("release %s has no archive: %v", id, err)
	}
	in, err := k.store.Open(ctx, d.Name)
	if err != nil {
		k.Fatal(err)
	}
	defer in.Close()
	r, err := snapshot.NewReader(in)
	if err != nil {
		k.Fatal(err)
	}
	want, got := map[string]value{}, map[string]value{}
	for key, v := range k.cold {
		if !strings.HasPrefix(key, "#") {
			want[key] = v
		}
	}
	mark := invalidation.Mark{Number: d.Mark, Epoch: d.Epoch}
	for {
		b, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			k.Fatal(err)
		}
		for _, e := range b.Entries {
			switch {
			case strings.HasPrefix(e.Key, "cold:"):
				got[e.Key] = valueIn(e)
			case strings.HasPrefix(e.Key, "odd:"):
				got[e.Key] = want[e.Key] // its payload is the server's
			case strings.HasPrefix(e.Key, "post:"):
				k.assertReplayable(id, mark, e)
			}
		}
	}
	k.compare("the archive of "+id, want, got)
}

// assertReplayable fails when a post of an archive is stale and its replay would not notice.
func (k *kills) assertReplayable(id string, mark invalidation.Mark, e tasks.Entry) {
	k.Helper()
	post, _ := strconv.Atoi(strings.TrimPrefix(e.Key, "post:"))
	version, _ := strconv.Atoi(e.Value)
	k.mu.Lock()
	told := k.told[post]
	k.mu.Unlock()
	if version >= told {
		return
	}
	gone, err := k.log.Check(context.Background(), mark, []tasks.Tagged{{Key: e.Key, Tags: []string{fmt.Sprint("about:", post)}}})
	if err != nil || !gone[0] {
		k.Errorf("the archive of %s has %s at version %d, stoker was told of %d before its mark %d: %v", id, e.Key, version, told, mark.Number, err)
	}
}

// valueIn is an archive's entry as the server would tell it.
func valueIn(e tasks.Entry) value {
	v := value{Type: e.Type, Expires: -1, Value: e.Value}
	if e.ExpiresAt != 0 {
		v.Expires = e.ExpiresAt
	}
	switch e.Type {
	case tasks.EntryHash:
		fields := map[string]string{}
		for pair := range slices.Chunk(e.Items, 2) {
			fields[pair[0]] = pair[1]
		}
		v.Value = fields
	case tasks.EntryList:
		v.Value = e.Items
	case tasks.EntrySet:
		v.Value = slices.Sorted(slices.Values(e.Items))
	case tasks.EntryZSet:
		var members []redis.Z
		for pair := range slices.Chunk(e.Items, 2) {
			score, _ := strconv.ParseFloat(pair[1], 64)
			members = append(members, redis.Z{Member: pair[0], Score: score})
		}
		v.Value = members
	}
	return v
}

func in(key string, families []string) bool {
	return slices.ContainsFunc(families, func(f string) bool { return strings.HasPrefix(key, f) })
}

// entries reads those of a release's entries that belong to the families.
func (s *site) entries(id string, families []string) map[string]value {
	s.t.Helper()
	keys := s.keys(s.tmpl.Prefix(id))
	logical := map[string]string{}
	for _, key := range keys {
		if name, ok := s.tmpl.Logical(id, key); ok && in(name, families) {
			logical[key] = name
		}
	}
	out := map[string]value{}
	for key, v := range s.values(slices.Collect(maps.Keys(logical))) {
		out[logical[key]] = v
	}
	return out
}

// beside reads all that no work may touch: others' keys, and another release.
func (s *site) beside() map[string]value {
	s.t.Helper()
	return s.values(slices.DeleteFunc(s.keys(""), func(key string) bool {
		if strings.HasPrefix(key, "stoker:") {
			return true
		}
		ours, ok := strings.CutPrefix(key, "site:")
		id, name, _ := strings.Cut(ours, ":")
		return ok && (id == "r1" || id == "r2" || strings.HasPrefix(id, "c")) && name != "" || strings.HasPrefix(key, "site:r10:post") || strings.HasPrefix(key, "site:r10:{post")
	}))
}

// keys lists the keys of all servers that begin so.
func (s *site) keys(prefix string) (keys []string) {
	s.t.Helper()
	ctx := context.Background()
	redistest.Eventually(s.t, "the keys to be listed", func() bool {
		keys = nil
		servers, err := tasks.Primaries(ctx, s.cache.client)
		for _, server := range servers {
			it := server.Scan(ctx, 0, prefix+"*", 5000).Iterator()
			for it.Next(ctx) {
				keys = append(keys, it.Val())
			}
			err = errors.Join(err, it.Err())
		}
		return err == nil
	})
	slices.Sort(keys)
	return slices.Compact(keys)
}

// values reads keys as their type is read.
func (s *site) values(keys []string) map[string]value {
	s.t.Helper()
	ctx := context.Background()
	out := map[string]value{}
	for some := range slices.Chunk(keys, 2000) {
		types, expiries := make([]*redis.StatusCmd, len(some)), make([]*redis.DurationCmd, len(some))
		_, err := s.cache.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, key := range some {
				types[i], expiries[i] = p.Type(ctx, key), p.PExpireTime(ctx, key)
			}
			return nil
		})
		reads := make([]redis.Cmder, len(some))
		_, err2 := s.cache.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, key := range some {
				switch types[i].Val() {
				case "string":
					reads[i] = p.Get(ctx, key)
				case "hash":
					reads[i] = p.HGetAll(ctx, key)
				case "list":
					reads[i] = p.LRange(ctx, key, 0, -1)
				case "set":
					reads[i] = p.SMembers(ctx, key)
				case "zset":
					reads[i] = p.ZRangeWithScores(ctx, key, 0, -1)
				case "stream":
					reads[i] = p.XRange(ctx, key, "-", "+")
				}
			}
			return nil
		})
		if err := errors.Join(err, err2); err != nil && !errors.Is(err, redis.Nil) {
			s.t.Fatalf("read %d keys: %v", len(some), err)
		}
		for i, key := range some {
			if v, ok := valueFrom(types[i].Val(), reads[i]); ok {
				v.Expires = max(-1, expiries[i].Val().Milliseconds())
				if expiries[i].Val() < 0 {
					v.Expires = -1
				}
				out[key] = v
			}
		}
	}
	return out
}

func valueFrom(kind string, read redis.Cmder) (value, bool) {
	if read == nil || read.Err() != nil { // gone meanwhile
		return value{}, false
	}
	v := value{Type: kind}
	switch cmd := read.(type) {
	case *redis.StringCmd:
		v.Value = cmd.Val()
	case *redis.MapStringStringCmd:
		v.Value = cmd.Val()
	case *redis.StringSliceCmd:
		v.Value = cmd.Val()
		if kind == "set" {
			v.Value = slices.Sorted(slices.Values(cmd.Val()))
		}
	case *redis.ZSliceCmd:
		v.Value = cmd.Val()
	case *redis.XMessageSliceCmd:
		v.Value = cmd.Val()
	}
	return v, true
}
