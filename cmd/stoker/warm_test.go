package main

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
	"github.com/alphanode/stoker/worker/warm"
)

// oven is a shop where only one worker warms: it reaches the cache through a proxy, so that its
// work can be held up at any moment, while another worker does everything else.
type oven struct {
	*shop
	proxy *redistest.Proxy
	log   tasks.Keys // of what the queue Redis keeps
}

func newOven(t *testing.T) oven {
	t.Helper()
	s := newShop(t, "STOKER_PACE=gentle")
	s.with("STOKER_LANES=invalidate,bulk,release,upkeep").start("worker")
	return oven{s, redistest.StartProxy(t, s.redis), tasks.KeysOf("site")}
}

// warmer starts the worker that warms.
func (o oven) warmer() *process {
	o.Helper()
	p := o.with("STOKER_CACHE_URL="+o.proxy.URL, "STOKER_LANES=warm").start("worker")
	redistest.Eventually(o.T, "the worker that warms", func() bool { return strings.Contains(p.text(), "worker started") })
	return p
}

// enqueue asks for a warm and returns its run.
func (o oven) enqueue(release string) string {
	o.Helper()
	return field[string](o.T, o.must("warm", release, "--json"), "run")
}

func (o oven) status(run string) warm.RunStatus {
	o.Helper()
	s, err := warm.Status(context.Background(), o.redis.Client, o.log, run)
	if err != nil {
		o.Fatal(err)
	}
	return s
}

// ended waits for a run's end.
func (o oven) ended(run string) (s warm.RunStatus) {
	o.Helper()
	redistest.Eventually(o.T, "the end of run "+run, func() bool { s = o.status(run); return s.Over() })
	return s
}

func (o oven) marks(release string) int64 {
	return o.redis.Client.ZCard(context.Background(), o.log.Marks(release)).Val()
}

// A worker that is killed in the middle of a batch, before a put of its or after one that it has not
// heard of, leaves a mark open; the next goes on after the last chunk that was counted, and ends with
// the figures and the entries that a run without a kill has. What is edited meanwhile is not stale.
func TestWarmerKilledInMidBatch(t *testing.T) {
	t.Parallel()
	o := newOven(t)
	first := "site:r%:post:post-00000"
	for i, at := range []struct {
		what string
		way  redistest.Way
	}{
		{"before a put arrives", redistest.Requests},
		{"after a put, before it knows", redistest.Replies},
	} {
		id := []string{"r1", "r2"}[i]
		o.must("release", "create", id)
		run := o.enqueue(id)
		victim := o.warmer()
		redistest.Eventually(t, "the batch to be under way", func() bool { return o.status(run).Done >= 400 })
		o.proxy.Stall(at.way)
		victim.end(syscall.SIGKILL)
		before := o.status(run)
		if before.OpenBatches != 1 || before.Done >= posts || o.marks(id) != 1 {
			t.Fatalf("killed %s: %+v, %d open marks: not in mid-batch", at.what, before, o.marks(id))
		}
		key := strings.Replace(first, "r%", id, 1)
		expires := o.redis.Client.PExpireTime(context.Background(), key).Val()
		o.edit(100+1000*i, 100) // of what is stored
		o.edit(9000+200*i, 100) // of what is not read yet
		o.proxy.Heal()
		o.endLeases()
		next := o.warmer()
		s := o.ended(run)
		c := s.Certificate
		if s.Status != string(warm.Pass) || c.Planned != posts || c.Stored+c.Invalidated != posts || c.SampleMissing != 0 || o.marks(id) != 0 || o.state(id) != "ready" {
			t.Errorf("killed %s: run %+v, certificate %+v, %d open marks, release %s", at.what, s, c, o.marks(id), o.state(id))
		}
		if n := o.assertFresh(id); n < posts-200 {
			t.Errorf("killed %s: %d entries, want at least %d", at.what, n, posts-200)
		}
		if now := o.redis.Client.PExpireTime(context.Background(), key).Val(); now != expires || now <= 0 {
			t.Errorf("killed %s: the first entry ends at %v, before the kill it was %v: the batch began anew", at.what, now, expires)
		}
		t.Logf("killed %s, after %d of %d entries", at.what, before.Done, posts)
		next.end(syscall.SIGTERM)
	}
}

