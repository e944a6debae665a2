package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/worker/redistest"
)

// tokenLine is a line of the console's tokens file.
func tokenLine(name, scope, token string) string {
	return fmt.Sprintf("%s %s sha256:%x\n", name, scope, sha256.Sum256([]byte(token)))
}

// TestRunbookOfTheConsole: with no console, and then with one whose queue Redis is away.
func TestRunbookOfTheConsole(t *testing.T) {
	t.Parallel()
	s, _ := newNight(t, 200)
	s.env = append(s.env, "STOKER_WEB_TOKENS_FILE="+s.file("tokens", tokenLine("ann", "view", "a-token")))
	words := map[string]string{"NAME:TOKEN": "ann:a-token", "127.0.0.1:8080": "127.0.0.1:1"}
	g := s.follow(runbooks, "The console does not answer", words)
	const refused = 7 // curl's code for a connection that nobody takes
	g.run("curl http://127.0.0.1:8080/healthz", refused)
	g.says(g.run("stoker status"), "serves r2")
	g.run("stoker rollback --wait")
	g.serves("r1")

	addr := s.listens(s.start("web"))
	words["127.0.0.1:8080"] = addr
	for path, want := range map[string]string{"healthz": "200", "readyz": "200"} {
		if out, _ := s.sh("curl -s -o /dev/null -w '%{http_code}' http://" + addr + "/" + path); out != want {
			t.Errorf("/%s: %s", path, out)
		}
	}
	s.redis.Kill()
	if out, _ := s.sh("curl -s http://" + addr + "/readyz"); !strings.Contains(out, "queue") {
		t.Errorf("/readyz without a queue Redis: %s", out)
	}
	g.says(g.run("curl --user NAME:TOKEN http://127.0.0.1:8080/metrics"), "(?m)^# TYPE ")
	g.over()
}

