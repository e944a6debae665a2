package invalidation_test

import (
	"context"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/redistest"
)

// retagging is a live release r1 (and r2, to copy to) whose entries change their tags.
type retagging struct {
	*testing.T
	rdb     *redis.Client
	tmpl    tasks.Template
	ns      *namespace.Cache
	log     *invalidation.Log
	applier *invalidation.Applier
	client  *tasks.Client
}

func newRetagging(t *testing.T) *retagging {
	t.Helper()
	cfg := tasks.Config{App: "site", KeyTemplate: tasks.DefaultTemplate, FillLimit: fillLimit, Release: "r1"}
	tmpl, err := cfg.Template()
	if err != nil {
		t.Fatal(err)
	}
	r := &retagging{T: t, rdb: redistest.Start(t).Client, tmpl: tmpl}
	r.rdb.SAdd(t.Context(), keys.Live(), "r1", "r2")
	r.ns = namespace.New(r.rdb, tmpl, keys, nil)
	r.log = invalidation.Open(r.rdb, keys, invalidation.Config{FillLimit: fillLimit})
	live := func(ctx context.Context) ([]string, error) { return r.rdb.SMembers(ctx, keys.Live()).Result() }
	r.applier = invalidation.NewApplier(r.log, r.rdb, tmpl, live, r.ns)
	r.client, err = tasks.NewClientFrom(r.rdb, r.rdb, cfg)
	r.must(err)
	t.Cleanup(func() { _ = r.client.Close() })
	return r
}

func (r *retagging) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// put writes k as a warm does; an expiry of 0 is none.
func (r *retagging) put(value string, ttl time.Duration, tags ...string) {
	r.Helper()
	e := tasks.Entry{Key: "k", Type: tasks.EntryString, Value: value}
	if ttl > 0 {
		e.ExpiresAt = time.Now().Add(ttl).UnixMilli()
	}
	r.must(r.ns.Put(r.Context(), "r1", []namespace.Put{{Entry: e, Tags: tags}}))
}

// fetch writes k as an app server does.
func (r *retagging) fetch(value string, ttl time.Duration, tags ...string) {
	r.Helper()
	r.rdb.Del(r.Context(), r.key("r1"))
	f, err := r.client.FetchTagged(r.Context(), "k", ttl, func(context.Context) ([]byte, []string, error) { return []byte(value), tags, nil })
	r.must(err)
	if !f.Stored {
		r.Fatal("the fill was not stored")
	}
}

func (r *retagging) key(release string) string { return r.tmpl.Key(release, "k") }

func (r *retagging) invalidate(tag string) {
	r.Helper()
	target := tasks.Target{Kind: tasks.KindTag, Name: tasks.Bytes(tag)}
	_, err := r.log.Record(r.Context(), tasks.Record{ID: rand.Text(), Calls: []tasks.Invalidation{{Targets: []tasks.Target{target}, By: tasks.By{Actor: "ann"}}}})
	r.must(err)
	_, err = r.applier.Apply(r.Context())
	r.must(err)
}

func (r *retagging) has(release string) bool {
	return r.rdb.Exists(r.Context(), r.key(release)).Val() == 1
}

// previewed returns how many entries of r1 an invalidation by tag would remove.
func (r *retagging) previewed(tag string) int64 {
	r.Helper()
	p, err := r.applier.Preview(r.Context(), "r1", []tasks.Target{{Kind: tasks.KindTag, Name: tasks.Bytes(tag)}})
	r.must(err)
	return p.Entries
}

func TestAnEntryThatChangesItsTagsLeavesTheOldOnes(t *testing.T) {
	for name, write := range map[string]func(r *retagging, value string, ttl time.Duration, tags ...string){"put": (*retagging).put, "fetch": (*retagging).fetch} {
		t.Run(name, func(t *testing.T) {
			r := newRetagging(t)
			write(r, "one", time.Hour, "a", "line\nfeed")
			write(r, "two", time.Hour, "b")
			if a, b := r.previewed("a"), r.previewed("b"); a != 0 || b != 1 {
				t.Errorf("previews: a would remove %d, b %d; want 0 and 1", a, b)
			}
			r.invalidate("a")
			r.invalidate("line\nfeed")
			if !r.has("r1") {
				t.Fatal("a tag that the entry no longer has removed it")
			}
			u, err := r.ns.Usage(r.Context(), "r1")
			r.must(err)
			if u.Entries != 1 {
				t.Errorf("%d entries, want 1: a companion is none", u.Entries)
			}
			_, err = r.ns.PruneTags(r.Context(), "r1", time.Now().Add(25*time.Hour))
			r.must(err)
			if n := r.rdb.Exists(r.Context(), r.tmpl.Key("r1", tasks.TagIndex("a"))).Val(); n != 0 {
				t.Error("a day later a's index still lists the entry")
			}
			r.invalidate("b")
			if r.has("r1") {
				t.Error("the tag that the entry has did not remove it")
			}
		})
	}
}

