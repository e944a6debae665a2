package main

import (
	"context"
	"fmt"
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
	// hurt kills a primary while its replicas lag behind, and returns what waits until another has
	// taken its place and all is whole again. nil where there are no replicas.
	hurt func(rng *rand.Rand) (heal func())
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
					k.took[work] = 400 * time.Millisecond
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
	return topology{url: g.URL, template: tasks.DefaultTemplate, pace: tasks.PaceGentle, client: client, hurt: func(rng *rand.Rand) func() {
		old := g.Current(t)
		lag(old, rng)
		old.Kill()
		return func() {
			g.Heir(t, old)
			g.Rejoin(t, old)
		}
	}}
}

func startCluster(t *testing.T) topology {
	c := redistest.StartCluster(t, 3, 1)
	return topology{url: c.URL, template: "<app>:<release>:{<key>}", pace: tasks.PaceFull, client: c.Client, hurt: func(rng *rand.Rand) func() {
		primaries := c.Primaries()
		old := primaries[rng.IntN(len(primaries))]
		lag(old, rng)
		heir := c.Lose(old)
		return func() {
			heir()
			c.Rejoin(old)
		}
	}}
}

// lag cuts a primary's replicas off for some moments, as a busy network does: they are back within a second. What is
// written meanwhile is lost when the primary dies.
func lag(s *redistest.Server, rng *rand.Rand) {
	s.Client.ClientKillByFilter(context.Background(), "TYPE", "replica")
	<-time.After(time.Duration(rng.IntN(300)) * time.Millisecond)
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
	}, func() { k.awaitState(next, "ready") })
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
// replicas, and waits for its end; after waits for what comes after its first task.
func (k *kills) work(name string, kill []string, begin func() (tasks.Lane, string, error), after func()) {
	k.Helper()
	lane, id, err := begin()
	if err != nil {
		k.Fatalf("begin %s: %v", name, err)
	}
	k.awaitStart(lane, id)
	begun := time.Now()
	what := "undisturbed"
	if slices.Contains(kill, name) {
		what = k.disturb(k.took[name])
	}
	k.awaitTask(lane, id)
	if after != nil {
		after()
	}
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
	inspector := asynq.NewInspectorFromRedisClient(k.redis.Client)
	redistest.Eventually(k.T, "task "+id+" to begin", func() bool {
		info, err := inspector.GetTaskInfo(lane.Queue("site"), id)
		return err == nil && info.State != asynq.TaskStatePending
	})
}

// disturb kills the worker at a random moment of a work that takes so long, and a primary, before or after.
func (k *kills) disturb(long time.Duration) (what string) {
	k.Helper()
	begun := time.Now()
	at := func() time.Duration { return time.Duration(k.rng.Int64N(int64(long))) }
	heal := func() {}
	killWorker := func(moment time.Duration) {
		<-time.After(time.Until(begun.Add(moment)))
		k.worker.end(syscall.SIGKILL)
		k.endLeases()
		k.worker = k.start("worker")
	}
	killPrimary := func(moment time.Duration) {
		<-time.After(time.Until(begun.Add(moment)))
		heal = k.cache.hurt(k.rng)
	}
	worker, primary := at(), at()
	switch {
	case k.cache.hurt == nil:
		killWorker(worker)
		return fmt.Sprintf("worker killed after %v of %v", worker.Round(time.Millisecond), long.Round(time.Millisecond))
	case worker < primary:
		killWorker(worker)
		killPrimary(primary)
	default:
		killPrimary(primary)
		killWorker(worker)
	}
	heal()
	select {
	case <-k.worker.done: // the cache Redis did not answer when it started: what supervises it starts it again
		k.endLeases()
		k.worker = k.start("worker")
	default:
	}
	return fmt.Sprintf("worker killed after %v and primary after %v of %v", worker.Round(time.Millisecond), primary.Round(time.Millisecond), long.Round(time.Millisecond))
}
