package invalidation

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/worker/redistest"
)

// group is a cache Redis with a replica, whose link can be held up, and an address that leads to
// whichever of the two is the primary.
type group struct {
	*site
	primary, replica *redistest.Server
	link, address    *redistest.Proxy
}

// newGroup returns a group with a queue Redis of its own and two live releases.
func newGroup(t *testing.T) *group {
	t.Helper()
	g := &group{primary: redistest.Start(t)}
	g.link, g.address = redistest.StartProxy(t, g.primary), redistest.StartProxy(t, g.primary)
	cache := redis.NewClient(&redis.Options{Addr: g.address.Addr})
	t.Cleanup(func() { _ = cache.Close() })
	g.site = siteWith(t, redistest.Start(t).Client, cache, "r1", "r2")
	g.replica = g.follow(g.link)
	return g
}

// siteWith is siteOn with a cache Redis of its own, where only what the log demands counts as lost.
func siteWith(t *testing.T, queue, cache *redis.Client, live ...string) *site {
	s := siteOn(t, queue, live...)
	s.log = Open(queue, keys, Config{})
	s.apply = NewApplier(s.log, cache, s.tmpl, s.apply.live, unlinker{cache, s.tmpl})
	s.rdb = cache
	return s
}

func (g *group) follow(p *redistest.Proxy) *redistest.Server {
	host, port, err := net.SplitHostPort(p.Addr)
	g.check(err)
	s := redistest.Start(g.T, "--replicaof", host+" "+port)
	redistest.Eventually(g.T, "the replica to be in step", func() bool {
		return strings.Contains(s.Client.Info(ctx, "replication").Val(), "master_link_status:up")
	})
	return s
}

// inStep waits until the replica has all that the primary has.
func (g *group) inStep() {
	g.Helper()
	const replicated = "kept"
	g.check(g.primary.Client.Incr(ctx, replicated).Err())
	redistest.Eventually(g.T, "the replica to follow", func() bool {
		return g.replica.Client.Get(ctx, replicated).Val() == g.primary.Client.Get(ctx, replicated).Val()
	})
}

// failOver promotes the replica as it is.
func (g *group) failOver() {
	g.Helper()
	g.primary.Kill()
	g.check(g.replica.Client.ReplicaOf(ctx, "NO", "ONE").Err())
	g.address.Point(g.replica)
	redistest.Eventually(g.T, "the replica to answer", func() bool { return g.rdb.Ping(ctx).Err() == nil })
}

// look looks once and returns how many entries had come back.
func (s *site) look() int {
	s.Helper()
	n, err := s.apply.Look(ctx)
	s.check(err)
	return n
}

func (s *site) lastFailover() *Failover {
	s.Helper()
	f, err := s.log.Failover(ctx)
	s.check(err)
	return f
}

// What a replica had not yet when it was promoted is removed again, by whatever it was named, and
// nothing else is.
func TestAFailoverUndoesNothing(t *testing.T) {
	g := newGroup(t)
	for _, id := range []string{"r1", "r2"} {
		for _, k := range []string{"a", "b", "page:1", "page:2", "stays", "old"} {
			g.put(id, k, "tag:"+k)
		}
	}
	g.look() // the primary is known
	g.invalidate(key("old"))
	g.look() // and has a watermark
	g.inStep()
	g.link.Stall(redistest.Replies)
	g.invalidate(key("a"))
	g.invalidate(tag("tag:b"), prefix("page:"))
	g.look()
	g.wantKeys("after the invalidations", "stays")

	g.failOver()
	g.wantKeys("as the replica has them", "a", "b", "page:1", "page:2", "stays") // the hole
	if n := g.look(); n != 8 {
		t.Errorf("removed %d entries, want 8", n)
	}
	g.wantKeys("after a look", "stays")
	f := g.lastFailover()
	if f == nil || f.Removed != 8 || f.Targets != 6 || f.Short || time.Since(f.From) > time.Minute {
		t.Errorf("noted %+v, want 8 removed for 3 targets in each of two releases", f)
	}
	if n := g.look(); n != 0 {
		t.Errorf("a second look removed %d", n)
	}
	if again := g.lastFailover(); !again.At.Equal(f.At) {
		t.Errorf("a look at a known server noted %+v", again)
	}
}

// wantKeys compares the entries of both releases with what is wanted.
func (s *site) wantKeys(when string, want ...string) {
	s.Helper()
	for _, id := range []string{"r1", "r2"} {
		var got []string
		for _, k := range []string{"a", "b", "page:1", "page:2", "stays", "old"} {
			if s.rdb.Exists(ctx, s.tmpl.Key(id, k)).Val() == 1 {
				got = append(got, k)
			}
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			s.Errorf("%s: %s holds %q, want %q", when, id, got, want)
		}
	}
}

