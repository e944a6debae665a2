package filltest

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/alphanode/stoker/tasks"
)

// checks returns all that a port must do, the plainest first.
func checks() []check {
	all := []check{
		{"a miss is loaded and stored", missIsStored},
		{"a hit is not loaded", hitIsNotLoaded},
		{"without a ttl an entry stays", entryWithoutTTL},
		{"any bytes", anyBytes},
		{"many tags", manyTags},
		{"an entry's own tags", companions},
		{"the key template", keyTemplate},
		{"what cannot be a fill is refused", refused},
		{"an unrelated invalidation does no harm", unrelatedInvalidation},
		{"an invalidation that is pending", pendingInvalidation},
		{"an invalidation between put and check", overtakenAfterThePut},
		{"the origin lags behind", laggingOrigin},
		{"a crash between any two commands", crashAnywhere},
		{"probation", probation},
		{"a settle that comes late", lateSettle},
		{"one loader at a time", oneLoader},
		{"a loader that is slow", slowLoader},
		{"a load that fails", failedLoad},
		{"the lease of another", leaseOfAnother},
		{"a release that is not live", notLive},
		{"a release that ceases to be live", ceasesToBeLive},
		{"another log", anotherEpoch},
		{"follows the active release", followsActive},
		{"no release is active", noneActive},
		{"a load beyond the fill limit", lateLoad},
		{"a put that arrives late", latePut},
	}
	for _, k := range []struct {
		kind tasks.Kind
		name string
	}{{tasks.KindKey, "post:1"}, {tasks.KindTag, "author:ann"}, {tasks.KindTag, "section:news"}, {tasks.KindPrefix, "post:"}} {
		all = append(all, check{fmt.Sprintf("an invalidation of the %s %s during the load", k.kind, k.name), func(w *world) { overtaken(w, k.kind, k.name) }})
	}
	all = append(all, check{"a Redis hangs", hangs})
	for name, away := range map[string]func(*port){
		"cache": func(p *port) { p.cache.cut() }, "queue": func(p *port) { p.queue.cut() },
	} {
		all = append(all,
			check{"the " + name + " Redis is away", func(w *world) { awayFromTheStart(w, away) }},
			check{"the " + name + " Redis goes away during the load", func(w *world) { awayDuringTheLoad(w, away) }})
	}
	return all
}

func missIsStored(w *world) {
	p := w.open()
	from := w.now()
	p.miss("post:1", time.Hour, "author:ann", "section:news")
	w.wantNoEntry("post:1")
	p.loaded("page")
	if r := p.wantDone("page", true); r.Release != "r1" {
		w.failf("release %q, want r1", r.Release)
	}
	w.wantEntry("post:1", "page")
	w.wantNoLease("post:1")
	const slack = 5 // ms, for rounding
	expiry, ttl, now := w.expiry(w.entry("post:1")), time.Hour.Milliseconds(), w.now()
	// A port's clock begins before the server's is read: its lease's delay counts twice.
	if expiry < from+ttl-slack || expiry > now+(now-from)+ttl+slack {
		w.failf("the entry expires at %d, want the ttl of %d ms after the fetch, which began at %d", expiry, ttl, from)
	}
	w.wantListed("post:1", float64(expiry), "author:ann", "section:news")
}

// wantListed expects each tag's index to list the entry, scored with its expiry.
func (w *world) wantListed(logical string, score float64, tags ...string) {
	for _, tag := range tags {
		got, err := w.cache.ZScore(w.ctx, w.index(tag), logical).Result()
		if err != nil || got != score {
			w.failf("the index of the tag %s lists %s with score %v, %v; want the entry's expiry, %v", tasks.Bytes(tag), tasks.Bytes(logical), got, err, score)
		}
	}
}

func hitIsNotLoaded(w *world) {
	p := w.open()
	p.fill("post:1", "page", time.Hour)
	p.wantHit("post:1", "page")
	w.open().wantHit("post:1", "page")
}

func entryWithoutTTL(w *world) {
	w.open().fill("post:1", "page", 0, "author:ann")
	w.wantEntry("post:1", "page")
	if got := w.expiry(w.entry("post:1")); got != -1 {
		w.failf("with a ttl of 0 the entry expires at %d; want never", got)
	}
	w.wantListed("post:1", math.Inf(1), "author:ann")
}

func anyBytes(w *world) {
	p := w.open()
	for key, value := range map[string]string{
		"a\x00b\xff\xfe\r\n": "\x00\xff\xfe\r\n$5\r\n", "é{x}*?[a]\\ ": "<é>", "empty": "", "large": strings.Repeat("0123456789abcdef", 1<<16),
	} {
		tag := "tag\x00\xff" + key
		p.fill(key, value, time.Hour, tag)
		w.wantEntry(key, value)
		w.wantListed(key, float64(w.expiry(w.entry(key))), tag)
		p.wantHit(key, value)
	}
	p.miss("b\x00\xff", time.Hour, "t\x00\xff")
	w.invalidate(tasks.KindTag, "t\x00\xff", "b\x00\xff")
	p.loaded("v")
	p.wantDone("v", false)
	w.wantNoEntry("b\x00\xff")
}

