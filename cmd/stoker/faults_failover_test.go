package main

import (
	"context"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

// The primary dies under Sentinel while 64 editors call. With STOKER_LOG_REPLICAS=1 the promoted
// replica has every call that returned nil: all are applied, and archives are still fresh.
func TestFailoverUnderLoad(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	group := redistest.StartGroup(t, 2)
	queue, err := tasks.Connect("STOKER_REDIS_URL", group.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer queue.Close()
	s := newPress(t, queue.(*redis.Client), group.URL, 1)
	s.start("worker")
	s.listening(1)
	s.archive()
	told := s.during(func() {
		s.progress(editors)
		group.Failover(t)
		s.progress(editors)
	})
	t.Logf("%d edits were told", told)
	s.assertFresh("r1", "r2")
	s.listening(1)
	if st, err := s.log().Status(ctx); err != nil || st.Loss != nil {
		t.Errorf("loss %+v, %v; want none", st.Loss, err)
	}
	s.editAll(ctx)
	s.must("rollback", "--to", "r0", "--wait")
	s.assertFresh("r0", "r1", "r2")
}

// A promoted replica that lacks records is noticed: archives are refused, the operator is told,
// and who still knows what it was told records it again.
func TestPromotedReplicaLacksRecords(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	primary := redistest.Start(t)
	link := redistest.StartProxy(t, primary)
	host, port, err := net.SplitHostPort(link.Addr)
	if err != nil {
		t.Fatal(err)
	}
	address := redistest.StartProxy(t, primary) // that of whichever server is the primary
	s := newPress(t, primary.Client, address.URL, 0)
	worker := s.start("worker")
	s.listening(1)
	s.archive()
	replica := redistest.Start(t, "--replicaof", host+" "+port)
	redistest.Eventually(t, "the replica to be in step", func() bool {
		return strings.Contains(replica.Client.Info(ctx, "replication").Val(), "master_link_status:up")
	})
	s.editAll(ctx)
	s.assertFresh("r1", "r2")

	link.Stall(redistest.Replies) // the replica falls behind
	worker.end(syscall.SIGKILL)   // and nobody applies what it misses
	s.editAll(ctx)
	primary.Kill()
	if err := replica.Client.ReplicaOf(ctx, "NO", "ONE").Err(); err != nil {
		t.Fatal(err)
	}
	address.Point(replica)
	s.queue = replica.Client
	s.start("worker")
	s.editAll(ctx) // one call is enough to notice
	s.assertFresh("r1", "r2")
	s.lossIsRed()
	_, msg, code := s.run("rollback", "--to", "r0", "--wait")
	if code != exitRefused || !strings.Contains(msg, "fresh") || !strings.Contains(msg, "expire") {
		t.Errorf("rollback to an archive from before: exit code %d, %s", code, msg)
	}
}

// Without as many replicas as were asked for a call fails, says so, and is applied all the same.
func TestTooFewReplicas(t *testing.T) {
	t.Parallel()
	primary := redistest.Start(t)
	s := newPress(t, primary.Client, primary.URL, 1)
	s.start("worker")
	_, msg, code := s.run("invalidate", "--key", "post:0")
	if code != exitFailed || !strings.Contains(msg, "0 of the 1 that STOKER_LOG_REPLICAS asks for") || !strings.Contains(msg, "may still be applied") {
		t.Errorf("exit code %d, %s", code, msg)
	}
	redistest.Eventually(t, "it to be applied", func() bool {
		return s.redis.Client.Exists(context.Background(), "site:r1:post:0", "site:r2:post:0").Val() == 0
	})
	redistest.StartReplica(t, primary)
	s.must("invalidate", "--key", "post:1")
}
