package filltest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

// world is two real Redises with one live, active release, and the ports under test.
type world struct {
	ctx          context.Context
	command, env []string
	scripts      string
	queueAddr    string
	cacheAddr    string
	queue, cache *redis.Client
	keys         tasks.Keys
	tmpl         tasks.Template
	client       *tasks.Client // records invalidations
	patience     time.Duration // how long the suite waits for a step of the port

	spare   []*process // between checks
	ports   []*port    // of this check
	proxies []*proxy
}

// failure is what ends a check: panicked with by the world, recovered by run.
type failure struct{ error }

func newWorld(t *testing.T, command, env []string) *world {
	t.Helper()
	queue, cache := redistest.Start(t), redistest.Start(t)
	w := &world{
		ctx: t.Context(), command: command, env: env, scripts: t.TempDir(), keys: tasks.KeysOf("site"),
		patience: patience, queueAddr: queue.Addr, cacheAddr: cache.Addr, queue: queue.Client, cache: cache.Client,
	}
	for name, text := range tasks.FillScripts() {
		if err := os.WriteFile(filepath.Join(w.scripts, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, p := range w.spare {
			p.kill()
		}
	})
	return w
}

// run runs one check on empty Redises and returns how the port failed it.
func (w *world) run(c check) (err error) {
	defer func() {
		if r := recover(); r != nil {
			f, ours := r.(failure)
			if !ours {
				panic(r)
			}
			err = f.error
		}
		w.clear()
	}()
	w.template(tasks.DefaultTemplate)
	w.must(w.queue.FlushAll(w.ctx).Err())
	w.must(w.cache.FlushAll(w.ctx).Err())
	w.must(w.queue.SAdd(w.ctx, w.keys.Live(), "r1").Err())
	w.must(w.queue.Set(w.ctx, w.keys.Active(), "r1", 0).Err())
	// A client of its own: one that knew the last check's log would take this one's for a loss.
	w.client, err = tasks.NewClientFrom(w.queue, w.cache, tasks.Config{App: "site", FillLimit: time.Minute})
	w.must(err)
	defer w.client.Close()
	c.run(w)
	return nil
}

// clear ends the check's connections and keeps the processes that owe no reply.
func (w *world) clear() {
	for _, p := range w.proxies {
		p.cut()
	}
	for _, p := range w.ports {
		if p.idle {
			w.spare = append(w.spare, p.process)
		} else {
			p.kill()
		}
	}
	w.ports, w.proxies = nil, nil
}

func (w *world) failf(format string, args ...any) { panic(failure{fmt.Errorf(format, args...)}) }

func (w *world) must(err error) {
	if err != nil {
		panic(failure{err})
	}
}

func (w *world) template(text string) {
	var err error
	w.tmpl, err = tasks.ParseTemplate(text, "site")
	w.must(err)
}

// entry is the key of the cache Redis that holds a logical key of r1.
func (w *world) entry(logical string) string { return w.tmpl.Key("r1", logical) }

func (w *world) lease(logical string) string { return w.entry(tasks.LeaseKey(logical)) }

func (w *world) index(tag string) string { return w.entry(tasks.TagIndex(tag)) }

// invalidate records a target and does what a worker does at once, as far as one entry is concerned.
func (w *world) invalidate(kind tasks.Kind, name, logical string) {
	w.record(kind, name)
	w.must(w.cache.Del(w.ctx, w.entry(logical)).Err())
	w.must(w.queue.Del(w.ctx, w.keys.Pending()).Err())
}

// record records a target; no worker runs.
func (w *world) record(kind tasks.Kind, name string) {
	_, err := w.client.Invalidate(w.ctx, tasks.Invalidation{
		Targets: []tasks.Target{{Kind: kind, Name: tasks.Bytes(name)}}, By: tasks.By{Actor: "suite"},
	})
	w.must(err)
}

// now is the cache Redis's clock in Unix milliseconds.
func (w *world) now() int64 {
	t, err := w.cache.Time(w.ctx).Result()
	w.must(err)
	return t.UnixMilli()
}

// expiry is a key's, as PEXPIRETIME tells it: -1 without one, -2 when there is no such key.
func (w *world) expiry(key string) int64 {
	at, err := w.cache.PExpireTime(w.ctx, key).Result()
	w.must(err)
	if at < 0 {
		return int64(at)
	}
	return at.Milliseconds()
}

func (w *world) wantEntry(logical, value string) {
	got, err := w.cache.Get(w.ctx, w.entry(logical)).Result()
	if err != nil || got != value {
		w.failf("%s holds %.80q, %v; want %.80q", tasks.Bytes(w.entry(logical)), got, err, value)
	}
}

func (w *world) wantNoEntry(logical string) {
	if n := w.cache.Exists(w.ctx, w.entry(logical)).Val(); n != 0 {
		w.failf("%s is in the cache; it must not be", tasks.Bytes(w.entry(logical)))
	}
}

func (w *world) wantNoLease(logical string) {
	if n := w.cache.Exists(w.ctx, w.lease(logical)).Val(); n != 0 {
		w.failf("the lease %s is still held after the fetch", tasks.Bytes(w.lease(logical)))
	}
}

// await waits for what no signal tells of.
func (w *world) await(what string, done func() bool) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(w.patience)
	defer limit.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-limit.C:
			w.failf("waited %v for %s", w.patience, what)
		}
	}
}

