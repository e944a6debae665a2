package main

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

// recovery is the promise: what a killed worker has left is applied by another within this.
const recovery = 2 * time.Second

// step is a moment of a process's work: nothing gets past it, one way, to or from one Redis.
type step struct {
	name  string
	cache bool
	way   redistest.Way
}

var steps = []step{
	{"before it hears of the record", false, redistest.Replies},
	{"before it reads the record", false, redistest.Requests},
	{"before it removes the entries", true, redistest.Requests},
	{"after it has removed them, before it knows", true, redistest.Replies},
}

// A worker killed at any step leaves nothing undone: another one, which does not even serve the
// lane, applies what it left.
func TestWorkerKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	queue := redistest.Start(t)
	s := newPress(t, queue.Client, queue.URL, 0)
	toQueue, toCache := redistest.StartProxy(t, queue), redistest.StartProxy(t, s.redis)
	victims := s.with("STOKER_REDIS_URL="+toQueue.URL, "STOKER_CACHE_URL="+toCache.URL)
	s.with("STOKER_LANES=warm,upkeep,release").start("worker")

	best := time.Hour
	for _, at := range steps {
		victim := victims.start("worker")
		s.listening(1)
		proxy := toQueue
		if at.cache {
			proxy = toCache
		}
		proxy.Stall(at.way)
		before := s.applied()
		s.editAll(context.Background())
		victim.end(syscall.SIGKILL)
		proxy.Heal()
		s.assertFresh("r1", "r2")
		slowest := s.slowest(before)
		t.Logf("killed %s: the slowest was applied %v after its record", at.name, slowest.Round(time.Millisecond))
		best = min(best, slowest)
	}
	if best > recovery {
		t.Errorf("the best of %d kills took %v, want at most %v", len(steps), best, recovery)
	}
	s.archive()
	s.editAll(context.Background())
	s.must("rollback", "--to", "r0", "--wait")
	s.assertFresh("r0", "r1", "r2")
}

// applied is the highest number that has been applied.
func (s *press) applied() int64 {
	s.Helper()
	list, err := tasks.ListApplied(context.Background(), s.queue, tasks.KeysOf("site"), 1)
	if err != nil {
		s.Fatal(err)
	}
	if len(list) == 0 {
		return 0
	}
	return list[0].Number
}

// slowest is how long the slowest record above a number took to be applied.
func (s *press) slowest(above int64) (d time.Duration) {
	s.Helper()
	list, err := tasks.ListApplied(context.Background(), s.queue, tasks.KeysOf("site"), 10_000)
	if err != nil {
		s.Fatal(err)
	}
	for _, a := range list {
		if a.Number > above {
			d = max(d, a.At.Sub(a.Recorded))
		}
	}
	if d == 0 {
		s.Fatal("nothing was applied")
	}
	return d
}

// An app server killed in the middle of its calls: what it was told is recorded has been.
func TestClientKilledInTheMiddle(t *testing.T) {
	t.Parallel()
	queue := redistest.Start(t)
	s := newPress(t, queue.Client, queue.URL, 0)
	proxy := redistest.StartProxy(t, queue)
	s.start("worker")
	app := s.with(asPaper+"=1", "STOKER_REDIS_URL="+proxy.URL)
	for name, hold := range map[string]func(){
		"at work":                       func() {},
		"before its record arrives":     func() { proxy.Stall(redistest.Requests) },
		"before it knows of its record": func() { proxy.Stall(redistest.Replies) },
	} {
		victim := app.start("paper")
		s.progress(editors)
		hold()
		victim.end(syscall.SIGKILL)
		proxy.Heal()
		s.assertFresh("r1", "r2")
		t.Logf("killed %s", name)
	}
}

// A scheduler killed at any step enqueues what it missed when it is back, once.
func TestSchedulerKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	queue := redistest.Start(t)
	s := newPress(t, queue.Client, queue.URL, 0)
	proxy := redistest.StartProxy(t, queue)
	s.start("worker")
	ticks := func() int { return len(queue.Client.HGetAll(context.Background(), tasks.KeysOf("site").Ticks()).Val()) }
	told := s.during(func() {
		for _, way := range []redistest.Way{redistest.Requests, redistest.Replies} {
			victim := s.with("STOKER_REDIS_URL=" + proxy.URL).start("scheduler")
			redistest.Eventually(t, "the scheduler's first ticks", func() bool { return ticks() > 0 })
			queue.Client.Del(context.Background(), tasks.KeysOf("site").Ticks())
			proxy.Stall(way)
			victim.end(syscall.SIGKILL)
			proxy.Heal()
		}
		s.start("scheduler")
		redistest.Eventually(t, "the next scheduler's ticks", func() bool { return ticks() > 0 })
	})
	s.assertFresh("r1", "r2")
	t.Logf("%d edits were told meanwhile", told)
}

// Connections that are cut before a request arrives or before its reply does, on every side at
// once, lose nothing and store nothing stale.
func TestCutsBeforeAndAfterReplies(t *testing.T) {
	t.Parallel()
	queue := redistest.Start(t)
	proxy := redistest.StartProxy(t, queue)
	s := newPress(t, queue.Client, proxy.URL, 0)
	toCache := redistest.StartProxy(t, s.redis)
	s.with("STOKER_CACHE_URL=" + toCache.URL).start("worker")
	s.listening(1)
	told := s.during(func() {
		for range 3 {
			for _, way := range []redistest.Way{redistest.Requests, redistest.Replies} {
				proxy.Cut(way)
				toCache.Cut(way)
				redistest.Eventually(t, "calls to fail", s.failing())
				proxy.Heal()
				toCache.Heal()
				s.progress(editors)
			}
		}
	})
	s.assertFresh("r1", "r2")
	t.Logf("%d edits were told meanwhile", told)
}

// failing reports whether a call has failed since it was made.
func (s *press) failing() func() bool {
	count := func() (n int) {
		s.errs.Lock()
		defer s.errs.Unlock()
		for _, times := range s.failed {
			n += times
		}
		return n
	}
	from := count()
	return func() bool { return count() > from }
}
