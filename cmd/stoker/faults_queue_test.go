package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

// durable is a queue Redis that forgets nothing it has confirmed.
func durable(t *testing.T) *redistest.Server {
	t.Helper()
	return redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
}

// A queue Redis that is killed and comes back with its append-only file has lost nothing, and
// archives from before are as good as ever.
func TestQueueRestartedWithItsFile(t *testing.T) {
	t.Parallel()
	queue := durable(t)
	s := newPress(t, queue.Client, queue.URL, 0)
	s.start("worker")
	s.archive()
	s.during(func() {
		s.progress(editors)
		queue.Kill()
		redistest.Eventually(t, "calls to fail", s.failing())
		queue.Restart()
		s.progress(editors)
	})
	s.assertFresh("r1", "r2")
	s.must("rollback", "--to", "r0", "--wait")
	s.assertFresh("r0", "r1", "r2")
	if st, err := s.log().Status(context.Background()); err != nil || st.Loss != nil {
		t.Errorf("loss %+v, %v; want none", st.Loss, err)
	}
}

// A queue Redis that was replaced by an empty one is noticed: calls do not succeed in silence, the
// checks are red, and an archive from before is refused even by a ledger that still knows it.
func TestQueueReplacedByAnEmptyOne(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	queue := durable(t)
	s := newPress(t, queue.Client, queue.URL, 0)
	worker := s.start("worker")
	s.archive()
	s.editAll(ctx)
	s.assertFresh("r1", "r2")
	backup := s.backup()

	queue.Replace()
	redistest.Eventually(t, "the worker to notice", func() bool { return strings.Contains(worker.text(), "has lost invalidations") })
	call := tasks.Invalidation{Targets: []tasks.Target{{Kind: tasks.KindKey, Name: "post:1"}}, By: tasks.By{Actor: "editor"}}
	redistest.Eventually(t, "an answer", func() bool {
		_, err := s.client.Invalidate(ctx, call)
		return err == nil || errors.Is(err, tasks.ErrNoRelease)
	})
	for range 2 {
		if _, err := s.client.Invalidate(ctx, call); !errors.Is(err, tasks.ErrNoRelease) {
			t.Errorf("a call that reaches no release: %v, want one that says so", err)
		}
	}
	if _, msg, code := s.run("rollback", "--to", "r0", "--wait"); code != exitBadInput || !strings.Contains(msg, "not found") {
		t.Errorf("rollback with an empty ledger: exit code %d, %s", code, msg)
	}
	s.lossIsRed()

	s.restore(backup) // as if only the log were lost
	out, msg, code := s.run("rollback", "--to", "r0", "--wait")
	if code != exitRefused || !strings.Contains(msg, "fresh") || !strings.Contains(msg, "expire") {
		t.Errorf("rollback to an archive of the lost log: exit code %d, %s%s", code, out, msg)
	}
	s.editAll(ctx)
	s.assertFresh("r1", "r2")
}

// lossIsRed checks that the operator is told of a loss of the log.
func (s *press) lossIsRed() {
	s.Helper()
	out, _, code := s.run("health")
	if code == exitDone || !strings.Contains(out, "invalidations.log") || !strings.Contains(out, "found to lack") {
		s.Errorf("health after a loss: exit code %d\n%s", code, out)
	}
}

// backup copies the ledger, without the log.
func (s *press) backup() map[string]string {
	s.Helper()
	ctx := context.Background()
	keys := tasks.KeysOf("site")
	all := map[string]string{}
	names := []string{keys.Releases(), keys.Active(), keys.Live()}
	for _, id := range []string{"r0", "r1", "r2"} {
		names = append(names, keys.Release(id), keys.History(id))
	}
	for _, name := range names {
		all[name] = s.queue.Dump(ctx, name).Val()
	}
	return all
}

func (s *press) restore(backup map[string]string) {
	s.Helper()
	for name, value := range backup {
		if err := s.queue.RestoreReplace(context.Background(), name, 0, value).Err(); err != nil {
			s.Fatal(err)
		}
	}
}

