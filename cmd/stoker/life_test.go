package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"
	_ "modernc.org/sqlite"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

// posts is how many entries the life's site has: enough that a kill finds work under way.
const posts = 10_000

// shop is an installation with a database of posts and a plan that warms them.
type shop struct {
	*install
	db     *sql.DB
	plan   string // its file
	cache  redis.UniversalClient
	tmpl   tasks.Template
	latest *process // the worker started last by killWhen
}

func newShop(t *testing.T, env ...string) *shop { t.Helper(); return newShopOf(t, posts, env...) }

// newShopOf is a shop with so many posts.
func newShopOf(t *testing.T, posts int, env ...string) *shop {
	t.Helper()
	dir := t.TempDir()
	dsn := "file:" + filepath.Join(dir, "site.db")
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	for _, statement := range []string{
		"PRAGMA journal_mode = WAL",
		"CREATE TABLE posts (slug TEXT PRIMARY KEY, version INTEGER, body TEXT)",
		fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < %d) INSERT INTO posts SELECT printf('post-%%05d', i), 1, hex(randomblob(100)) FROM n", posts-1),
	} {
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	plan := filepath.Join(dir, "stoker.yaml")
	text := `version: 1
sources:
  - name: posts
    query: {driver: sqlite, dsn_env: SITE_DSN, sql: "SELECT slug, version, body FROM posts", page: {by: slug, size: 200}}
    entry: {key: "post:{{.slug}}", value: json, ttl: 24h, jitter: 10%, tags: ["post:{{.slug}}"]}
`
	if err := os.WriteFile(plan, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &shop{install: newInstall(t, append(env, "SITE_DSN="+dsn, "STOKER_PLAN="+plan)...), db: db, plan: plan}
	s.cache = s.redis.Client
	s.tmpl, err = tasks.ParseTemplate(tasks.DefaultTemplate, s.app)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// edit changes posts in the database and invalidates them, as the site would.
func (s *shop) edit(from, n int) {
	s.Helper()
	for i := from; i < from+n; i += 50 {
		args := []string{"invalidate", "--wait", "--reason", "edited"}
		for j := i; j < min(i+50, from+n); j++ {
			slug := fmt.Sprintf("post-%05d", j)
			if _, err := s.db.Exec("UPDATE posts SET version = version + 1 WHERE slug = ?", slug); err != nil {
				s.Fatal(err)
			}
			args = append(args, "--tag", "post:"+slug)
		}
		s.must(args...)
	}
}

// assertFresh compares every entry of a release with the database and returns how many there are.
func (s *shop) assertFresh(release string) int {
	s.Helper()
	versions := s.versions()
	ctx := context.Background()
	entries := s.list(release, "post:")
	for keys := range slices.Chunk(slices.Collect(maps.Keys(entries)), 1000) {
		values, lives := make([]*redis.StringCmd, len(keys)), make([]*redis.DurationCmd, len(keys))
		_, err := s.cache.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, key := range keys {
				values[i], lives[i] = p.Get(ctx, key), p.PTTL(ctx, key)
			}
			return nil
		})
		if err != nil {
			s.Fatal(err)
		}
		for i := range keys {
			var got struct {
				Slug    string `json:"slug"`
				Version int    `json:"version"`
			}
			if err := json.Unmarshal([]byte(values[i].Val()), &got); err != nil {
				s.Fatal(err)
			}
			if got.Version != versions[got.Slug] {
				s.Errorf("release %s: %s is at version %d, the database at %d: stale", release, got.Slug, got.Version, versions[got.Slug])
			}
			if ttl := lives[i].Val(); ttl <= 0 {
				s.Errorf("release %s: %s expires in %v", release, got.Slug, ttl)
			}
		}
	}
	return len(entries)
}

// versions returns the version of each post in the database.
func (s *shop) versions() map[string]int {
	s.Helper()
	rows, err := s.db.Query("SELECT slug, version FROM posts")
	if err != nil {
		s.Fatal(err)
	}
	defer rows.Close()
	versions := map[string]int{}
	for rows.Next() {
		var slug string
		var version int
		if err := rows.Scan(&slug, &version); err != nil {
			s.Fatal(err)
		}
		versions[slug] = version
	}
	return versions
}

// list returns the keys of a release under a logical prefix.
func (s *shop) list(release, prefix string) map[string]bool {
	s.Helper()
	ctx := context.Background()
	found := map[string]bool{}
	servers, err := tasks.Primaries(ctx, s.cache)
	if err != nil {
		s.Fatal(err)
	}
	for _, server := range servers {
		it := server.Scan(ctx, 0, s.tmpl.Match(release, prefix), 1000).Iterator()
		for it.Next(ctx) {
			found[it.Val()] = true
		}
		if it.Err() != nil {
			s.Fatal(it.Err())
		}
	}
	return found
}

func (s *shop) keys(release string) int { return len(s.list(release, "")) }

func (s *shop) state(release string) string {
	s.Helper()
	return field[string](s.T, s.must("release", "show", release, "--json"), "state")
}