func manyTags(w *world) {
	tags := make([]string, 2000)
	for i := range tags {
		tags[i] = fmt.Sprint("t", i)
	}
	p := w.open()
	p.fill("post:1", "page", time.Hour, tags...)
	w.wantListed("post:1", float64(w.expiry(w.entry("post:1"))), tags...)
	p.miss("post:2", time.Hour, tags...)
	w.invalidate(tasks.KindTag, "t1999", "post:2")
	p.loaded("page")
	p.wantDone("page", false)
}

// companions: what has tags and an expiry gets a companion with the same expiry; nothing else does.
func companions(w *world) {
	p := w.open()
	for _, c := range []struct {
		key, value string
		ttl        time.Duration
		tags       []string
		noted      bool
	}{
		{"post:1", "page", time.Hour, []string{"author:ann", "a\x00\xff"}, true},
		{"post:1", "page, by another", time.Hour, []string{"author:bob"}, true},
		{"empty", "", time.Hour, []string{"t"}, true},
		{"large", strings.Repeat("v", 64<<10), time.Hour, []string{"t"}, true},
		{"larger", strings.Repeat("v", 64<<10+1), time.Hour, []string{"t"}, false},
		{"untagged", "page", time.Hour, nil, false},
		{"without a ttl", "page", 0, []string{"t"}, false},
	} {
		w.must(w.cache.Del(w.ctx, w.entry(c.key)).Err())
		p.fill(c.key, c.value, c.ttl, c.tags...)
		w.wantCompanion(c.key, c.value, c.tags, c.noted)
	}
	p.miss("post:2", time.Hour, "author:ann")
	w.invalidate(tasks.KindTag, "author:ann", "post:2")
	p.loaded("stale")
	p.wantDone("stale", false)
	w.wantCompanion("post:2", "stale", nil, false)
}

func (w *world) wantCompanion(logical, value string, tags []string, noted bool) {
	key := w.entry(tasks.CompanionKey(logical))
	got := w.cache.Get(w.ctx, key).Val()
	if !noted {
		if got != "" {
			w.failf("%s has a companion, %.80q; want none", logical, got)
		}
		return
	}
	expiry := w.expiry(w.entry(logical))
	if want := tasks.Companion(value, expiry, tags); got != want {
		w.failf("the companion of %s is %.80q; want %.80q", logical, got, want)
	}
	if at := w.expiry(key); at != expiry {
		w.failf("the companion of %s expires at %d; want with its entry, at %d", logical, at, expiry)
	}
}

func keyTemplate(w *world) {
	w.template("<app>/<release>/{<key>}")
	p := w.open()
	p.fill("post:1", "page", time.Hour, "author:ann")
	w.wantEntry("post:1", "page")
	w.wantListed("post:1", float64(w.expiry(w.entry("post:1"))), "author:ann")
	p.wantHit("post:1", "page")
}

func refused(w *world) {
	p := w.open()
	for _, bad := range []struct {
		what, key string
		ttl       time.Duration
		tags      []string
	}{
		{what: "an empty key"},
		{what: "a reserved key", key: "#tag:author:ann"},
		{what: "a key of 64 KiB and a byte", key: strings.Repeat("k", tasks.MaxTargetLen+1)},
		{what: "an empty tag", key: "post:1", tags: []string{"author:ann", ""}},
		{what: "a ttl below 0", key: "post:1", ttl: -time.Second},
		{what: "a ttl of half a second", key: "post:1", ttl: time.Second / 2},
	} {
		p.start(bad.key, bad.ttl, bad.tags...)
		r, err := p.hear()
		w.must(err)
		if r.Say != "done" || r.Error == "" {
			p.idle = false
			w.failf("%s: the port says %+v; want an error, and no load", bad.what, r)
		}
	}
	if n := w.cache.DBSize(w.ctx).Val(); n != 0 {
		w.failf("what was refused left %d keys in the cache", n)
	}
}

func overtaken(w *world, kind tasks.Kind, name string) {
	p := w.open()
	p.miss("post:1", time.Hour, "author:ann", "section:news")
	w.invalidate(kind, name, "post:1")
	p.loaded("stale")
	p.wantDone("stale", false)
	w.wantNoEntry("post:1")
	w.wantNoLease("post:1")
	p.fill("post:1", "fresh", time.Hour, "author:ann", "section:news")
	w.wantEntry("post:1", "fresh")
}

func unrelatedInvalidation(w *world) {
	p := w.open()
	p.miss("post:1", time.Hour, "author:ann")
	w.invalidate(tasks.KindKey, "post:10", "post:10")
	w.invalidate(tasks.KindTag, "post:1", "post:10")
	w.invalidate(tasks.KindPrefix, "post:1:", "post:10")
	p.loaded("page")
	p.wantDone("page", true)
}