// Whoever must know that nothing is pending, and whoever ends a writer's work, looks first.
func TestSweepAndReplayLookFirst(t *testing.T) {
	for name, do := range map[string]func(*group) error{
		"sweep":  func(g *group) error { _, err := g.apply.Sweep(ctx, 0); return err },
		"replay": func(g *group) error { _, err := g.apply.Replay(ctx, "r1", must(g.log.Mark(ctx))); return err },
	} {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t)
			g.put("r1", "a")
			g.look()
			g.look()
			g.inStep()
			g.link.Stall(redistest.Replies)
			g.invalidate(key("a"))
			g.failOver()
			g.check(do(g))
			g.wantKeys("after it")
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A server that was killed and comes back from an old file is caught as well, and so is a process
// that has been the primary before: it was a replica meanwhile.
func TestOldFilesAndOldPrimaries(t *testing.T) {
	t.Run("restart from a dump", func(t *testing.T) {
		cache := redistest.Start(t)
		s := siteWith(t, redistest.Start(t).Client, cache.Client, "r1", "r2")
		s.put("r1", "a")
		s.put("r1", "stays")
		s.put("r2", "stays")
		s.look()
		s.look()
		s.check(cache.Client.Save(ctx).Err())
		s.invalidate(key("a"))
		cache.Kill()
		cache.Restart()
		if n := s.look(); n != 1 {
			t.Errorf("removed %d, want the one that came back", n)
		}
		s.wantKeys("after a look", "stays")
	})
	t.Run("promoted twice", func(t *testing.T) {
		g := newGroup(t)
		g.look()
		first := identityOf(t, g.site)
		g.check(g.primary.Client.ReplicaOf(ctx, "127.0.0.1", "1").Err())
		g.check(g.primary.Client.ReplicaOf(ctx, "NO", "ONE").Err())
		if again := identityOf(t, g.site); again == first {
			t.Errorf("the same process is %q after a second promotion as well", again)
		}
	})
}

func identityOf(t *testing.T, s *site) string {
	t.Helper()
	servers, err := s.apply.note(ctx, reach{})
	if err != nil || len(servers) != 1 || servers[0].identity == "" {
		t.Fatalf("%+v, %v; want one server that tells who it is", servers, err)
	}
	return servers[0].identity
}

// A watermark stays below what a writer has not finished, and below what is pending.
func TestWatermark(t *testing.T) {
	s := newSite(t, "r1", "r2")
	m, err := s.log.OpenMark(ctx, "r1", "writer")
	s.check(err)
	pending := s.record(key("a"))
	r, err := s.log.reached(ctx, []string{"r1", "r2"})
	s.check(err)
	back := s.log.cacheLag().Microseconds()
	floor := must(s.log.Status(ctx)).Floor
	if got, want := r.Numbers["r1"], max(m.Number-back, floor); got != want {
		t.Errorf("with an open writer: %d, want %d", got, want)
	}
	if got, want := r.Numbers["r2"], max(pending-1-back, floor); got != want {
		t.Errorf("with a pending record: %d, want %d", got, want)
	}
}

// Which server needs how much: the log's beginning where nothing is known, and short where the
// log does not reach as far.
func TestHowFarBack(t *testing.T) {
	log := reach{watermark: watermark{Epoch: "e"}, floor: 100}
	for _, c := range []struct {
		name  string
		has   watermark
		from  int64
		short bool
	}{
		{"as usual", watermark{"e", map[string]int64{"r1": 150}}, 150, false},
		{"empty", watermark{}, 0, false},
		{"a release that is new", watermark{"e", map[string]int64{"r0": 150}}, 0, false},
		{"older than the log", watermark{"e", map[string]int64{"r1": 99}}, 99, true},
		{"of a log that was lost", watermark{"d", map[string]int64{"r1": 150}}, 0, true},
	} {
		if from, short := c.has.of("r1", log); from != c.from || short != c.short {
			t.Errorf("%s: from %d, short %v; want %d, %v", c.name, from, short, c.from, c.short)
		}
	}
}

// A Cluster has a watermark on each of its primaries, and a failover of one is made good.
func TestAFailoverOfAShard(t *testing.T) {
	c := redistest.StartCluster(t, 3, 1)
	s := siteOn(t, redistest.Start(t).Client, "r1", "r2")
	s.log = Open(s.rdb, keys, Config{})
	s.apply = NewApplier(s.log, c.Client, s.tmpl, s.apply.live, nil)
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	put := func() {
		for _, id := range []string{"r1", "r2"} {
			for _, k := range names {
				s.check(c.Client.Set(ctx, s.tmpl.Key(id, k), "v", 0).Err())
			}
		}
	}
	put()
	s.look()
	s.look()
	places := must(s.apply.places(ctx))
	if len(places) != 3 {
		t.Fatalf("%d watermarks, want one a primary", len(places))
	}
	marks := map[string]string{}
	for _, place := range places {
		if marks[place] = c.Client.Get(ctx, place).Val(); marks[place] == "" {
			t.Errorf("no watermark at %s", place)
		}
	}
	for _, k := range names {
		s.invalidate(key(k))
	}
	put() // what a replica would have that lacks the removals
	s.check(c.Client.Set(ctx, places[0], marks[places[0]], 0).Err())
	before := must(s.log.queue.HGet(ctx, keys.CacheServers(), "servers").Result())
	c.Promote(c.Owner(places[0]))
	var n int
	redistest.Eventually(t, "the client to find the promoted one", func() bool {
		got, err := s.apply.Look(ctx)
		n += got
		return err == nil && must(s.log.queue.HGet(ctx, keys.CacheServers(), "servers").Result()) != before
	})
	if n != 2*len(names) {
		t.Errorf("removed %d, want %d", n, 2*len(names))
	}
}

// Without a process that it tells of, a server is left alone.
func TestEmbeddedServersAreLeftAlone(t *testing.T) {
	s := siteOn(t, redistest.Mini(t), "r1")
	s.put("r1", "a")
	for range 2 {
		if n := s.look(); n != 0 {
			t.Errorf("removed %d", n)
		}
	}
	if f := s.lastFailover(); f != nil {
		t.Errorf("noted %+v", f)
	}
}
