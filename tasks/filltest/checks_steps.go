package filltest

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alphanode/stoker/tasks"
)

// jitter is how far below the fill limit a probation may end, in ms.
const jitter = 500

// crashAnywhere looks before each command at what the port would leave if it died there.
func crashAnywhere(w *world) {
	p := w.open()
	p.fill("warm", "up", time.Hour, "author:ann") // the servers know the scripts from here on
	p.miss("post:1", time.Hour, "author:ann", "section:news")

	var mu sync.Mutex
	var wrong string // the first that was found; the proxies' goroutines must not panic
	checking, checked := false, false
	look := func(command []string) {
		mu.Lock()
		defer mu.Unlock()
		checked = checked || checking
		checking = names(command, w.keys.Live())
		if wrong == "" {
			wrong = w.leftBehind("post:1", checked, "author:ann", "section:news")
		}
	}
	p.queue.watch(look)
	p.cache.watch(look)
	p.loaded("page")
	p.wantDone("page", true)
	p.queue.watch(nil)
	p.cache.watch(nil)
	mu.Lock()
	defer mu.Unlock()
	if wrong != "" {
		w.failf("dying between two commands, the port would leave %s", wrong)
	}
	if !checked {
		w.failf("the port did not run the check script with the release's live set")
	}
}

// leftBehind says what is wrong with an entry if its filler dies now; "" when nothing is.
func (w *world) leftBehind(logical string, checked bool, tags ...string) string {
	at, err := w.cache.PExpireTime(w.ctx, w.entry(logical)).Result()
	if err != nil || at == -2 {
		return ""
	}
	for _, tag := range tags {
		if w.cache.ZScore(w.ctx, w.index(tag), logical).Err() != nil {
			return "an entry that the index of its tag " + tag + " does not list: no invalidation of the tag would remove it"
		}
	}
	lease := w.cache.PExpireTime(w.ctx, w.lease(logical)).Val()
	if !checked && (at == -1 || at > lease+5*time.Millisecond) {
		return "an entry that was never checked and outlives the fill limit"
	}
	return ""
}

// probation looks at puts that are not checked yet: each must vanish at the fill limit after its
// lease, less a jitter of its own, by which settle tells one put from another.
func probation(w *world) {
	const puts = 6
	early := map[int64]bool{}
	for range puts {
		p := w.open()
		p.miss("post:1", time.Hour)
		h := p.queue.hold(naming(w.keys.Live()))
		p.loaded("page")
		p.awaitHeld("check its put against the log", h)
		before := w.expiry(w.lease("post:1")) - w.expiry(w.entry("post:1"))
		// The lease may end later than its clock and the limit say: its script takes time.
		if w.expiry(w.entry("post:1")) < 0 || before < -5 || before > jitter+500 {
			w.failf("the put expires at %d and its lease at %d; want 0 to %d ms before the lease", w.expiry(w.entry("post:1")), w.expiry(w.lease("post:1")), jitter)
		}
		early[before/2] = true
		p.kill() // the port dies here: what it put vanishes, as was seen
		w.must(w.cache.FlushAll(w.ctx).Err())
	}
	if len(early) == 1 {
		w.failf("each of %d puts ends its probation equally long before its lease: another's put could pass for its own", puts)
	}
}

// lateSettle lets a second port put its value between the first one's check and settle.
func lateSettle(w *world) {
	a, b := w.open(), w.open()
	a.miss("post:1", time.Hour)
	atSettle := a.cache.hold(func(command []string) bool {
		return names(command, w.entry("post:1")) && !writing("old")(command) && isScript(command)
	})
	a.loaded("old")
	a.awaitHeld("settle its put by the script", atSettle)
	w.invalidate(tasks.KindKey, "post:1", "post:1")
	w.must(w.cache.Del(w.ctx, w.lease("post:1")).Err())
	b.miss("post:1", time.Hour)
	atCheck := b.queue.hold(naming(w.keys.Live()))
	b.loaded("new")
	b.awaitHeld("check its put against the log", atCheck)
	before := w.expiry(w.entry("post:1"))
	atSettle.release()
	a.wantDone("old", false)
	w.wantEntry("post:1", "new")
	if after := w.expiry(w.entry("post:1")); after != before {
		w.failf("a settle that came late moved the expiry of another's value from %d to %d", before, after)
	}
	if w.cache.Exists(w.ctx, w.lease("post:1")).Val() == 0 {
		w.failf("a loader whose lease was over gave another's lease back")
	}
	atCheck.release()
	b.wantDone("new", true)
}

func isScript(command []string) bool {
	return strings.HasPrefix(strings.ToLower(command[0]), "eval")
}

