package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

// newNight is a shop in the middle of the night, with an r1 on standby and an r2 that is served.
func newNight(t *testing.T, posts int) (s *shop, worker *process) {
	t.Helper()
	s = newShopOf(t, posts, "STOKER_FRESHNESS_SAMPLE=1000")
	s.useCache(redistest.Start(t))
	worker = s.start("worker")
	for _, id := range []string{"r1", "r2"} {
		s.release(id)
	}
	return s, worker
}

// release takes a release all the way.
func (s *shop) release(id string) {
	s.Helper()
	s.must("release", "create", id)
	s.must("warm", id, "--wait")
	s.must("release", "activate", id, "--wait")
}

// serves fails unless the release is served, by what `stoker status` says.
func (g *guide) serves(id string) {
	g.Helper()
	if out := g.must("status"); !strings.Contains(out, " serves "+id+".") {
		g.Errorf("%q: status afterwards, want %s served:\n%s", g.title, id, out)
	}
}

// TestRunbooksOfANight follows the runbooks that one installation can be taken through, in each of which a fault
// is made first.
func TestRunbooksOfANight(t *testing.T) {
	t.Parallel()
	s, worker := newNight(t, 200)

	g := s.follow(runbooks, "", nil)
	g.mentions("docker compose run --rm worker …", "kubectl exec deploy/stoker-worker -- /stoker …")
	g.run("stoker status     # what is served, whether a rollback is safe, what waits")
	g.run("stoker health     # each check that is not ok comes with its remedy")
	g.over()

	g = s.follow(runbooks, "Roll back", map[string]string{"ID": "r2"})
	g.says(g.run("stoker status                                        # is a release on standby?"), `serves r2\. Safe to roll back: yes, flip to r1`)
	g.run(`stoker rollback --wait --reason "checkout is broken" # or --to ID`)
	g.run("stoker health")
	g.says(g.run("stoker status"), "serves r1")
	g.says(g.run("stoker release note ID"), "checkout is broken")
	g.over()
	s.must("rollback", "--to", "r2", "--wait")

	worker.end(syscall.SIGTERM)
	s.must("invalidate", "--tag", "post:post-00007", "--reason", "nobody applies it")
	g = s.follow(runbooks, "Pending invalidations grow", nil)
	g.says(g.run("stoker health", exitFailed), "FAIL +workers")
	worker = s.start("worker")
	redistest.Eventually(t, "the worker", func() bool { out, _ := s.sh("stoker health"); return strings.Contains(out, "OK       workers") })
	g.says(g.run("stoker invalidations"), "post:post-00007")
	redistest.Eventually(t, "nothing pending", func() bool { out, _ := s.sh("stoker status"); return strings.Contains(out, "0 invalidations pending") })
	g.says(g.run("stoker status"), "0 invalidations pending")
	g.over()

	s.stale("post-00042")
	g = s.follow(runbooks, "Entries are stale", map[string]string{"TAG": "post:post-00042"})
	g.says(g.run("stoker freshness", exitFailed), "tag post:post-00042")
	g.run(`stoker invalidate --tag TAG --reason "stale, see freshness"`)
	redistest.Eventually(t, "the invalidation", func() bool { out, _ := s.sh("stoker status"); return strings.Contains(out, "0 invalidations pending") })
	g.run("stoker freshness --now")
	g.over()

	s.must("pause", "warm")
	s.must("release", "create", "r3")
	s.must("warm", "r3")
	g = s.follow(runbooks, "Nothing happens", map[string]string{"LANE": "warm"})
	g.says(g.run("stoker status"), `(?m)^warm +1 .* yes$`)
	g.run("stoker resume LANE")
	g.mentions("stoker web")
	g.run("stoker health")
	g.says(g.run("stoker doctor"), `running: worker 1, scheduler 0(.|\n)*stoker scheduler`)
	redistest.Eventually(t, "the warm that waited", func() bool { return s.state("r3") == "ready" })
	g.over()

	s.givenUp("r3")
	g = s.follow(runbooks, "Tasks were given up", map[string]string{"ID": "r2"})
	g.run("stoker snapshot ID --wait")
	g.run("stoker drill --wait")
	g.over()

	g = s.follow(runbooks, "A health check fails", nil)
	g.says(g.run("stoker health"), `WARN +tasks\.archived`)
	g.says(g.run("stoker health --json"), `"tasks\.archived"`)
	g.over()
	s.deleteGivenUp()
	if out := s.must("health"); !strings.Contains(out, "no task was given up") {
		t.Errorf("after deleting what was given up:\n%s", out)
	}

	g = s.follow(runbooks, "Snapshots or drills are old", map[string]string{"ID": "r2"})
	right := s.env
	s.env = append(slices.Clip(right), "STOKER_DRILL_MAX_AGE=1ms", "STOKER_HEALTH_SNAPSHOT_AGE=1ms")
	if out, _, code := s.run("health"); code != exitFailed || !strings.Contains(out, "stoker drill") || !strings.Contains(out, "stoker snapshot ID") {
		t.Errorf("old snapshots and drills: exit code %d\n%s", code, out)
	}
	s.env = right
	g.says(g.run("stoker doctor"), `OK +snapshot\.store`)
	g.run("stoker snapshot ID --wait")
	g.run("stoker drill --wait")
	g.run("stoker status")
	g.over()
	if out := s.must("health"); !regexp.MustCompile(`OK +drill`).MatchString(out) {
		t.Errorf("afterwards:\n%s", out)
	}

	g = s.follow(installation, "Looking", map[string]string{"ID": "r2"})
	g.run("stoker status")
	g.run("stoker health")
	g.says(g.run("stoker doctor"), "OK +snapshot")
	g.run("stoker freshness")
	g.says(g.run("stoker release note ID"), "# Release r2")
	g.over()
	g = s.follow(installation, "Switching off", nil)
	g.run("stoker pause warm")
	g.says(s.must("status"), `(?m)^warm .* yes$`)
	g.run("stoker resume warm")
	g.over()
	worker.end(syscall.SIGTERM)
}

