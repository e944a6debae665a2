package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

const (
	restartsEnv     = "STOKER_TEST_RESTARTS"      // how long: the short form takes some seconds
	restartsSeedEnv = "STOKER_TEST_RESTARTS_SEED" // of an earlier run, to see it again
)

// rhythm is how a crew is treated.
type rhythm struct {
	long    time.Duration
	beat    time.Duration // between two kills of one scheduler and one worker
	aligned bool          // the beats keep to the clock, so that some strike at a tick
	jitter  time.Duration // around the beat
	down    time.Duration // at most, before a killed process is started again
	rolls   int           // rolling restarts of everybody, spread over the time; after each the queue Redis dies
	hires   int           // entries that the schedule gets at each beat, each with a tick that is overdue
	pause   time.Duration // between the edits of one desk
	leases  bool          // a dead worker's tasks are waited for, as long as that takes
}

// Two schedulers and three workers, one of each killed at every beat, all of them restarted in a row now and then,
// the queue Redis killed and started on its file, while editors tell of edits and releases are switched: every tick of every entry becomes one task, none is
// missed, none is lost, and what was invalidated is not served any more.
func TestRestarts(t *testing.T) {
	t.Parallel()
	way := rhythm{long: 7 * time.Second, beat: 1500 * time.Millisecond, down: 200 * time.Millisecond, rolls: 1, hires: 6, pause: 40 * time.Millisecond}
	if text := os.Getenv(restartsEnv); text != "" {
		long, err := time.ParseDuration(text)
		if err != nil {
			t.Fatalf("%s: %v", restartsEnv, err)
		}
		way = rhythm{long: long, beat: 20 * time.Second, aligned: true, jitter: 300 * time.Millisecond, down: 2 * time.Second, rolls: 3, pause: 10 * time.Millisecond, leases: true}
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv(restartsSeedEnv); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	t.Logf("%s=%d", restartsSeedEnv, seed)

	r := newRestarts(t, way, rand.New(rand.NewPCG(seed, 0)))
	close := r.desks.open()
	r.live()
	close()
	r.end()
	r.assertTicks()
	r.assertFresh("r1", "r2")
	t.Log(r.figures())
}

// restarts is a press whose crew is killed and restarted all the time.
type restarts struct {
	*press
	way    rhythm
	rng    *rand.Rand
	desks  *desks
	roster *roster
	made   *enqueuings
	server *redistest.Server // the queue Redis

	crew         []*member
	kills, rolls int
	outages      int // of the queue Redis
	flips        int
	flip         string // the rollback that was asked for last
}

// member is one place in the crew, and who holds it.
type member struct {
	command string
	*process
}

const (
	schedulers = 2
	workers    = 3
)

func newRestarts(t *testing.T, way rhythm, rng *rand.Rand) *restarts {
	t.Helper()
	queue := durable(t)
	s := newPress(t, queue.Client, queue.URL, 0)
	r := &restarts{press: s, way: way, rng: rng, server: queue, made: &enqueuings{made: map[string]int{}}, roster: newRoster(s)}
	r.made.watch(t, queue.Addr)
	r.install = s.install.with("STOKER_SCHEDULE="+r.roster.path, "STOKER_WATCH_FOR=0s")
	r.install.queue = queue.Client
	r.desks = newDesks(s, way.pause)
	r.roster.hire(8)
	for range workers {
		r.crew = append(r.crew, &member{"worker", r.start("worker")})
	}
	r.archive() // before anything expires by the rule, which keeps one release on standby
	for range schedulers {
		r.crew = append(r.crew, &member{"scheduler", r.start("scheduler")})
	}
	for _, m := range r.crew {
		m.awaitStarted()
	}
	return r
}

// live passes the time, beat by beat.
func (r *restarts) live() {
	r.Helper()
	begun := time.Now()
	next := begun
	for {
		if r.way.aligned {
			next = next.Truncate(r.way.beat)
		}
		next = next.Add(r.way.beat)
		if next.Sub(begun) > r.way.long {
			return
		}
		at := next
		if r.way.jitter > 0 {
			at = at.Add(time.Duration(r.rng.Int64N(2*int64(r.way.jitter))) - r.way.jitter)
		}
		<-time.After(time.Until(at))
		r.roster.hire(r.way.hires)
		r.killOneOfEach()
		r.turn()
		if done := time.Since(begun); r.rolls < r.way.rolls && done > r.way.long*time.Duration(r.rolls+1)/time.Duration(r.way.rolls+1) {
			r.roll()
			r.outage()
			next = time.Now()
		}
	}
}

// killOneOfEach kills a scheduler and a worker, and starts others in their places.
func (r *restarts) killOneOfEach() {
	r.Helper()
	victims := []*member{r.crew[r.rng.IntN(workers)], r.crew[workers+r.rng.IntN(schedulers)]}
	for _, v := range victims {
		v.end(syscall.SIGKILL)
		r.kills++
	}
	<-time.After(time.Duration(r.rng.Int64N(int64(r.way.down))))
	for _, v := range victims {
		v.process = r.start(v.command)
	}
}

// roll restarts everybody, one after the other, as an upgrade would.
func (r *restarts) roll() {
	r.Helper()
	for _, m := range r.crew {
		m.awaitStarted() // before that, it cannot end in good order
		m.end(syscall.SIGTERM)
		if code := m.cmd.ProcessState.ExitCode(); code != exitDone {
			r.Errorf("a %s that was asked to stop ended with exit code %d", m.command, code)
		}
		m.process = r.start(m.command)
		m.awaitStarted()
	}
	r.rolls++
}

func (m *member) awaitStarted() {
	m.t.Helper()
	redistest.Eventually(m.t, "a "+m.command+" to start", func() bool { return strings.Contains(m.text(), m.command+" started") })
}

// outage kills the queue Redis and starts it again on its append-only file, apart from any tick: what is
// enqueued before the test looks on again, it does not see.
func (r *restarts) outage() {
	r.Helper()
	if r.way.aligned {
		for next := time.Now().Truncate(time.Minute).Add(time.Minute); time.Until(next) < 15*time.Second; next = next.Add(time.Minute) {
			<-time.After(time.Until(next) + 2*time.Second)
		}
	}
	r.server.Kill()
	<-time.After(time.Duration(r.rng.Int64N(int64(r.way.down))))
	r.server.Restart()
	r.made.watch(r.T, r.server.Addr)
	r.outages++
}

// turn asks for a rollback when the last one is done: it switches between r1 and r2.
func (r *restarts) turn() {
	r.Helper()
	if r.flip != "" {
		info, err := asynq.NewInspectorFromRedisClient(r.queue).GetTaskInfo(tasks.LaneRelease.Queue("site"), r.flip)
		if err != nil {
			r.Fatalf("rollback %s is lost: %v", r.flip, err)
		}
		if info.State != asynq.TaskStateCompleted {
			return
		}
		r.flips++
	}
	id, err := r.client.Rollback(context.Background(), "", by)
	if err != nil {
		r.Fatal(err)
	}
	r.flip = id
}

// end lets everything come to its end and checks that nothing is left over.
func (r *restarts) end() {
	r.Helper()
	last := time.Now()
	redistest.Eventually(r.T, "the last ticks", func() bool { return r.roster.complete(r.made, last) })
	for _, m := range r.crew {
		m.end(syscall.SIGTERM)
	}
	if !r.way.leases {
		r.endLeases()
	}
	worker := r.start("worker")
	const leases = 4 * time.Minute // asynq needs up to 170 s to notice the dead, and may have to twice
	var left string
	for deadline := time.Now().Add(leases); ; <-time.After(100 * time.Millisecond) {
		if left = r.left(); left == "" {
			break
		}
		if time.Now().After(deadline) {
			r.Fatalf("left over after %v: %s", leases, left)
		}
	}
	worker.end(syscall.SIGTERM)
}

// left says which tasks have not come to a good end.
func (r *restarts) left() string {
	r.Helper()
	var left []string
	inspector := asynq.NewInspectorFromRedisClient(r.queue)
	for _, lane := range tasks.Lanes() {
		info, err := inspector.GetQueueInfo(lane.Queue("site"))
		if err != nil {
			continue // no task was ever in it
		}
		if info.Archived > 0 {
			given, _ := inspector.ListArchivedTasks(lane.Queue("site"))
			r.Fatalf("lane %s: %d tasks were given up, %s for one: %s", lane, info.Archived, given[0].ID, given[0].LastErr)
		}
		if n := info.Pending + info.Active + info.Retry + info.Scheduled; n > 0 {
			left = append(left, fmt.Sprintf("%d in lane %s", n, lane))
		}
	}
	return strings.Join(left, ", ")
}

// assertTicks fails unless every tick of every entry was made a task once, and that task came to a good end.
func (r *restarts) assertTicks() {
	r.Helper()
	for _, wrong := range r.roster.wrong(r.made) {
		r.Error(wrong)
	}
}

func (r *restarts) figures() string {
	ticks, most := r.roster.count(r.made)
	return fmt.Sprintf("%d ticks of %d entries, each one task (most: %d); %d kills, %d rolling restarts, %d deaths of the queue Redis, %d switches; %s",
		ticks, len(r.roster.entries), most, r.kills, r.rolls, r.outages, r.flips, r.desks.figures())
}