// port is one process of the port under test, with Redises that are its own to lose.
type port struct {
	*process
	w            *world
	queue, cache *proxy
}

// open starts a port, or takes a spare one, with the suite's settings as change leaves them.
func (w *world) open(change ...func(*Settings)) *port {
	p := &port{w: w}
	for _, side := range []struct {
		to   **proxy
		addr string
	}{{&p.queue, w.queueAddr}, {&p.cache, w.cacheAddr}} {
		proxy, err := newProxy(side.addr)
		w.must(err)
		*side.to, w.proxies = proxy, append(w.proxies, proxy)
	}
	if n := len(w.spare); n > 0 {
		p.process, w.spare = w.spare[n-1], w.spare[:n-1]
	} else {
		var err error
		p.process, err = startProcess(w.command, w.env)
		w.must(err)
	}
	w.ports = append(w.ports, p)
	s := Settings{
		App: "site", QueueURL: p.queue.url, CacheURL: p.cache.url, KeyTemplate: w.tmpl.String(),
		FillLimit: 30_000, Release: "r1", Scripts: w.scripts,
	}
	for _, f := range change {
		f(&s)
	}
	w.must(p.tell(Request{Do: "open", Settings: &s}))
	p.want("ready")
	return p
}

func limit(ms int64) func(*Settings)     { return func(s *Settings) { s.FillLimit = ms } }
func release(id string) func(*Settings)  { return func(s *Settings) { s.Release = id } }
func originLag(ms int64) func(*Settings) { return func(s *Settings) { s.OriginLag = ms } }

// names reports whether a command has that argument.
func names(command []string, arg string) bool { return slices.Contains(command, arg) }

func naming(key string) func([]string) bool {
	return func(command []string) bool { return names(command, key) }
}

// writing matches the put: whatever command carries the value.
func writing(value string) func([]string) bool {
	return func(command []string) bool { return !strings.EqualFold(command[0], "get") && names(command, value) }
}

// start has the port fetch without waiting for it.
func (p *port) start(key string, ttl time.Duration, tags ...string) {
	r := Request{Do: "fetch", Key: []byte(key), TTL: ttl.Milliseconds()}
	for _, t := range tags {
		r.Tags = append(r.Tags, []byte(t))
	}
	p.w.must(p.tell(r))
}

// awaitHeld waits until the port is held back at a step.
func (p *port) awaitHeld(step string, h held) {
	select {
	case <-h.reached:
	case r, ok := <-p.replies:
		if !ok {
			p.w.must(p.ended())
		}
		p.idle = r.Say == "done"
		p.w.failf("the port says %s and did not %s", r.Say, step)
	case <-time.After(p.w.patience):
		p.w.failf("the port did not %s within %v", step, p.w.patience)
	}
}

func (p *port) want(say string) Reply {
	r, err := p.hear()
	p.w.must(err)
	if r.Say != say {
		p.w.failf("the port says %s; want %s: %+v", r.Say, say, r)
	}
	return r
}

// miss has the port fetch, and returns when it asks for the value.
func (p *port) miss(key string, ttl time.Duration, tags ...string) {
	p.start(key, ttl, tags...)
	p.want("load")
}

// loaded answers the port's load.
func (p *port) loaded(value string) { p.w.must(p.tell(Request{Do: "loaded", Value: []byte(value)})) }

// wantDone expects the fetch to end with a value that is now stored, or is not.
func (p *port) wantDone(value string, stored bool) Reply {
	r := p.want("done")
	if r.Error != "" || string(r.Value) != value || r.Stored != stored || r.Hit {
		p.w.failf("fetched %.80q, hit %v, stored %v, error %q; want %.80q, stored %v", r.Value, r.Hit, r.Stored, r.Error, value, stored)
	}
	return r
}

// fill fetches a missing entry from beginning to end.
func (p *port) fill(key, value string, ttl time.Duration, tags ...string) {
	p.miss(key, ttl, tags...)
	p.loaded(value)
	p.wantDone(value, true)
}

// wantHit fetches what is in the cache.
func (p *port) wantHit(key, value string) {
	p.start(key, time.Hour)
	if r := p.want("done"); !r.Hit || r.Stored || string(r.Value) != value || r.Error != "" {
		p.w.failf("fetched %.80q, hit %v, stored %v, error %q; want a hit of %.80q", r.Value, r.Hit, r.Stored, r.Error, value)
	}
}
