package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
	"github.com/alphanode/stoker/worker/release"
)

const (
	killsEnv     = "STOKER_TEST_KILLS"      // in each work on each topology; the short form kills once or twice in each topology
	killsSeedEnv = "STOKER_TEST_KILLS_SEED" // of an earlier run, to see it again
)

// topology is a cache Redis of some kind.
type topology struct {
	url      string
	template string
	pace     tasks.Pace // that makes a work last about a second
	client   redis.UniversalClient
	victim   func(rng *rand.Rand) victim // nil where there are no replicas
}

// victim is a primary that is to die while its replicas lag behind: what is written in between is lost.
type victim struct {
	server   *redistest.Server
	replicas []*redistest.Server
	heal     func() // waits until another has taken its place and all is whole again
}

// lag cuts the replicas off. They do not reconnect before the primary has died.
func (v victim) lag() {
	for _, r := range v.replicas {
		r.Freeze()
	}
	v.server.Client.ClientKillByFilter(context.Background(), "TYPE", "replica")
}

func (v victim) die() {
	v.server.Kill()
	for _, r := range v.replicas {
		r.Thaw()
	}
}

// Killed with SIGKILL at random moments in each of the four works on whole namespaces, another worker takes
// the work up and ends it as it should: what is copied, archived and brought back is equal to what it
// was, what is deleted is gone, and nothing of a neighbour is touched. Editors and readers go on meanwhile; nothing that
// was invalidated stays. Where there are replicas, a primary of the cache Redis dies in mid-work as well.
func TestKilledInEveryWork(t *testing.T) {
	for _, c := range []struct {
		name  string
		short []string // the works that are killed in the short form
		start func(t *testing.T) topology
	}{
		{"single", works, func(t *testing.T) topology {
			s := redistest.Start(t)
			return topology{url: s.URL, template: tasks.DefaultTemplate, pace: tasks.PaceGentle, client: s.Client}
		}},
		{"sentinel", []string{"restore"}, startGroup},
		{"cluster", []string{"carry"}, startCluster},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			seed := uint64(time.Now().UnixNano())
			if text := os.Getenv(killsSeedEnv); text != "" {
				seed, _ = strconv.ParseUint(text, 10, 64)
			}
			t.Logf("%s=%d", killsSeedEnv, seed)
			rng := rand.New(rand.NewPCG(seed, 0))
			var k *kills
			if text := os.Getenv(killsEnv); text != "" {
				times, _ := strconv.Atoi(text)
				k = newKills(t, c.start(t), 3000, rng)
				k.cycle(nil) // undisturbed: how long each work takes
				for range times {
					k.cycle(works)
				}
			} else {
				k = newKills(t, c.start(t), 600, rng)
				for _, work := range works {
					k.took[work] = 200 * time.Millisecond
				}
				k.cycle(c.short)
			}
			k.close()
			t.Logf("undisturbed: %v; disturbed: %v", k.took, k.recovered)
		})
	}
}

