package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/health/freshness"
)

const twentyPosts = `version: 1
sources:
  - name: posts
    query: {driver: sqlite, dsn_env: SITE_DSN, sql: "SELECT slug, version FROM posts"}
    entry: {key: "post:{{.slug}}", value: json, ttl: 24h, tags: ["post:{{.slug}}", "posts"]}
`

// clock turns back the times of all suspects, so that the looks that confirm them are due.
func (in *install) clock(back time.Duration) {
	in.Helper()
	key := tasks.KeysOf("site").Suspects()
	for field, text := range in.redis.Client.HGetAll(context.Background(), key).Val() {
		var s freshness.Suspect
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			in.Fatal(err)
		}
		s.Since, s.At = s.Since.Add(-back), s.At.Add(-back)
		turned, err := json.Marshal(s)
		if err != nil {
			in.Fatal(err)
		}
		if err := in.redis.Client.HSet(context.Background(), key, field, turned).Err(); err != nil {
			in.Fatal(err)
		}
	}
}

// look has the worker look and returns the row of r1.
func (in *install) look(code int) freshness.Result {
	in.Helper()
	out, msg, got := in.run("freshness", "--now", "--json")
	if got != code {
		in.Fatalf("stoker freshness: exit code %d, want %d\n%s%s", got, code, out, msg)
	}
	var r freshness.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.Places) != 1 {
		in.Fatalf("%v: %s", err, out)
	}
	return r.Places[0]
}

// A stale entry in a cache that a plan's query can be held against: found, confirmed, shown by every
// command that looks, and gone with the invalidation that is advised.
func TestFreshness(t *testing.T) {
	t.Parallel()
	dsn := "file:" + filepath.Join(t.TempDir(), "site.db")
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("CREATE TABLE posts AS WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 19) SELECT printf('p%d', i) AS slug, 1 AS version FROM n"); err != nil {
		t.Fatal(err)
	}
	in := newInstall(t, "SITE_DSN="+dsn, "STOKER_PLAN=plan.yaml")
	in.write("plan.yaml", twentyPosts)
	in.start("worker")
	if _, msg, code := in.run("freshness"); code == exitDone || !strings.Contains(msg, "stoker freshness --now") {
		t.Errorf("before the first look: exit code %d, %s", code, msg)
	}
	in.must("release", "create", "r1")
	in.must("warm", "r1", "--wait")
	in.must("release", "activate", "r1", "--wait")
	if err := in.redis.Client.Set(context.Background(), "site:r1:visits", "7", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if n := in.look(exitDone); n.Compared != 20 || n.NotComparable != 1 || n.Suspects+n.Stale != 0 {
		t.Fatalf("fresh: %+v", n)
	}

	if _, err := db.Exec("UPDATE posts SET version = 2 WHERE slug = 'p7'"); err != nil { // and nobody announces it
		t.Fatal(err)
	}
	if n := in.look(exitDone); n.Suspects != 1 || n.Stale != 0 {
		t.Fatalf("at first: %+v", n)
	}
	in.clock(time.Minute)
	if n := in.look(exitDone); n.Suspects != 1 || n.Stale != 0 {
		t.Fatalf("after a minute: %+v", n)
	}
	in.clock(4 * time.Minute)
	n := in.look(exitFailed)
	if n.Stale != 1 || len(n.Entries) != 1 || n.Entries[0].Key != "post:p7" || n.Tag == nil || n.Tag.Name != "post:p7" {
		t.Fatalf("after five minutes: %+v", n)
	}
	if out, _, code := in.run("freshness"); code != exitFailed || !strings.Contains(out, "tag post:p7") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	if out, msg, code := in.run("health"); code != exitFailed || !strings.Contains(msg, "freshness") || !strings.Contains(out, "tag post:p7 (r1)") {
		t.Errorf("health: exit code %d, %s\n%s", code, msg, out)
	}
	in.must("invalidate", "--tag", "post:p7", "--wait", "--reason", "the monitor says so")
	if n := in.look(exitDone); n.Suspects+n.Stale != 0 || n.Day.Stale != 1 {
		t.Errorf("repaired: %+v", n)
	}
	if out := in.must("health"); !strings.Contains(out, "nothing stale") {
		t.Errorf("health:\n%s", out)
	}
}
