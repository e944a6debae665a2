package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
	"github.com/alphanode/stoker/worker/release"
)

// upgradeFromEnv is a revision of this repository, whose stoker is the old one.
const upgradeFromEnv = "STOKER_TEST_UPGRADE_FROM"

// A site is upgraded and taken back to the old stoker while it works: workers, scheduler and console of both run side
// by side. The new one is this code one version ahead in every format, so everything that it writes is news to the
// old one.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	ahead := build(t, ".", "-ldflags", "-X github.com/alphanode/stoker/tasks.next=1")
	u := newUpgrade(t, os.Args[0], ahead)
	u.together()
	u.backAgain()
	u.left()
	u.end()
}

// The same with the stoker of an earlier revision as the old one, and this one as the new one.
func TestUpgradeFromRevision(t *testing.T) {
	revision := os.Getenv(upgradeFromEnv)
	if revision == "" {
		t.Skipf("set %s to a revision (make upgrade)", upgradeFromEnv)
	}
	u := newUpgrade(t, build(t, checkout(t, revision)), os.Args[0])
	u.together()
	u.backAgain()
	u.end()
}

// build builds stoker from the module in a folder, with the race detector where this test has it: then the
// dependencies are built already.
func build(t *testing.T, dir string, args ...string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "stoker")
	args = append([]string{"build", "-o", bin}, args...)
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "github.com/alphanode/stoker/cmd/stoker")...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return bin
}