// tries is how often the suite gives a waiting port the chance to be scheduled in time.
const tries = 5

// oneLoader: who finds the lease taken waits, and takes the value that the other stored.
func oneLoader(w *world) {
	for range tries {
		a, b := w.open(), w.open()
		a.miss("post:1", time.Hour)
		h := b.waits("post:1")
		b.start("post:1", time.Hour)
		b.awaitHeld("wait for the one who loads", h)
		a.loaded("page")
		a.wantDone("page", true)
		r, err := b.hear()
		w.must(err)
		if r.Say == "done" && r.Hit && string(r.Value) == "page" {
			return
		}
		if r.Say != "load" {
			w.failf("the port waited and then says %+v; want a hit", r)
		}
		b.loaded("page") // it did not wait, or was not scheduled in time
		b.wantDone("page", false)
		w.must(w.cache.FlushAll(w.ctx).Err())
	}
	w.failf("a port waited too briefly for the value that another stored, %d times of %d", tries, tries)
}

// waits tells when the port, having asked for the lease, looks again; it holds nothing back.
func (p *port) waits(logical string) held {
	var asked atomic.Bool
	h := p.cache.hold(func(command []string) bool {
		lease := names(command, p.w.lease(logical))
		if lease && isScript(command) {
			asked.Store(true)
			return false
		}
		return asked.Load() && (lease || names(command, p.w.entry(logical)))
	})
	h.release()
	return h
}

// slowLoader: who has waited long enough loads by itself, and stores nothing.
func slowLoader(w *world) {
	a, b := w.open(), w.open()
	a.miss("post:1", time.Hour)
	b.miss("post:1", time.Hour)
	b.loaded("other")
	b.wantDone("other", false)
	w.wantNoEntry("post:1")
	if w.cache.Exists(w.ctx, w.lease("post:1")).Val() == 0 {
		w.failf("a port without the lease gave it back")
	}
	a.loaded("page")
	a.wantDone("page", true)
}

func failedLoad(w *world) {
	p := w.open()
	p.miss("post:1", time.Hour)
	w.must(p.tell(Request{Do: "failed", Reason: "the database is away"}))
	if r := p.want("done"); r.Error == "" || r.Stored {
		w.failf("after a failed load: %+v; want its error", r)
	}
	w.wantNoEntry("post:1")
	w.wantNoLease("post:1")
	w.open().fill("post:1", "page", time.Hour)
}

// leaseOfAnother: a loader whose lease ran out must not give back the next one's.
func leaseOfAnother(w *world) {
	p := w.open()
	p.miss("post:1", time.Hour)
	if at := w.expiry(w.lease("post:1")); at < 0 || at > w.now()+30_000 {
		w.failf("the lease expires at %d (-1: never); want at the fill limit of 30,000 ms", at)
	}
	w.must(w.cache.Set(w.ctx, w.lease("post:1"), "another's token", 0).Err())
	p.loaded("page")
	p.want("done")
	if got := w.cache.Get(w.ctx, w.lease("post:1")).Val(); got != "another's token" {
		w.failf("a loader gave back the lease of another: it holds %q", got)
	}
}

// lateLoad: the value came after the fill limit: it is served, not stored.
func lateLoad(w *world) {
	p := w.open(limit(1000))
	p.miss("post:1", time.Hour)
	w.leaseEnds("post:1")
	p.loaded("page")
	p.wantDone("page", false)
	w.wantNoEntry("post:1")
}

// latePut: the value left in time, and arrives at the cache after the fill limit.
func latePut(w *world) {
	for range tries {
		p := w.open(limit(1000))
		p.miss("post:1", time.Hour, "author:ann")
		h := p.cache.hold(writing("page"))
		p.loaded("page")
		select {
		case <-h.reached:
			w.leaseEnds("post:1")
			h.release()
			p.wantDone("page", false)
			w.wantNoEntry("post:1")
			return
		case r, ok := <-p.replies: // it was not scheduled in time to put
			if !ok {
				w.must(p.ended())
			}
			p.idle = true
			if r.Say != "done" || r.Stored {
				w.failf("the port says %+v without a put", r)
			}
			w.leaseEnds("post:1")
		case <-time.After(w.patience):
			w.failf("the port did not put its value within %v", w.patience)
		}
	}
	w.failf("the port put nothing within the %d ms it had, %d times of %d", 1000-jitter, tries, tries)
}

// leaseEnds waits until a lease has ended by itself.
func (w *world) leaseEnds(logical string) {
	w.await("the lease to end at the fill limit", func() bool { return w.cache.Exists(w.ctx, w.lease(logical)).Val() == 0 })
}