// Of two warms of one release at once one is refused and told why, and changes nothing; a plan that
// is changed in mid-run is for the next run.
func TestTwoWarmsAtOnce(t *testing.T) {
	t.Parallel()
	o := newOven(t)
	o.must("release", "create", "r1")
	all := []*process{o.start("warm", "r1", "--wait"), o.start("warm", "r1", "--wait")}
	queued := "asynq:{" + tasks.LaneWarm.Queue("site") + "}:pending"
	redistest.Eventually(t, "both to be queued", func() bool { return o.redis.Client.LLen(t.Context(), queued).Val() == 2 })
	o.warmer()
	over := func(p *process) bool {
		select {
		case <-p.done:
			return true
		default:
			return false
		}
	}
	redistest.Eventually(t, "one of them to be refused", func() bool { return over(all[0]) || over(all[1]) })
	loser, winner := all[0], all[1]
	if over(winner) {
		loser, winner = winner, loser
	}
	<-loser.done
	if code, said := loser.cmd.ProcessState.ExitCode(), loser.text(); code != exitRefused || strings.Count(said, "refused") != 1 || !strings.Contains(said, "is warming it already") {
		t.Errorf("the second warm: exit code %d, it said %q", code, said)
	}
	text, err := os.ReadFile(o.plan)
	if err == nil {
		err = os.WriteFile(o.plan, []byte(strings.Replace(string(text), `key: "post:`, `key: "other:`, 1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if over(winner) {
		t.Fatalf("the first warm was over before the plan changed: %s", winner.text())
	}
	<-winner.done
	if code := winner.cmd.ProcessState.ExitCode(); code != exitDone {
		t.Errorf("the first warm: exit code %d, it said:\n%s", code, winner.text())
	}
	if n, all := o.assertFresh("r1"), len(o.list("r1", "other:")); n != posts || all != 0 || o.state("r1") != "ready" {
		t.Errorf("%d entries of the plan it began with, want %d; %d of the other; release %s", n, posts, all, o.state("r1"))
	}
	o.must("warm", "r1", "--pace", "full", "--wait")
	if n := len(o.list("r1", "other:")); n != posts {
		t.Errorf("the next run made %d entries of the changed plan, want %d", n, posts)
	}
}

// A release that is expired in the middle of its warm gets nothing stored any more, and the run says
// so; one that is not served yet is left alone until its warm is over.
func TestExpiredInMidWarm(t *testing.T) {
	t.Parallel()
	o := newOven(t)
	worker := o.warmer()
	for _, id := range []string{"r1", "r2"} {
		o.must("release", "create", id)
		o.must("warm", id, "--pace", "full", "--wait")
		o.must("release", "activate", id, "--wait")
	}
	worker.end(syscall.SIGTERM)
	o.must("release", "create", "r3")
	runs := map[string]string{}
	for _, id := range []string{"r1", "r3"} { // r1 is on standby
		runs[id] = o.enqueue(id)
	}
	o.warmer()
	redistest.Eventually(t, "both batches to be under way", func() bool { return o.status(runs["r1"]).Done >= 400 && o.status(runs["r3"]).Done >= 400 })
	o.proxy.Stall(redistest.Requests)
	if _, said, code := o.shop.run("expire", "--release", "r3", "--no-snapshot", "--wait"); code != exitRefused || !strings.Contains(said, "being warmed") {
		t.Errorf("expiring a release that warms: exit code %d, it said %s", code, said)
	}
	o.must("expire", "--release", "r1", "--no-snapshot", "--wait")
	o.proxy.Heal()
	if s := o.ended(runs["r1"]); s.Status != string(warm.Fail) || !strings.Contains(strings.Join(s.Certificate.Reasons, " "), `release "r1" is expired now`) {
		t.Errorf("the run of the expired release: %+v, certificate %+v", s, s.Certificate)
	}
	if s := o.ended(runs["r3"]); s.Status != string(warm.Pass) {
		t.Errorf("the run of the other: %+v, certificate %+v", s, s.Certificate)
	}
	o.must("expire", "--wait") // what a put left that came after the last key was deleted
	if n := o.keys("r1"); n != 0 || o.state("r1") != "expired" || o.marks("r1") != 0 {
		t.Errorf("r1 is %s with %d keys, %d open marks", o.state("r1"), n, o.marks("r1"))
	}
	if n := o.assertFresh("r3"); n != posts || o.state("r3") != "ready" {
		t.Errorf("r3 is %s with %d entries", o.state("r3"), n)
	}
}