// A value that is not the one whose tags were noted is removed by every tag it is listed under.
func TestACompanionCountsForItsOwnValueOnly(t *testing.T) {
	for name, befall := range map[string]func(r *retagging){
		"another client sets it":          func(r *retagging) { r.rdb.Set(r.Context(), r.key("r1"), "two", 0) },
		"another client keeps its expiry": func(r *retagging) { r.rdb.Set(r.Context(), r.key("r1"), "three", redis.KeepTTL) },
		"it is changed in place":          func(r *retagging) { r.rdb.Append(r.Context(), r.key("r1"), "!") },
		"it is kept longer":               func(r *retagging) { r.rdb.PExpire(r.Context(), r.key("r1"), 2*time.Hour) },
		"it is kept for good":             func(r *retagging) { r.rdb.Persist(r.Context(), r.key("r1")) },
		"the companion is evicted":        func(r *retagging) { r.rdb.Del(r.Context(), r.tmpl.Key("r1", tasks.CompanionKey("k"))) },
		"the companion is of another type": func(r *retagging) {
			r.rdb.Del(r.Context(), r.companion())
			r.rdb.LPush(r.Context(), r.companion(), "b")
		},
		"it is put without an expiry":       func(r *retagging) { r.put("two", 0, "b") },
		"it is put without tags":            func(r *retagging) { r.put("three", time.Hour) },
		"it is too large to be looked into": func(r *retagging) { r.put(strings.Repeat("x", 65<<10), time.Hour, "b") },
		"it becomes a hash": func(r *retagging) {
			r.rdb.Del(r.Context(), r.key("r1"))
			r.rdb.HSet(r.Context(), r.key("r1"), "f", "v")
			r.rdb.PExpireAt(r.Context(), r.key("r1"), time.UnixMilli(r.rdb.PExpireTime(r.Context(), r.companion()).Val().Milliseconds()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRetagging(t)
			r.put("one", time.Hour, "a")
			r.put("two", time.Hour, "b")
			befall(r)
			r.invalidate("a")
			if r.has("r1") {
				t.Error("it stayed")
			}
		})
	}
}

func (r *retagging) companion() string { return r.tmpl.Key("r1", tasks.CompanionKey("k")) }

// A copy has no companion: it is removed by every tag that it was copied with.
func TestACopyLeavesItsCompanionBehind(t *testing.T) {
	r := newRetagging(t)
	r.put("one", time.Hour, "a")
	r.put("two", time.Hour, "b")
	r.must(r.ns.Copy(r.Context(), "r1", "r2", []string{""}, "", func(namespace.CopySlice) error { return nil }))
	if n := r.rdb.Exists(r.Context(), r.tmpl.Key("r2", tasks.CompanionKey("k"))).Val(); n != 0 {
		t.Error("the companion was copied")
	}
	r.must(r.ns.Read(r.Context(), "r1", func(entries []tasks.Entry) error {
		for _, e := range entries {
			if e.Key == tasks.CompanionKey("k") {
				t.Error("the companion was read as an entry")
			}
		}
		return nil
	}))
	r.invalidate("a")
	if !r.has("r1") || r.has("r2") {
		t.Errorf("r1 has it: %v, want true; r2: %v, want false", r.has("r1"), r.has("r2"))
	}
}

// A companion is small: what doc.go says of its size.
func TestMemoryOfACompanion(t *testing.T) {
	r := newRetagging(t)
	key := r.tmpl.Key("r1", tasks.CompanionKey("post:2021/01/some-article"))
	note := tasks.Companion("value", 1, []string{"post:2021/01/some-article", "author:ann"})
	r.must(r.rdb.Set(t.Context(), key, note, time.Hour).Err())
	n, err := r.rdb.MemoryUsage(t.Context(), key).Result()
	r.must(err)
	t.Logf("%d bytes for a key of %d and %d of tags", n, len(key), len(note)-17)
	if limit := int64(100 + len(key) + len(note)); n > limit {
		t.Errorf("a companion takes %d bytes, want at most %d", n, limit)
	}
}