// stale has an edit that nobody announces, and lets the monitor make sure of it.
func (s *shop) stale(slug string) {
	s.Helper()
	if _, err := s.db.Exec("UPDATE posts SET version = version + 1 WHERE slug = ?", slug); err != nil {
		s.Fatal(err)
	}
	s.must("freshness", "--now")
	s.clock(time.Minute)
	s.must("freshness", "--now")
	s.clock(4 * time.Minute)
	if _, msg, code := s.run("freshness", "--now"); code != exitFailed {
		s.Fatalf("an edit that nobody announced: exit code %d, %s", code, msg)
	}
}

// givenUp has a task be given up: what asynq does with one that failed too often.
func (s *shop) givenUp(release string) {
	s.Helper()
	s.must("pause", "upkeep")
	id := field[string](s.T, s.must("snapshot", release, "--json"), "task")
	if err := asynq.NewInspectorFromRedisClient(s.queue).ArchiveTask(tasks.LaneUpkeep.Queue(s.app), id); err != nil {
		s.Fatal(err)
	}
	s.must("resume", "upkeep")
}

// deleteGivenUp deletes it in asynq's UI.
func (s *shop) deleteGivenUp() {
	s.Helper()
	web := s.start("web")
	r, err := http.NewRequest(http.MethodDelete, "http://"+s.listens(web)+"/queues/api/queues/site.upkeep/archived_tasks:delete_all", nil)
	if err != nil {
		s.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil || resp.StatusCode >= 300 {
		s.Fatalf("delete what was given up: %v, %v", resp, err)
	}
	_ = resp.Body.Close()
	web.end(syscall.SIGTERM)
}

// TestRunbookOfRefusals: each reason for which a rollback is refused is made, and the way out that the runbook
// gives for it works.
func TestRunbookOfRefusals(t *testing.T) {
	t.Parallel()
	s, worker := newNight(t, 200)
	g := s.follow(runbooks, "A rollback is refused", map[string]string{"ID": "r1"})
	g.says(g.run("stoker status"), "Safe to roll back: yes")
	refused := func(reason string, args ...string) {
		t.Helper()
		if out, msg, code := s.run(append([]string{"rollback", "--wait"}, args...)...); code != exitRefused || !regexp.MustCompile(reason).MatchString(msg) {
			t.Fatalf("rollback %v: exit code %d, want a refusal like %q\n%s%s", args, code, reason, out, msg)
		}
	}

	s.must("expire", "--release", "r1", "--no-snapshot", "--wait")
	refused("nothing|no release|no standby")
	g.words = map[string]string{"ID": "r3"}
	g.run("stoker release create ID && stoker warm ID --wait && stoker release activate ID --wait")
	g.run("stoker release pin ID")
	g.serves("r3")
	s.must("rollback", "--wait")
	g.serves("r2")

	s.must("release", "unpin", "r3")
	s.must("expire", "--release", "r3", "--wait")
	meta := tasks.KeysOf("site").LogMeta()
	epoch := s.queue.HGet(context.Background(), meta, "epoch").Val()
	s.queue.HSet(context.Background(), meta, "epoch", "another log")
	refused("fresh", "--to", "r3")
	g.words = map[string]string{"NEW": "r3-again"}
	g.run("stoker release create NEW && stoker warm NEW --wait && stoker release activate NEW --wait")
	g.serves("r3-again")
	s.queue.HSet(context.Background(), meta, "epoch", epoch)

	// A warm that died leaves its mark; the sweep of a worker closes it.
	worker.end(syscall.SIGTERM)
	orphan := tasks.KeysOf("site").Marks("r2")
	s.queue.ZAdd(context.Background(), orphan, redis.Z{Score: 1, Member: "warm:gone"})
	if out := s.must("status"); !strings.Contains(out, "Safe to roll back: no") {
		t.Errorf("with an unfinished writer on standby:\n%s", out)
	}
	s.start("worker")

	g.words = map[string]string{"ID": "r2"}
	ctx, used := context.Background(), int64(0)
	if _, err := fmt.Sscanf(field1(s.cache.Info(ctx, "memory").Val(), "used_memory"), "%d", &used); err != nil {
		t.Fatal(err)
	}
	s.cache.(*redis.Client).ConfigSet(ctx, "maxmemory", fmt.Sprint(used+4096))
	refused("room|memory", "--to", "r3")
	s.cache.(*redis.Client).ConfigSet(ctx, "maxmemory", "0")
	g.run("stoker expire --release ID --wait")
	redistest.Eventually(t, "a rollback that has looked at the memory anew", func() bool {
		_, _, code := s.run("rollback", "--to", "r3", "--wait")
		return code == exitDone
	})
	g.serves("r3")

	for i := range 30 { // several blocks of an archive
		blob := make([]byte, 100_000)
		_, _ = rand.Read(blob)
		s.cache.Set(ctx, fmt.Sprintf("site:r3-again:blob:%d", i), blob, time.Hour)
	}
	s.must("expire", "--release", "r3-again", "--wait")
	archives, err := filepath.Glob(filepath.Join(s.dir, "archives", "*r3-again*"))
	if err != nil || len(archives) != 1 {
		t.Fatalf("archives: %v, %v", archives, err)
	}
	raw, err := os.ReadFile(archives[0])
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/8] ^= 0x40 // among the entries, before the tag indexes
	if err := os.WriteFile(archives[0], raw, 0o600); err != nil {
		t.Fatal(err)
	}
	refused("damaged|checksum", "--to", "r3-again")
	g.words = map[string]string{"ID": "r3-again"}
	g.run("stoker rollback --to ID --salvage --wait")
	g.serves("r3-again")
	g.over()
}

// field1 returns a field of INFO.
func field1(info, name string) string {
	_, after, _ := strings.Cut(info, name+":")
	value, _, _ := strings.Cut(after, "\r\n")
	return value
}
