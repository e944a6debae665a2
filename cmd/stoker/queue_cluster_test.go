package main

import (
	"testing"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

// TestQueueOnACluster: a Redis Cluster may be the queue Redis as well. What is stoker's own lies in one
// slot, each of asynq's queues in another. The primary with stoker's slot dies in between, and what it had
// told is not lost.
func TestQueueOnACluster(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 3, 1)
	s := newShopOf(t, 500, "STOKER_REDIS_URL="+c.URL, "STOKER_LOG_REPLICAS=1")
	s.queue, s.cache = c.Client, c.Client
	s.start("worker")
	s.start("scheduler")
	s.start("web")
	s.must("release", "create", "r1")
	s.must("warm", "r1", "--wait")
	s.must("release", "activate", "r1", "--wait")
	s.must("release", "create", "r2")
	s.must("warm", "r2", "--wait")
	s.must("release", "activate", "r2", "--wait")
	victim := c.Owner(tasks.KeysOf(s.app).Pending())
	c.KillPrimary(victim)
	victim.Restart() // as its heir's replica: the log asks for one
	c.InStep()
	s.edit(0, 20)
	for _, id := range []string{"r1", "r2"} {
		if n := s.assertFresh(id); n != 480 {
			t.Errorf("%s has %d entries, want 480", id, n)
		}
	}
	s.must("pause", "upkeep")
	s.must("resume", "upkeep")
	s.must("expire", "--release", "r1", "--wait")
	s.edit(100, 20)
	s.must("rollback", "--to", "r1", "--wait")
	if n := s.assertFresh("r1"); n != 460 {
		t.Errorf("r1 has %d entries after its restore, want 460", n)
	}
	redistest.Eventually(t, "the scheduler's first ticks", func() bool {
		return s.queue.HLen(t.Context(), tasks.KeysOf(s.app).Ticks()).Val() > 0
	})
	s.must("status")
	s.must("invalidations")
	if out, _, code := s.run("health"); code == exitBadInput {
		t.Errorf("health: %s", out)
	}
	if out, msg, code := s.run("doctor"); code == exitBadInput {
		t.Errorf("doctor: %s %s", out, msg)
	}
}