// A full queue Redis refuses calls with its own words, is not asked in a frenzy, and takes up
// where it was when there is room again.
func TestQueueFull(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	queue := redistest.Start(t, "--maxmemory-policy", "noeviction")
	s := newPress(t, queue.Client, queue.URL, 0)
	s.start("worker")
	s.listening(1)
	s.archive()
	told := s.during(func() {
		s.progress(editors)
		queue.Client.ConfigSet(ctx, "maxmemory", "1mb")
		redistest.Eventually(t, "calls to fail", s.failing())
	})
	if text := s.failures(); !strings.Contains(text, "OOM") || !strings.Contains(text, "maxmemory") {
		t.Errorf("a full Redis was told of by: %s", text)
	}
	quiet(t, queue.Client)
	if _, msg, code := s.run("invalidate", "--key", "post:1"); code != exitFailed || !strings.Contains(msg, "OOM") {
		t.Errorf("stoker invalidate: exit code %d, %s", code, msg)
	}
	queue.Client.ConfigSet(ctx, "maxmemory", "0")
	s.during(func() { s.progress(editors) })
	s.assertFresh("r1", "r2")
	s.must("rollback", "--to", "r0", "--wait")
	s.assertFresh("r0", "r1", "r2")
	t.Logf("%d edits were told before", told)
}

// frenzy is more commands a second than a worker has a reason to send while nothing works.
const frenzy = 1000

// quiet counts the commands, connections and errors of a server for two seconds of its own clock.
func quiet(t *testing.T, server *redis.Client) {
	t.Helper()
	ctx := context.Background()
	count := func() (n float64, at time.Time) {
		info := server.InfoMap(ctx, "stats").Val()["Stats"]
		for _, field := range []string{"total_commands_processed", "total_connections_received", "total_error_replies"} {
			v, err := redis.NewStringResult(info[field], nil).Float64()
			if err != nil {
				t.Fatalf("%s: %v", field, err)
			}
			n += v
		}
		return n, server.Time(ctx).Val()
	}
	before, from := count()
	looks := 0.0
	redistest.Eventually(t, "two seconds", func() bool { looks++; return server.Time(ctx).Val().Sub(from) > 2*time.Second })
	after, to := count()
	rate := (after - before - looks) / to.Sub(from).Seconds()
	t.Logf("%.0f commands, connections and errors a second", rate)
	if rate > frenzy {
		t.Errorf("%.0f commands, connections and errors a second, want at most %d", rate, frenzy)
	}
}

// With a wrong password nothing starts, and says why; a password that is changed under a worker
// makes it wait, not spin, and it goes on when it may again.
func TestWrongCredentials(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	queue := redistest.Start(t, "--requirepass", "right")
	s := newPress(t, queue.Client, queue.URL, 0)
	wrong := s.with("STOKER_REDIS_URL=" + strings.Replace(queue.URL, "right", "mistaken", 1))
	for _, args := range [][]string{{"worker"}, {"scheduler"}, {"web"}, {"invalidate", "--key", "a"}} {
		_, msg, code := wrong.run(args...)
		if code != exitFailed || !strings.Contains(msg, "WRONGPASS") || !strings.Contains(msg, "STOKER_REDIS_URL") || strings.Contains(msg, "mistaken") {
			t.Errorf("stoker %s: exit code %d, %s", args[0], code, msg)
		}
	}

	s.start("worker")
	s.listening(1)
	s.during(func() {
		s.progress(editors)
		queue.Client.ConfigSet(ctx, "requirepass", "changed")
		queue.Client.ClientKillByFilter(ctx, "TYPE", "normal", "SKIPME", "yes")
		queue.Client.ClientKillByFilter(ctx, "TYPE", "pubsub")
		redistest.Eventually(t, "calls to fail", s.failing())
	})
	if text := s.failures(); !strings.Contains(text, "WRONGPASS") {
		t.Errorf("a wrong password was told of by: %s", text)
	}
	operator := redis.NewClient(&redis.Options{Addr: queue.Addr, Password: "changed"})
	defer operator.Close()
	quiet(t, operator)
	operator.ConfigSet(ctx, "requirepass", "right")
	s.during(func() { s.progress(editors) })
	s.assertFresh("r1", "r2")
}