func pendingInvalidation(w *world) {
	p := w.open()
	w.record(tasks.KindKey, "post:1") // no worker has applied it: the load may read from before the edit
	p.miss("post:1", time.Hour)
	p.loaded("stale")
	p.wantDone("stale", false)
	w.wantNoEntry("post:1")
}

func overtakenAfterThePut(w *world) {
	p := w.open()
	p.miss("post:1", time.Hour, "author:ann")
	h := p.queue.hold(naming(w.keys.Live()))
	p.loaded("stale")
	p.awaitHeld("check its put against the log", h)
	w.wantEntry("post:1", "stale")
	w.record(tasks.KindTag, "author:ann") // and its worker looked before the put
	w.must(w.queue.Del(w.ctx, w.keys.Pending()).Err())
	h.release()
	p.wantDone("stale", false)
	w.wantNoEntry("post:1")
}

// An edit may have been told of before the copy of the database that is read from has it.
func laggingOrigin(w *world) {
	w.must(w.queue.HSet(w.ctx, w.keys.LogMeta(), "epoch", "e1", "floor", 0).Err())
	w.invalidate(tasks.KindKey, "post:1", "post:1")
	for lag, stored := range map[int64]bool{10 * 60_000: false, 0: true} {
		p := w.open(originLag(lag))
		p.miss("post:1", time.Hour)
		p.loaded("page")
		p.wantDone("page", stored)
		w.must(w.cache.FlushAll(w.ctx).Err())
	}
}

func notLive(w *world) {
	p := w.open(release("r9"))
	p.miss("post:1", time.Hour)
	p.loaded("page")
	p.wantDone("page", false)
	if n := w.cache.Exists(w.ctx, w.tmpl.Key("r9", "post:1")).Val(); n != 0 {
		w.failf("an entry was stored in a release that is not live: no invalidation would reach it")
	}
}

func ceasesToBeLive(w *world) {
	p := w.open()
	p.miss("post:1", time.Hour)
	w.must(w.queue.SRem(w.ctx, w.keys.Live(), "r1").Err())
	p.loaded("page")
	p.wantDone("page", false)
	w.wantNoEntry("post:1")
}

// The queue Redis was lost and is another one now: it cannot vouch for the mark.
func anotherEpoch(w *world) {
	p := w.open()
	p.miss("post:1", time.Hour)
	w.must(w.queue.HSet(w.ctx, w.keys.LogMeta(), "epoch", "another").Err())
	p.loaded("page")
	p.wantDone("page", false)
	w.wantNoEntry("post:1")
}

func followsActive(w *world) {
	w.must(w.queue.SAdd(w.ctx, w.keys.Live(), "r2").Err())
	p := w.open(release(""))
	p.fill("post:1", "old", time.Hour)
	w.wantEntry("post:1", "old")
	w.must(w.cache.Set(w.ctx, w.tmpl.Key("r2", "post:1"), "new", 0).Err())
	w.must(w.queue.Set(w.ctx, w.keys.Active(), "r2", 0).Err())
	w.must(w.queue.Publish(w.ctx, w.keys.ActiveChannel(), "r2").Err())
	w.await("the port to serve the release that is active now", func() bool {
		p.start("post:1", time.Hour)
		r := p.want("done")
		return r.Release == "r2" && r.Hit && string(r.Value) == "new"
	})
	p.queue.cut() // hits need no queue Redis: what was last true goes on
	p.wantHit("post:1", "new")
}

func noneActive(w *world) {
	w.must(w.queue.Del(w.ctx, w.keys.Active()).Err())
	p := w.open(release(""))
	p.miss("post:1", time.Hour)
	p.loaded("page")
	p.wantDone("page", false)
	if n := w.cache.DBSize(w.ctx).Val(); n != 0 {
		w.failf("without a release, %d keys were written", n)
	}
}

func awayFromTheStart(w *world, away func(*port)) {
	for _, id := range []string{"r1", ""} {
		p := w.open(release(id))
		away(p)
		p.miss("post:1", time.Hour, "author:ann")
		p.loaded("page")
		p.wantDone("page", false)
	}
}

// hangs: a Redis that takes a command and never answers delays the page, and no more.
func hangs(w *world) {
	p := w.open()
	p.cache.hold(naming(w.lease("post:1")))
	p.miss("post:1", time.Hour)
	p.loaded("page")
	p.wantDone("page", false)
}

func awayDuringTheLoad(w *world, away func(*port)) {
	p := w.open()
	p.miss("post:1", time.Hour, "author:ann")
	away(p)
	p.loaded("page")
	p.wantDone("page", false)
	if at := w.expiry(w.entry("post:1")); at == -1 || at > w.now()+30_000 {
		w.failf("a value that could not be checked expires at %d (-1: never); want within the fill limit", at)
	}
}