// Three processes, driven by the command line alone, take a site through the whole life.
func TestLife(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.start("worker")
	s.start("scheduler")
	s.start("web")

	s.must("release", "create", "r1", "--owner", "ann", "--why", "the first")
	s.must("warm", "r1", "--wait")
	s.must("release", "activate", "r1", "--wait")
	if n := s.assertFresh("r1"); n != posts {
		t.Fatalf("r1 has %d entries after its warm, want %d", n, posts)
	}

	s.must("release", "create", "r2", "--why", "new templates")
	if out, _, code := s.run("warm", "r2", "--sample", "5%", "--wait"); code != exitInconclusive {
		t.Errorf("a sampled warm: exit code %d, want %d\n%s", code, exitInconclusive, out)
	}
	if n := s.keys("r2"); n == 0 || n > posts/4 {
		t.Errorf("a sample of 5%% made %d keys of %d", n, posts)
	}
	if _, msg, code := s.run("release", "activate", "r2"); code != exitRefused {
		t.Errorf("activating what is not ready: exit code %d, %s", code, msg)
	}
	s.must("warm", "r2", "--wait")
	s.must("release", "activate", "r2", "--wait")
	s.edit(0, 500)
	for _, id := range []string{"r1", "r2"} {
		if n := s.assertFresh(id); n != posts-500 {
			t.Errorf("%s has %d entries after 500 edits, want %d", id, n, posts-500)
		}
	}

	s.must("rollback", "--wait", "--reason", "tag pages are slow")
	if got := s.state("r1"); got != "active" {
		t.Fatalf("after the rollback r1 is %s", got)
	}
	s.must("rollback", "--to", "r2", "--wait")
	s.must("expire", "--release", "r1", "--wait")
	if got, n := s.state("r1"), s.keys("r1"); got != "archived" || n != 0 {
		t.Fatalf("after its expiry r1 is %s with %d keys", got, n)
	}
	s.edit(1000, 500)
	out := s.must("rollback", "--to", "r1", "--wait", "--json")
	if via := field[string](t, out, "via"); via != "archive" || field[int64](t, out, "fresh_as_of") == 0 {
		t.Errorf("rolled back: %s", out)
	}
	if n := s.assertFresh("r1"); n != posts-1000 {
		t.Errorf("r1 has %d entries after its restore and 1,000 edits, want %d", n, posts-1000)
	}
	note := s.must("release", "note", "r2")
	for _, want := range []string{"# Release r2", "new templates", "stoker rollback --to r1"} {
		if !strings.Contains(note, want) {
			t.Errorf("the note of r2 lacks %q:\n%s", want, note)
		}
	}
	if out := s.must("status", "--json"); field[string](t, out, "active") != "r1" || !field[bool](t, out, "rollback_safe") {
		t.Errorf("status: %s", out)
	}
}

// Killed in the middle of a warm, an expiry and a restore, another worker goes on and ends right.
func TestKilledInTheMiddle(t *testing.T) {
	t.Parallel()
	s := newShop(t, "STOKER_PACE=gentle")
	worker := s.start("worker")
	s.must("release", "create", "r1")
	s.must("warm", "r1", "--wait")
	s.must("release", "activate", "r1", "--wait")
	s.must("release", "create", "r2")

	run := field[string](t, s.must("warm", "r2", "--json"), "run")
	worker = s.killWhen(worker, "the warm is under way", func() bool { n := s.keys("r2"); return n > 500 })
	s.edit(0, 200) // while nobody is there to warm, but the new worker invalidates
	redistest.Eventually(t, "the warm to end", func() bool { return s.state("r2") == "ready" })
	if n := s.assertFresh("r2"); n < posts-200 {
		t.Errorf("run %s: r2 has %d entries, want at least %d", run, n, posts-200)
	}
	s.must("release", "activate", "r2", "--wait")

	id := field[string](t, s.must("expire", "--release", "r1", "--json"), "task")
	full := s.keys("r1")
	s.killWhen(worker, "the expiry is deleting", func() bool { n := s.keys("r1"); return n < full-500 && n > 0 })
	s.awaitTask(tasks.LaneUpkeep, id)
	if got, n := s.state("r1"), s.keys("r1"); got != "archived" || n != 0 {
		t.Fatalf("after its expiry r1 is %s with %d keys", got, n)
	}
	if n := s.assertFresh("r2"); n < posts-200 {
		t.Errorf("the expiry of r1 left %d entries of r2", n)
	}

	s.edit(500, 200)
	worker = s.latest
	id = field[string](t, s.must("rollback", "--to", "r1", "--json"), "task")
	s.killWhen(worker, "the restore is writing", func() bool { n := s.keys("r1"); return n > 500 })
	s.edit(800, 200)
	s.awaitTask(tasks.LaneRelease, id)
	if got := s.state("r1"); got != "active" {
		t.Errorf("after the rollback r1 is %s", got)
	}
	if n := s.assertFresh("r1"); n < posts-800 || n > posts-400 {
		t.Errorf("r1 has %d entries after its restore", n)
	}
}

// killWhen kills a worker with SIGKILL once it is in the middle of something, ends its leases,
// and starts another.
func (s *shop) killWhen(worker *process, what string, middle func() bool) *process {
	s.Helper()
	redistest.Eventually(s.T, what, middle)
	worker.end(syscall.SIGKILL)
	s.endLeases()
	s.latest = s.start("worker")
	return s.latest
}
