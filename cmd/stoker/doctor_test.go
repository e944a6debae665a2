package main

import (
	"os"
	"strings"
	"testing"

	"github.com/alphanode/stoker/worker/health"
	"github.com/alphanode/stoker/worker/redistest"
)

// TestDoctorOfAll makes each thing wrong that the doctor looks at, on real servers and processes; sound, it
// has nothing to say.
func TestDoctorOfAll(t *testing.T) {
	t.Parallel()
	c := newClinic(t)
	sound := func() {
		t.Helper()
		checks, code := c.doctor()
		for name, check := range checks {
			if check.Status != health.OK {
				t.Errorf("%s of a sound installation: %s: %s → %s", name, check.Status, check.Detail, check.Remedy)
			}
		}
		if code != exitDone {
			t.Errorf("exit code %d", code)
		}
	}
	sound()

	for _, row := range []struct {
		check  string // of both Redises
		want   health.Status
		remedy string
		url    func(*redistest.Server) string
	}{
		{"answers", health.Fail, "check that it runs", func(*redistest.Server) string { return "redis://127.0.0.1:1" }},
		{"transport", health.Warn, "rediss://", as("stoker")},
		{"user", health.Fail, "users.acl", as("")},
		{"rights", health.Warn, "ACL SETUSER wide", as("wide")},
		{"rights", health.Fail, "users.acl", as("narrow")},
		{"version", health.Fail, "7.0 or later", func(s *redistest.Server) string { return c.lying(s, older) }},
		{"clock", health.Warn, "NTP", func(s *redistest.Server) string { return c.lying(s, earlier) }},
	} {
		c.wrong(map[string]symptom{"queue." + row.check: {row.want, row.remedy}, "cache." + row.check: {row.want, row.remedy}},
			"STOKER_REDIS_URL="+row.url(c.redis), "STOKER_CACHE_URL="+row.url(c.store))
	}
	c.wrong(map[string]symptom{"queue.answers": {health.Warn, "SLOWLOG GET"}, "cache.answers": {health.Warn, "SLOWLOG GET"}}, "STOKER_HEALTH_ROUND_TRIP=1ns")
	checks, _ := c.doctor("STOKER_REDIS_URL=" + as("stoker")(c.redis))
	for _, name := range []string{"queue.user", "queue.rights"} {
		if got := checks[name]; got.Status != health.OK {
			t.Errorf("%s of deploy/users.acl's user: %s: %s", name, got.Status, got.Detail)
		}
	}

	for _, row := range []struct {
		who      *redistest.Server
		config   map[string]string
		symptoms map[string]symptom
	}{
		{c.redis, map[string]string{"maxmemory-policy": "volatile-lru", "appendonly": "no"}, map[string]symptom{
			"queue.policy": {health.Fail, "noeviction"}, "queue.persistence": {health.Warn, "appendonly yes"},
		}},
		{c.store, map[string]string{"maxmemory-policy": "allkeys-lru", "save": "60 1"}, map[string]symptom{
			"cache.tags": {health.Fail, "volatile-lfu"}, "cache.persistence": {health.Warn, "save \"\""},
		}},
		{c.store, map[string]string{"maxmemory": "1mb"}, map[string]symptom{"cache.two_releases": {health.Warn, "raise .*maxmemory"}}},
	} {
		back := c.config(row.who, row.config)
		c.wrong(row.symptoms)
		back()
	}

	const dsn = "postgres://ann:secret@127.0.0.1:1/site"
	plan := "STOKER_PLAN=" + c.file("postgres.yaml", "version: 1\nsources:\n  - name: posts\n    query: {driver: postgres, dsn_env: OTHER_DSN, sql: \"SELECT 1\"}\n    entry: {key: \"a\", value: json, ttl: 1h}\n")
	for _, env := range []string{"STOKER_REDIS_URL=" + as("stoker")(c.redis), "AWS_SECRET_ACCESS_KEY=secret", "OTHER_DSN=" + dsn} {
		c.wrong(map[string]symptom{"secrets.environment": {health.Warn, "_FILE.*AWS_SHARED_CREDENTIALS_FILE"}}, plan, env)
	}
	open := c.file("open", dsn)
	for mode, want := range map[os.FileMode]health.Status{0o644: health.Warn, 0o660: health.Fail} {
		if err := os.Chmod(open, mode); err != nil {
			t.Fatal(err)
		}
		c.wrong(map[string]symptom{"secrets.files": {want, "chmod 600"}}, plan, "OTHER_DSN_FILE="+open)
	}
	c.wrong(map[string]symptom{
		"secrets.files": {health.Fail, "correct the path"}, "settings": {health.Warn, "stoker config"},
		"key.template": {health.Fail, "set STOKER_KEY_TEMPLATE back"}, "snapshot.store": {health.Fail, "STOKER_SNAPSHOT_URL"},
		"drill": {health.Fail, "stoker drill"}, "schedule.file": {health.Fail, "STOKER_SCHEDULE"}, "plan.file": {health.Fail, "STOKER_PLAN"},
	}, "AWS_SHARED_CREDENTIALS_FILE="+open+".gone", "STOKER_REDIS_URI=redis://127.0.0.1", "STOKER_KEY_TEMPLATE=<app>/<release>/<key>", "STOKER_SNAPSHOT_URL=file:///proc/archives",
		"STOKER_DRILL_MAX_AGE=1ms", "STOKER_SCHEDULE="+c.file("broken.yaml", "entries: 3\n"), "STOKER_PLAN="+c.file("broken.plan", "version: 9\n"))

	c.consoles()
	c.running()
	sound()

	checks, _ = c.doctor()
	for name := range checks {
		if !c.broken[name] && name != "web.address" { // an open address is refused by every command, the doctor's too
			t.Errorf("%s was never seen to warn or fail", name)
		}
	}
	if _, msg, code := c.with("STOKER_WEB_ADDR=0.0.0.0:8080").run("doctor"); code != exitBadInput || !strings.Contains(msg, "STOKER_WEB_TOKENS_FILE") {
		t.Errorf("an open console: exit code %d, %s", code, msg)
	}
}
