package main

import (
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/alphanode/stoker/worker/redistest"
)

// useCache makes a server the cache Redis of all processes that are started from now on.
func (s *shop) useCache(server *redistest.Server) {
	s.env = append(slices.Clip(s.env), "STOKER_CACHE_URL="+server.URL)
	s.cache = server.Client
}

// TestRunbookOfANewServer: the archived release comes back fresh, a new one is warmed, and the standby that
// lost its entries is out of the way.
func TestRunbookOfANewServer(t *testing.T) {
	t.Parallel()
	s := newShopOf(t, 1000)
	s.useCache(redistest.Start(t))
	worker := s.start("worker")
	s.release("r40")
	s.release("r41")
	s.must("expire", "--release", "r40", "--wait")
	s.release("r42")
	s.edit(0, 100)

	g := s.follow(runbooks, "Restore into a new server", nil)
	g.mentions("stoker rollback")
	worker.end(syscall.SIGTERM)
	s.useCache(redistest.Start(t))
	s.start("worker")
	g.run("stoker doctor")
	g.run("stoker release create r43 && stoker warm r43 --wait && stoker release activate r43 --wait")
	if n := s.assertFresh("r43"); n != 1000 {
		t.Errorf("r43 has %d entries, want 1000", n)
	}
	g.run("stoker rollback --to r40 --wait")
	if n := s.assertFresh("r40"); n != 900 {
		t.Errorf("r40 has %d entries on the new server after 100 edits, want 900", n)
	}
	g.run("stoker expire --release r41 --no-snapshot --wait")
	if got := s.state("r41"); got != "expired" {
		t.Errorf("r41 is %s", got)
	}
	s.must("expire", "--release", "r42", "--no-snapshot", "--wait")
	g.run("stoker health")
	g.run("stoker drill --wait")
	g.over()
	g.serves("r40")
}

// TestRunbookOfALostQueue kills the queue Redis twice: once it comes back on its append-only file, and
// once empty.
func TestRunbookOfALostQueue(t *testing.T) {
	t.Parallel()
	s := newShopOf(t, 200)
	s.useCache(redistest.Start(t))
	s.redis = redistest.Start(t, "--appendonly", "yes")
	s.queue, s.env = s.redis.Client, append(s.env, "STOKER_REDIS_URL="+s.redis.URL)
	s.start("worker")
	s.release("r42")
	s.edit(0, 50)
	s.redis.Kill()
	if _, msg, code := s.run("invalidate", "--tag", "post:post-00001"); code != exitFailed || !strings.Contains(msg, "does not answer") {
		t.Errorf("an edit without a queue Redis: exit code %d, %s", code, msg)
	}
	s.redis.Restart()
	if out := s.must("status"); !strings.Contains(out, "serves r42") {
		t.Errorf("back on its file:\n%s", out)
	}
	s.edit(50, 50) // applied by the worker that has run all along

	// The worker runs on, and notices that the log is another one.
	s.redis.Replace()
	if _, err := s.db.Exec("UPDATE posts SET version = version + 1 WHERE slug IN ('post-00120', 'post-00121')"); err != nil {
		t.Fatal(err)
	}
	g := s.follow(runbooks, "The queue Redis is lost", map[string]string{"TAG": "post:post-00120", "KEY": "post:post-00121"})
	g.run("stoker release create r42 --adopt --active")
	g.run("stoker invalidate --tag TAG --key KEY --wait")
	if n := s.assertFresh("r42"); n != 98 {
		t.Errorf("%d entries, want 98: those that were not edited", n)
	}
	g.run("stoker invalidate --prefix post: --wait")
	if n := s.keys("r42"); n != 0 && s.assertFresh("r42") != 0 {
		t.Errorf("%d keys after all families were invalidated", n)
	}
	g.run("stoker snapshot r42 --wait")
	g.says(g.run("stoker health", exitDone, exitFailed), `FAIL +invalidations\.log`)
	g.over()
}

// TestRunbookOfALostCache replaces the cache Redis by an empty one.
func TestRunbookOfALostCache(t *testing.T) {
	t.Parallel()
	s := newShopOf(t, 200)
	cache := redistest.Start(t)
	s.useCache(cache)
	s.start("worker")
	s.release("r1")
	s.release("r2")
	cache.Replace()
	redistest.Eventually(t, "the worker's look at the new server", func() bool { _, _, code := s.run("health"); return code == exitDone })

	g := s.follow(runbooks, "The cache Redis is lost", map[string]string{"NEW": "r3", "ID": "r1"})
	g.run("stoker release create NEW && stoker warm NEW --wait && stoker release activate NEW --wait")
	if n := s.assertFresh("r3"); n != 200 {
		t.Errorf("r3 has %d entries, want 200", n)
	}
	g.run("stoker expire --release ID --no-snapshot --wait")
	g.says(g.run("stoker health"), `(OK|WARN) +invalidations\.cache`)
	g.over()
	if out := s.must("status"); !regexp.MustCompile(`serves r3`).MatchString(out) {
		t.Errorf("in the end:\n%s", out)
	}
}
