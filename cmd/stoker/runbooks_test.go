package main

import (
	"strings"
	"syscall"
	"testing"

	"github.com/alphanode/stoker/worker/redistest"
)

// newMoved is a shop whose cache Redis is another one than its queue Redis, and can be replaced.
func newMoved(t *testing.T) *shop {
	t.Helper()
	s := newShop(t)
	s.useCache(redistest.Start(t))
	return s
}

// useCache makes a server the cache Redis of all processes that are started from now on.
func (s *shop) useCache(server *redistest.Server) {
	var env []string
	for _, pair := range s.env {
		if !strings.HasPrefix(pair, "STOKER_CACHE_URL=") {
			env = append(env, pair)
		}
	}
	s.env = append(env, "STOKER_CACHE_URL="+server.URL)
	s.cache = server.Client
}

// TestRestoreIntoANewServer follows deploy/runbooks.md, "Restore into a new server": the archived release
// comes back fresh, a new one is warmed, and the standby that lost its entries is out of the way.
func TestRestoreIntoANewServer(t *testing.T) {
	t.Parallel()
	s := newMoved(t)
	worker := s.start("worker")
	for _, id := range []string{"r40", "r41", "r42"} {
		s.must("release", "create", id)
		s.must("warm", id, "--wait")
		s.must("release", "activate", id, "--wait")
		if id == "r41" {
			s.must("expire", "--release", "r40", "--wait")
		}
	}
	s.edit(0, 100)

	worker.end(syscall.SIGTERM)
	s.useCache(redistest.Start(t))

	worker = s.start("worker")
	if doctor, msg, _ := s.run("doctor", "--json"); strings.Contains(doctor, `"fail"`) {
		t.Errorf("doctor on the new server: %s%s", doctor, msg)
	}
	s.must("rollback", "--to", "r40", "--wait", "--reason", "new server")
	if n := s.assertFresh("r40"); n != posts-100 {
		t.Errorf("r40 has %d entries on the new server after 100 edits, want %d", n, posts-100)
	}
	s.must("release", "create", "r43")
	s.must("warm", "r43", "--wait")
	s.must("release", "activate", "r43", "--wait")
	if n := s.assertFresh("r43"); n != posts {
		t.Errorf("r43 has %d entries, want %d", n, posts)
	}
	for _, id := range []string{"r41", "r42"} {
		s.must("expire", "--release", id, "--no-snapshot", "--wait")
		if got := s.state(id); got != "expired" {
			t.Errorf("%s is %s", id, got)
		}
	}
	s.must("snapshot", "r43", "--wait")
	s.must("drill", "--wait")
	if out := s.must("status"); !strings.Contains(out, "serves r43") || !strings.Contains(out, "Safe to roll back: yes") {
		t.Errorf("in the end:\n%s", out)
	}
	worker.end(syscall.SIGTERM)
}