// checkout unpacks a revision of this repository.
func checkout(t *testing.T, revision string) string {
	t.Helper()
	dir := t.TempDir()
	archive := exec.Command("git", "archive", revision)
	archive.Dir = "../.." // of the whole repository
	raw, err := archive.Output()
	if err != nil {
		t.Skipf("revision %s is not here (a shallow clone?): %v", revision, err)
	}
	unpack := exec.Command("tar", "x", "-C", dir)
	unpack.Stdin = bytes.NewReader(raw)
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

// upgrade is a site that is taken from one stoker to another.
type upgrade struct {
	*press        // runs the old one's commands
	next   *press // runs the new one's
	desks  *desks
	close  func() // of the desks

	workers        []*process
	scheduler, web *process
}

// coldPosts make works on a namespace last.
const coldPosts = 2000

func newUpgrade(t *testing.T, old, next string) *upgrade {
	t.Helper()
	queue := durable(t)
	s := newPress(t, queue.Client, queue.URL, 0)
	s.install = s.install.with("STOKER_WATCH_FOR=0s", "STOKER_PACE=gentle", "STOKER_RETAIN_STANDBY=3")
	s.install.queue, s.bin = queue.Client, old
	_, err := s.paper.cache.Pipelined(context.Background(), func(p redis.Pipeliner) error {
		for i := range coldPosts {
			p.Set(context.Background(), fmt.Sprint("site:r1:cold:", i), strings.Repeat("x", 500), 0)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	other, in := *s, *s.install
	in.bin = next
	other.install = &in
	u := &upgrade{press: s, next: &other, desks: newDesks(s, 40*time.Millisecond)}
	u.workers = []*process{s.start("worker"), s.start("worker")}
	u.scheduler, u.web = s.start("scheduler"), s.start("web")
	u.archive()
	u.close = u.desks.open()
	return u
}

// replace stops a process in good order and starts one of another stoker in its place.
func (u *upgrade) replace(p **process, s *press, command string) {
	u.Helper()
	(*p).end(syscall.SIGTERM)
	*p = s.start(command)
	started := map[string]string{"worker": "worker started", "scheduler": "scheduler started", "web": "console listens"}[command]
	q := *p
	redistest.Eventually(u.T, "a "+command+" to start", func() bool { return strings.Contains(q.text(), started) })
}

// everybody is replaced, workers first.
func (u *upgrade) everybody(s *press) {
	u.Helper()
	for i := range u.workers {
		u.replace(&u.workers[i], s, "worker")
	}
	u.replace(&u.scheduler, s, "scheduler")
	u.replace(&u.web, s, "web")
}

// together upgrades in the middle of work: what the old ones began the new ones end, and each does what the other's
// commands ask for.
func (u *upgrade) together() {
	u.Helper()
	u.write("carry.yaml", carryPlan)
	u.must("release", "create", "c1", "--no-git")
	u.must("warm", "c1", "--plan", "carry.yaml")
	u.must("snapshot", "r1")
	u.replace(&u.workers[0], u.next, "worker")
	for _, s := range []*press{u.next, u.press} { // one worker of each
		u.must("invalidate", "--key", "cold:0", "--wait")
		s.must("invalidate", "--key", "cold:1", "--wait")
		s.must("snapshot", "r1", "--wait")
		s.must("rollback", "--wait")
	}
	u.everybody(u.next)
	u.awaitState("c1", release.Ready)
	u.next.must("release", "activate", "c1", "--wait")
	u.next.must("rollback", "--to", "r0", "--wait") // from the old one's archive
	u.next.must("rollback", "--to", "r1", "--wait")
	u.next.must("expire", "--release", "c1", "--wait")
	u.next.must("health")
	u.desks.progress(editingDesks)
}

// backAgain takes the upgrade back, in the middle of work as well.
func (u *upgrade) backAgain() {
	u.Helper()
	u.next.must("snapshot", "r1", "--wait")
	u.must("snapshot", "r2")
	u.everybody(u.press)
	u.must("rollback", "--to", "r2", "--wait")
	u.must("rollback", "--to", "r1", "--wait")
	u.must("status")
	u.desks.progress(editingDesks)
}

// left asks the old ones for what only new ones can do: it is left, with a clear word, and done when one comes.
func (u *upgrade) left() {
	u.Helper()
	ctx := context.Background()
	active := u.queue.Get(ctx, tasks.KeysOf("site").Active()).Val()
	rollback := field[string](u.T, u.next.must("rollback", "--to", "r2", "--json"), "task")
	snapshot := field[string](u.T, u.next.must("snapshot", "r2", "--json"), "task")
	drill := field[string](u.T, u.must("drill", "c1", "--json"), "task") // with a new one's archive
	waiting := []struct {
		lane           tasks.Lane
		id, seen, read string
	}{
		{tasks.LaneRelease, rollback, "payload of version 2", "up to version 1"},
		{tasks.LaneUpkeep, snapshot, "payload of version 2", "up to version 1"},
		{tasks.LaneUpkeep, drill, "archive of version 3", "up to version 2"},
	}
	if err := u.paper.cache.Set(ctx, "site:r1:cold:2", "stale", 0).Err(); err != nil {
		u.Fatal(err)
	}
	u.next.must("invalidate", "--key", "cold:2")
	for _, w := range waiting {
		redistest.Eventually(u.T, "task "+w.id+" to be left", func() bool {
			text := u.task(w.lane, w.id).LastErr
			return strings.Contains(text, w.seen) && strings.Contains(text, w.read) && strings.Contains(text, "upgrade this worker")
		})
	}
	redistest.Eventually(u.T, "the invalidation to be left", func() bool {
		return strings.Contains(u.workers[0].text()+u.workers[1].text(), "invalidations left for a newer worker")
	})
	u.desks.progress(editingDesks) // which is in nobody's way
	if now := u.queue.Get(ctx, tasks.KeysOf("site").Active()).Val(); now != active {
		u.Errorf("%s is active after a rollback that nobody here can read, %s was", now, active)
	}
	for _, w := range waiting {
		if info := u.task(w.lane, w.id); info.Retried != 0 || info.State == asynq.TaskStateArchived || info.State == asynq.TaskStateCompleted {
			u.Errorf("task %s was left as %v, %d retries spent", w.id, info.State, info.Retried)
		}
	}
	u.awaitState("c1", release.Archived)
	if out, msg, code := u.run("release", "show", "n1"); code != exitBadInput {
		u.Errorf("n1 is here already: exit code %d, %s%s", code, out, msg)
	}
	u.next.must("release", "create", "n1", "--no-git")
	if _, msg, code := u.run("release", "show", "n1"); code != exitRefused || !strings.Contains(msg, "upgrade this worker") {
		u.Errorf("a newer record: exit code %d, %s", code, msg)
	}

	newer := u.next.start("worker")
	for _, w := range waiting {
		u.awaitTask(w.lane, w.id)
	}
	redistest.Eventually(u.T, "the invalidation to be applied", func() bool {
		return errors.Is(u.paper.cache.Get(ctx, "site:r1:cold:2").Err(), redis.Nil)
	})
	if now := u.queue.Get(ctx, tasks.KeysOf("site").Active()).Val(); now != "r2" {
		u.Errorf("%s is active, want r2", now)
	}
	u.workers = append(u.workers, newer)
}

// end checks that nothing was lost and nothing is stale.
func (u *upgrade) end() {
	u.Helper()
	u.close()
	inspector := asynq.NewInspectorFromRedisClient(u.queue)
	for _, lane := range tasks.Lanes() {
		given, _ := inspector.ListArchivedTasks(lane.Queue("site"))
		for _, t := range given {
			u.Errorf("lane %s: task %s was given up: %s", lane, t.ID, t.LastErr)
		}
	}
	u.assertFresh("r0", "r1", "r2", "c1")
	u.Log(u.desks.figures())
}

func (u *upgrade) task(lane tasks.Lane, id string) *asynq.TaskInfo {
	u.Helper()
	info, err := asynq.NewInspectorFromRedisClient(u.queue).GetTaskInfo(lane.Queue("site"), id)
	if err != nil {
		u.Fatalf("task %s is lost: %v", id, err)
	}
	return info
}

func (u *upgrade) awaitState(id string, want release.State) {
	u.Helper()
	redistest.Eventually(u.T, id+" to be "+string(want), func() bool {
		return u.queue.HGet(context.Background(), tasks.KeysOf("site").Release(id), "state").Val() == string(want)
	})
}

// progress waits until n more edits have taken effect.
func (d *desks) progress(n int) {
	d.s.Helper()
	count := func() int { d.mu.Lock(); defer d.mu.Unlock(); return d.edits }
	from := count()
	redistest.Eventually(d.s.T, "editors to get on", func() bool { return count() >= from+n })
}