func startGroup(t *testing.T) topology {
	g := redistest.StartGroup(t, 2)
	client, err := tasks.Connect("the group", g.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return topology{url: g.URL, template: tasks.DefaultTemplate, pace: tasks.PaceGentle, client: client, victim: func(*rand.Rand) victim {
		old := g.Current(t)
		replicas := slices.DeleteFunc(append([]*redistest.Server{g.Primary}, g.Replicas...), func(s *redistest.Server) bool { return s == old })
		return victim{old, replicas, func() {
			g.Heir(t, old)
			g.Rejoin(t, old)
		}}
	}}
}

func startCluster(t *testing.T) topology {
	c := redistest.StartCluster(t, 3, 1)
	return topology{url: c.URL, template: "<app>:<release>:{<key>}", pace: tasks.PaceFull, client: c.Client, victim: func(rng *rand.Rand) victim {
		primaries := c.Primaries()
		old := primaries[rng.IntN(len(primaries))]
		replicas := c.Replicas(old)
		return victim{old, replicas, func() {
			c.Heir(replicas)
			c.Rejoin(old)
		}}
	}}
}

// by is who asks for the works.
var by = tasks.By{Actor: "test"}

// works are those that the test kills.
var works = []string{"carry", "snapshot", "expire", "restore"}

// kills is an installation in which workers are killed.
type kills struct {
	*install
	*site
	rng       *rand.Rand
	worker    *process
	took      map[string]time.Duration // undisturbed
	recovered map[string]time.Duration // the slowest of those that were disturbed
	cycles    int
}

// cycle takes the site through a release and back, with each of the works once: kill says in which of them
// the worker dies. Before and after it r1 is served and r2 is on standby.
func (k *kills) cycle(kill []string) {
	k.Helper()
	ctx := context.Background()
	served, standby, next := k.served, k.standby, fmt.Sprint("c", k.cycles)
	k.cycles++
	k.must("release", "create", next, "--no-git")

	k.work("carry", kill, func() (tasks.Lane, string, error) {
		_, id, err := k.client.Warm(ctx, tasks.WarmRequest{Release: next, Plan: []byte(carryPlan), By: by})
		return tasks.LaneWarm, id, err
	}, func() bool { return k.stateOf(next) == release.Ready })
	k.assertComplete(next, carried)
	k.assertNeighbours()
	k.flip(next)

	k.work("snapshot", kill, func() (tasks.Lane, string, error) {
		id, err := k.client.Snapshot(ctx, served, by)
		return tasks.LaneUpkeep, id, err
	}, nil)
	k.assertArchive(served)
	k.assertNeighbours()

	k.work("expire", kill, func() (tasks.Lane, string, error) {
		id, err := k.client.Expire(ctx, standby, false, by)
		return tasks.LaneUpkeep, id, err
	}, nil)
	k.assertGone(standby)
	k.assertArchive(standby)
	k.assertNeighbours()

	k.work("restore", kill, func() (tasks.Lane, string, error) {
		id, err := k.client.Rollback(ctx, standby, by)
		return tasks.LaneRelease, id, err
	}, nil)
	k.assertComplete(standby, everything)
	k.served, k.standby = standby, served
	k.assertComplete(k.standby, everything)
	k.assertComplete(next, carried)
	k.assertNeighbours()
	k.must("expire", "--release", next, "--no-snapshot", "--wait")
	k.assertGone(next)
}

// flip makes a release that is ready the active one.
func (k *kills) flip(id string) {
	k.Helper()
	task, err := k.client.Activate(context.Background(), id, false, by)
	if err != nil {
		k.Fatal(err)
	}
	k.awaitTask(tasks.LaneRelease, task)
}

// work begins a work, kills its worker in mid-work if it is one of those, and a primary where there are
// replicas, and waits for its end: that of its task, unless done says otherwise.
func (k *kills) work(name string, kill []string, begin func() (tasks.Lane, string, error), done func() bool) {
	k.Helper()
	lane, id, err := begin()
	if err != nil {
		k.Fatalf("begin %s: %v", name, err)
	}
	k.awaitStart(lane, id)
	begun := time.Now()
	if done == nil {
		done = func() bool { return k.completed(lane, id) }
	}
	what := "undisturbed"
	if slices.Contains(kill, name) {
		what = k.disturb(k.took[name], done)
	}
	k.awaitTask(lane, id)
	redistest.Eventually(k.T, name+" to end", done)
	took := time.Since(begun)
	if kill == nil {
		k.took[name] = took
	} else if slices.Contains(kill, name) {
		k.recovered[name] = max(k.recovered[name], took)
		k.Logf("cycle %d, %s: %s, ended after %v", k.cycles, name, what, took.Round(time.Millisecond))
	}
	k.settled()
}

// awaitStart waits until a worker has taken a task up.
func (k *kills) awaitStart(lane tasks.Lane, id string) {
	k.Helper()
	redistest.Eventually(k.T, "task "+id+" to begin", func() bool {
		state, ok := k.taskState(lane, id)
		return ok && state != asynq.TaskStatePending
	})
}

func (k *kills) completed(lane tasks.Lane, id string) bool {
	state, ok := k.taskState(lane, id)
	return ok && state == asynq.TaskStateCompleted
}

func (k *kills) taskState(lane tasks.Lane, id string) (asynq.TaskState, bool) {
	info, err := asynq.NewInspectorFromRedisClient(k.redis.Client).GetTaskInfo(lane.Queue("site"), id)
	if err != nil {
		return 0, false
	}
	return info.State, true
}

const (
	// lagTime is how long replicas lag at most before their primary dies.
	lagTime = 500 * time.Millisecond
	// awayTime is how long they may where the primary dies when the work is done: the work waits for them, and
	// after ten seconds it no longer does.
	awayTime = 8 * time.Second
)

// disturb kills the worker at a random moment of a work that takes so long, and where there are replicas a
// primary: at another random moment, or when the work is done.
func (k *kills) disturb(long time.Duration, done func() bool) (what string) {
	k.Helper()
	begun := time.Now()
	until := func(moment time.Duration) { <-time.After(time.Until(begun.Add(moment))) }
	random := func(most time.Duration) time.Duration { return time.Duration(k.rng.Int64N(int64(most))) }
	worker := random(long)
	what = fmt.Sprintf("worker killed after %v of %v", worker.Round(time.Millisecond), long.Round(time.Millisecond))
	if k.cache.victim == nil {
		until(worker)
		k.killWorker()
		return what
	}
	v, die, atEnd := k.cache.victim(k.rng), random(long), k.rng.IntN(2) == 0
	lag := die - random(lagTime)
	if atEnd {
		die = min(2*long, lag+awayTime)
	}
	events := map[time.Duration]func(){worker: k.killWorker, lag: v.lag, die: v.die}
	for _, at := range slices.Sorted(maps.Keys(events)) {
		if atEnd && at == die {
			deadline := begun.Add(die)
			redistest.Eventually(k.T, "the end", func() bool { return done() || time.Now().After(deadline) })
		} else {
			until(at)
		}
		events[at]()
	}
	v.heal()
	how := "primary killed after"
	if atEnd {
		how = "primary killed at the end, at most"
	}
	return fmt.Sprintf("%s, replicas behind after %v, %s %v", what, lag.Round(time.Millisecond), how, die.Round(time.Millisecond))
}

// killWorker kills the worker and starts another.
func (k *kills) killWorker() {
	k.Helper()
	k.worker.end(syscall.SIGKILL)
	k.endLeases()
	k.worker = k.start("worker")
}