// TestRunbookOfWorkHeldBack: a snapshot waits for a rollback that no worker takes.
func TestRunbookOfWorkHeldBack(t *testing.T) {
	t.Parallel()
	s, worker := newNight(t, 200)
	worker.end(syscall.SIGTERM)
	ctx := context.Background()
	_, err := s.cache.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range 30_000 {
			p.Set(ctx, fmt.Sprintf("site:r2:block:%d", i), strings.Repeat("x", 200), time.Hour)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	lame := s.with("STOKER_LANES=invalidate,bulk,warm,refresh,upkeep,health,notify").start("worker")
	s.must("rollback", "--to", "r1")
	s.must("snapshot", "r2", "--pace", "gentle")
	redistest.Eventually(t, "a brake", func() bool { return strings.Contains(s.must("status"), "slowed down") })

	u, _ := url.Parse(s.env[len(s.env)-1][len("STOKER_CACHE_URL="):])
	g := s.follow(runbooks, "Work is held back", map[string]string{"redis-cli": "redis-cli -u " + u.String(), "ID": "r1"})
	g.says(g.run("stoker status"), "slowed down .*: invalidations or releases wait")
	g.run("redis-cli --latency")
	g.run("redis-cli SLOWLOG GET")
	g.run("stoker expire --dry-run")
	lame.end(syscall.SIGTERM)
	s.start("worker")
	redistest.Eventually(t, "the rollback", func() bool { return s.state("r1") == "active" })
	g.run("stoker snapshot ID --pace full --wait")
	redistest.Eventually(t, "no brake", func() bool { return !strings.Contains(s.must("status"), "slowed down") })
	g.says(g.run("stoker status"), "serves r1")
	g.over()
}

// TestRunbookOfKeys changes a token, a Redis password and the snapshots' key while the installation runs.
func TestRunbookOfKeys(t *testing.T) {
	t.Parallel()
	s := newShopOf(t, 200)
	queue := *s.redis
	s.useCache(redistest.Start(t))
	ctx := context.Background()
	rules := "~stoker:{site}:* ~asynq:* &stoker:{site}:* &asynq:* +@read +@write +@pubsub +@transaction +@connection +eval +evalsha +script|load +script|exists +time -@dangerous +info +config|get"
	words := []any{"ACL", "SETUSER", "stoker", "on", ">first"}
	for _, word := range strings.Fields(rules) {
		words = append(words, word)
	}
	if err := queue.Client.Do(ctx, words...).Err(); err != nil {
		t.Fatal(err)
	}
	u, _ := url.Parse(queue.URL)
	secret := func(password string) {
		u.User = url.UserPassword("stoker", password)
		s.file("queue_url", u.String())
	}
	secret("first")
	identity := func() string {
		i, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		return i.String() + "\n"
	}
	first := identity()
	ann, ben := tokenLine("ann", "view", "first-token"), tokenLine("ben", "view", "second-token")
	s.env = append(s.env, "STOKER_REDIS_URL=", "STOKER_REDIS_URL_FILE="+s.file("queue_url", u.String()),
		"STOKER_SNAPSHOT_KEY_FILE="+s.file("keys", first), "STOKER_WEB_TOKENS_FILE="+s.file("tokens", ann))
	worker := s.start("worker")
	s.release("r1")
	s.release("r2")
	s.must("snapshot", "r1", "--wait")

	admitted := func(tokens string, want map[string]bool) {
		t.Helper()
		s.file("tokens", tokens)
		web := s.start("web")
		addr := s.listens(web)
		for token, ok := range want {
			out, _ := s.sh("curl -s -o /dev/null -w '%{http_code}' -H 'Authorization: Bearer " + token + "' http://" + addr + "/metrics")
			if (out == "200") != ok {
				t.Errorf("%s: status %s, want admitted: %v", token, out, ok)
			}
		}
		web.end(syscall.SIGTERM)
	}
	g := s.follow(runbooks, "Change keys and passwords", map[string]string{"redis-cli": "redis-cli -u " + queue.URL, "NEW": "second", "OLD": "first"})
	g.mentions("stoker web")
	admitted(ann+ben, map[string]bool{"first-token": true, "second-token": true})
	admitted(ben, map[string]bool{"first-token": false, "second-token": true})

	g.run("redis-cli ACL SETUSER stoker '>NEW'")
	s.must("status") // by the old one, still
	secret("second")
	worker.end(syscall.SIGTERM)
	worker = s.start("worker")
	g.run("redis-cli ACL SETUSER stoker '<OLD'")
	s.edit(0, 20)
	secret("first")
	if out, msg, code := s.run("status"); code != exitFailed || !strings.Contains(msg, "WRONGPASS") {
		t.Errorf("by the old password: exit code %d, %s%s", code, out, msg)
	}
	secret("second")

	s.file("keys", identity()+first)
	worker.end(syscall.SIGTERM)
	s.start("worker")
	s.must("snapshot", "r2", "--wait")
	s.must("drill", "r1", "--wait") // an archive for the old key
	g.says(g.run("stoker snapshot list"), "r1(.|\n)*r2|r2(.|\n)*r1")
	g.mentions("stoker web")
	doctor := g.run("stoker doctor")
	g.says(doctor, `OK +secrets\.environment`)
	g.says(doctor, `OK +secrets\.files`)
	g.says(doctor, `OK +queue\.rights`)
	g.over()
}

// TestRunbookOfUpgrade replaces every process by one of a newer version, workers first, while edits go on.
func TestRunbookOfUpgrade(t *testing.T) {
	t.Parallel()
	s, old := newNight(t, 200)
	old.end(syscall.SIGTERM)
	before, after := s.with(asVersion+"=v1"), s.with(asVersion+"=v2")
	var running []*process
	for _, role := range []string{"worker", "scheduler", "web"} {
		running = append(running, before.start(role))
	}
	redistest.Eventually(t, "all of version 1", func() bool {
		out, _, _ := after.run("doctor")
		return strings.Contains(out, "running: worker 1, scheduler 1, web 1")
	})
	g := after.follow(runbooks, "Upgrade", map[string]string{"ID": "r2"})
	g.says(g.run("stoker doctor"), `all run v1 with asynq .*; this is v2`)
	g.run("stoker snapshot ID --wait")
	for i, role := range []string{"worker", "scheduler", "web"} {
		after.start(role)
		s.edit(20*i, 10)
		running[i].end(syscall.SIGTERM)
		s.edit(20*i+10, 10)
	}
	redistest.Eventually(t, "all of version 2", func() bool {
		out, _, _ := after.run("doctor")
		return strings.Contains(out, "all run v2 with asynq")
	})
	g.run("stoker health")
	g.says(g.run("stoker status"), "serves r2")
	// The way back itself is held by the tests of upgrades; here its commands are carried out.
	g.run("stoker status")
	g.run("stoker status")
	g.run("stoker release list")
	g.run("stoker health")
	g.over()
	for _, id := range []string{"r1", "r2"} {
		if n := s.assertFresh(id); n != 140 {
			t.Errorf("%s has %d entries after 60 edits, want 140", id, n)
		}
	}
}
