package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
	"github.com/alphanode/stoker/worker/release"
)

// with is the installation with other variables.
func (in *install) with(env ...string) *install {
	other := *in
	other.env = append(slices.Clip(in.env), env...)
	return &other
}

// write makes a file in the installation's folder, where its processes run.
func (in *install) write(name, text string) {
	in.Helper()
	if err := os.WriteFile(filepath.Join(in.dir, name), []byte(text), 0o600); err != nil {
		in.Fatal(err)
	}
}

// dump is everything in a Redis: each key's value as the server would write it to disk, and
// whether it expires.
func dump(t *testing.T, rdb *redis.Client) map[string]string {
	t.Helper()
	ctx := context.Background()
	all := map[string]string{}
	it := rdb.Scan(ctx, 0, "*", 1000).Iterator()
	for it.Next(ctx) {
		value, err := rdb.Dump(ctx, it.Val()).Result()
		if err != nil {
			t.Fatal(err)
		}
		all[it.Val()] = fmt.Sprintf("%q, expires: %v", value, rdb.PTTL(ctx, it.Val()).Val() > 0)
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// town fills the ledgers of two apps without any worker: "site" has a release in most states,
// "bare" has one that is served and no other.
func (in *install) town() {
	in.Helper()
	ctx := context.Background()
	by := tasks.By{Actor: "test"}
	check := func(err error) {
		in.Helper()
		if err != nil {
			in.Fatal(err)
		}
	}
	ledger := release.Open(in.redis.Client, tasks.KeysOf("site"))
	life := []struct {
		id   string
		path []release.State
	}{
		{"gone", []release.State{release.New, release.Expired}},
		{"stored", []release.State{release.New, release.Standby, release.Archived}},
		{"kept", []release.State{release.New, release.Standby}},
		{"r1", []release.State{release.New, release.Active}},
		{"r10", []release.State{release.New, release.Standby}},
		{"warming", []release.State{release.New, release.Warming}},
		{"uncertain", []release.State{release.New, release.Warming, release.Ready}},
		{"new", []release.State{release.New}},
	}
	for _, r := range life {
		check(ledger.Create(ctx, release.Record{ID: r.id, Template: tasks.DefaultTemplate}, by))
		for i, to := range r.path[1:] {
			if to == release.Active {
				_, err := ledger.Flip(ctx, r.id, r.path[i], by)
				check(err)
				continue
			}
			check(ledger.Move(ctx, r.id, r.path[i], to, by))
		}
		check(in.redis.Client.Set(ctx, "site:"+r.id+":post:1", "one", 0).Err())
	}
	check(ledger.Pin(ctx, "kept", true, by))
	check(ledger.SetDoc(ctx, "uncertain", release.DocCertificate, map[string]string{"verdict": "inconclusive"}))

	bare := release.Open(in.redis.Client, tasks.KeysOf("bare"))
	check(bare.Create(ctx, release.Record{ID: "r1", Template: tasks.DefaultTemplate}, by))
	_, err := bare.Flip(ctx, "r1", release.New, by)
	check(err)
}

// refusal is a command line that must change nothing.
type refusal struct {
	name string
	env  []string
	args []string
	code int
	says []string // the value, and the way out
}

// refused runs a command and checks that it is refused as it should be.
func (in *install) refused(c refusal) {
	in.Helper()
	before := dump(in.T, in.redis.Client)
	out, msg, code := in.with(c.env...).run(c.args...)
	if code != c.code {
		in.Errorf("exit code %d, want %d\n%s%s", code, c.code, out, msg)
	}
	for _, want := range c.says {
		if !strings.Contains(msg, want) {
			in.Errorf("the message lacks %q:\n%s", want, msg)
		}
	}
	if strings.Contains(out+msg, "s3cret") {
		in.Errorf("it shows the password:\n%s%s", out, msg)
	}
	if strings.Contains(msg, "goroutine ") {
		in.Errorf("it panics:\n%s", msg)
	}
	if diff := cmp.Diff(before, dump(in.T, in.redis.Client)); diff != "" {
		in.Errorf("it changed Redis (-before +after):\n%s", diff)
	}
}

func (in *install) refusedAll(cases []refusal) {
	for _, c := range cases {
		if c.name == "" {
			c.name = strings.Join(c.args, " ")
		}
		in.Run(c.name, func(t *testing.T) {
			at := *in
			at.T = t
			at.refused(c)
		})
	}
}

func list(args ...string) []string { return args }

// onePost is a plan whose database there may be none of.
const onePost = `version: 1
sources:
  - name: posts
    query: {driver: sqlite, dsn_env: SITE_DSN, sql: "SELECT slug FROM posts"}
    entry: {key: "post:{{.slug}}", value: json, ttl: 24h}
`

// Wrong configuration is told apart by name, value and way out, whatever the command.
func TestWrongConfiguration(t *testing.T) {
	in := newInstall(t)
	in.town()
	in.write("url", in.redis.URL)
	in.write("every.yaml", "timezone: UTC\nentries:\n  - name: often\n    cron: \"@every 5m\"\n    task: health:check\n")
	in.write("field.yaml", "entries:\n  - name: hourly\n    cron: \"0 * * * *\"\n    tusk: health:check\n")
	in.write("not.yaml", "entries: [\n")
	in.write("tokens", "ann operate s3cret\n")
	status := []string{"status"}
	in.refusedAll([]refusal{
		{"scheme", list("STOKER_REDIS_URL=http://:s3cret@host:6379"), status, exitBadInput, list("STOKER_REDIS_URL", `"http"`, "redis://")},
		{"no scheme", list("STOKER_REDIS_URL=localhost:6379"), status, exitBadInput, list("STOKER_REDIS_URL", "no scheme", "redis://")},
		{"empty URL", list("STOKER_REDIS_URL="), status, exitBadInput, list("STOKER_REDIS_URL", "redis://")},
		{"database", list("STOKER_REDIS_URL=redis://:s3cret@host:6379/x"), status, exitBadInput, list("STOKER_REDIS_URL", `"x"`)},
		{"option", list("STOKER_CACHE_URL=redis://:s3cret@host:6379/0?colour=red"), status, exitBadInput, list("STOKER_CACHE_URL", "colour")},
		{"slash in a password", list("STOKER_REDIS_URL=redis://:s3cret/x@host:6379"), status, exitBadInput, list("STOKER_REDIS_URL", "%-escapes")},
		{"space in a password", list("STOKER_CACHE_URL=redis://:s3cret x@host:6379"), status, exitBadInput, list("STOKER_CACHE_URL", "%-escapes")},
		{"quote in a password", list("STOKER_CACHE_URL=redis://:s3cret\"\x01@host:6379"), status, exitBadInput, list("STOKER_CACHE_URL", "%-escapes")},
		{"question mark in a password", list("STOKER_REDIS_URL=redis://:1?s3cret@host:6379"), status, exitBadInput, list("STOKER_REDIS_URL", "%-escapes")},
		{"password before no scheme", list("STOKER_REDIS_URL=ann:s3cret@host:6379"), list("config"), exitBadInput, list("STOKER_REDIS_URL", "redis://")},
		{"queue Redis down", list("STOKER_REDIS_URL=redis://:s3cret@127.0.0.1:1/0"), status, exitFailed, list("queue Redis", "127.0.0.1:1", "refused", "STOKER_REDIS_URL")},
		{"cache Redis down", list("STOKER_CACHE_URL=redis://:s3cret@127.0.0.1:1/0"), status, exitFailed, list("cache Redis", "127.0.0.1:1", "refused", "STOKER_CACHE_URL")},
		{"snapshot URL with a password", list("STOKER_SNAPSHOT_URL=s3://ann:s3cret@bucket"), status, exitBadInput, list("STOKER_SNAPSHOT_URL", "AWS_ACCESS_KEY_ID")},
		{"snapshot URL's secret shown", list("STOKER_SNAPSHOT_URL=s3://ann:s3cret@bucket"), list("config"), exitBadInput, list("STOKER_SNAPSHOT_URL")},
		{"snapshot parameter", list("STOKER_SNAPSHOT_URL=s3://bucket?regoin=x"), status, exitBadInput, list("STOKER_SNAPSHOT_URL", `"regoin"`, "region=")},
		{"no such key file", list("STOKER_SNAPSHOT_URL=file:///tmp", "STOKER_SNAPSHOT_KEY_FILE=nowhere"), status, exitBadInput, list("STOKER_SNAPSHOT_KEY_FILE", "nowhere")},
		{"key file without a key", list("STOKER_SNAPSHOT_URL=file:///tmp", "STOKER_SNAPSHOT_KEY_FILE=url"), status, exitBadInput, list("STOKER_SNAPSHOT_KEY_FILE", "line 1")},
		{"URL and file", list("STOKER_REDIS_URL_FILE=url"), status, exitBadInput, list("both STOKER_REDIS_URL and STOKER_REDIS_URL_FILE", "keep one")},
		{"cache URL and file", list("STOKER_CACHE_URL=redis://:s3cret@h:1", "STOKER_CACHE_URL_FILE=url"), status, exitBadInput, list("both STOKER_CACHE_URL and STOKER_CACHE_URL_FILE", "keep one")},
		{"no such secret file", list("STOKER_CACHE_URL_FILE=nowhere"), status, exitBadInput, list("STOKER_CACHE_URL_FILE", "nowhere")},

		{"template without a terminator", list("STOKER_KEY_TEMPLATE=<app>:<release><key>"), status, exitBadInput, list("STOKER_KEY_TEMPLATE", `"<app>:<release><key>"`, "add a character such as ':'")},
		{"template whose terminator an ID may hold", list("STOKER_KEY_TEMPLATE=<app>:<release>-<key>"), status, exitBadInput, list("STOKER_KEY_TEMPLATE", `"-"`, "add a character")},
		{"template without a release", list("STOKER_KEY_TEMPLATE=<app>:<key>"), status, exitBadInput, list("STOKER_KEY_TEMPLATE", "<release>")},
		{"app", list("STOKER_APP=My Site"), status, exitBadInput, list("STOKER_APP", `"My Site"`, "a-z")},
		{"pinned release", list("STOKER_RELEASE=r1*"), status, exitBadInput, list(`"r1*"`, "A-Z")},
		{"duration", list("STOKER_FILL_LIMIT=soon"), status, exitBadInput, list("STOKER_FILL_LIMIT", `"soon"`, "30s")},
		{"duration without a unit", list("STOKER_ORIGIN_LAG=30"), status, exitBadInput, list("STOKER_ORIGIN_LAG", `"30"`, "30s")},
		{"duration out of range", list("STOKER_FILL_LIMIT=1h"), status, exitBadInput, list("STOKER_FILL_LIMIT", "1h", "10m")},
		{"bool", list("STOKER_ALLOW_TAG_INDEX_EVICTION=perhaps"), status, exitBadInput, list("STOKER_ALLOW_TAG_INDEX_EVICTION", `"perhaps"`, "true or false")},
		{"number", list("STOKER_WARM_BATCH=many"), status, exitBadInput, list("STOKER_WARM_BATCH", `"many"`, "whole number")},
		{"number out of range", list("STOKER_WARM_BATCH=0"), status, exitBadInput, list("STOKER_WARM_BATCH", "0", "1 to 10000")},
		{"share", list("STOKER_HEALTH_MEMORY=half"), status, exitBadInput, list("STOKER_HEALTH_MEMORY", `"half"`, "number")},
		{"negative retention", list("STOKER_RETAIN_STANDBY=-1"), status, exitBadInput, list("-1", "0 or more")},
		{"size", list("STOKER_RETAIN_MEMORY=lots"), status, exitBadInput, list("STOKER_RETAIN_MEMORY", `"lots"`, "64MiB")},
		{"headroom", list("STOKER_MEMORY_HEADROOM=2"), status, exitBadInput, list("STOKER_MEMORY_HEADROOM", "2", "0 to 0.9")},
		{"pace of a task", nil, list("snapshot", "r1", "--pace", "fast"), exitBadInput, list(`"fast"`, "--pace", "gentle", "full")},
		{"empty pace", nil, list("expire", "--pace="), exitBadInput, list(`""`, "--pace", "normal")},
		{"several at once", list("STOKER_APP=My Site", "STOKER_WARM_BATCH=many"), status, exitBadInput, list("STOKER_APP", "STOKER_WARM_BATCH")},
		{"pace", list("STOKER_PACE=fast"), status, exitBadInput, list(`"fast"`, "gentle")},
		{"lane", list("STOKER_LANES=warm,cold"), list("worker"), exitBadInput, list("STOKER_LANES", `"cold"`, "upkeep")},
		{"snapshot store", list("STOKER_SNAPSHOT_URL=ftp://ann:s3cret@host/dir"), status, exitBadInput, list("STOKER_SNAPSHOT_URL", "ftp://", "file:///dir")},

		{"console for everybody", list("STOKER_WEB_ADDR=0.0.0.0:8080"), list("web"), exitBadInput, list("0.0.0.0:8080", "STOKER_WEB_TOKENS_FILE", "127.0.0.1")},
		{"console without a host", list("STOKER_WEB_ADDR=:8080"), list("web"), exitBadInput, list(`":8080"`, "STOKER_WEB_TOKENS_FILE")},
		{"console address", list("STOKER_WEB_ADDR=8080"), list("web"), exitBadInput, list("STOKER_WEB_ADDR", `"8080"`, "127.0.0.1:8080")},
		{"no tokens file", list("STOKER_WEB_TOKENS_FILE=nowhere"), list("web"), exitBadInput, list("STOKER_WEB_TOKENS_FILE", "nowhere")},
		{"tokens in the clear", list("STOKER_WEB_TOKENS_FILE=tokens"), list("web"), exitBadInput, list("line 1", "sha256")},
		{"no schedule file", list("STOKER_SCHEDULE=nowhere"), list("scheduler"), exitBadInput, list("STOKER_SCHEDULE", "nowhere")},
		{"schedule with @every", list("STOKER_SCHEDULE=every.yaml"), list("scheduler"), exitBadInput, list("every.yaml", "line 4", "@every 5m", "five fields")},
		{"schedule with an unknown field", list("STOKER_SCHEDULE=field.yaml"), list("scheduler"), exitBadInput, list("field.yaml", "line 4", "tusk")},
		{"schedule that is no YAML", list("STOKER_SCHEDULE=not.yaml"), list("scheduler"), exitBadInput, list("not.yaml")},
		{"no store for a snapshot", list("STOKER_SNAPSHOT_URL="), list("snapshot", "r1"), exitRefused, list("STOKER_SNAPSHOT_URL", "file:///dir")},
		{"no store for an archive", list("STOKER_SNAPSHOT_URL="), list("expire", "--release", "r10"), exitRefused, list("STOKER_SNAPSHOT_URL", "--no-snapshot")},
	})
}

// Wrong input is refused with the value and the way out, and so is what a guard forbids.
func TestWrongInput(t *testing.T) {
	in := newInstall(t)
	in.town()
	in.write("plan.yaml", onePost)
	in.write("field.yaml", strings.Replace(onePost, "entry:", "entrie:", 1))
	bare := list("STOKER_APP=bare")
	in.refusedAll([]refusal{
		{args: list("activte"), code: exitBadInput, says: list(`"activte"`, "stoker --help")},
		{args: list("wram"), code: exitBadInput, says: list(`"wram"`, "did you mean warm?")},
		{args: list("release", "activte", "r1"), code: exitBadInput, says: list(`"activte"`, "did you mean activate?", "stoker release --help")},
		{args: list("release"), code: exitBadInput, says: list("name one of the commands")},
		{args: nil, name: "no command", code: exitBadInput, says: list("name one of the commands")},
		{args: list("status", "--colour"), code: exitBadInput, says: list("--colour", "stoker status --help")},
		{args: list("man", "/nowhere"), code: exitBadInput, says: list(`"/nowhere"`, "make it first")},
		{args: list("status", "now"), code: exitBadInput, says: list(`"now"`, "stoker status")},
		{args: list("release", "show"), code: exitBadInput, says: list("stoker release show ID")},
		{args: list("compare", "r1"), code: exitBadInput, says: list(`"r1"`, "stoker compare A B")},
		{args: list("pause"), code: exitBadInput, says: list("stoker pause LANE")},
		{args: list("pause", "cold"), code: exitBadInput, says: list(`"cold"`, "upkeep")},
		{args: list("resume", "cold"), code: exitBadInput, says: list(`"cold"`, "upkeep")},
		{args: list("invalidations", "-n", "0"), code: exitBadInput, says: list("0", "1 to 10000")},
		{args: list("invalidations", "-n", "few"), code: exitBadInput, says: list(`"few"`, "stoker invalidations --help")},

		{args: list("warm", "new"), code: exitBadInput, says: list("--plan", "STOKER_PLAN")},
		{args: list("warm", "new", "--plan", "nowhere"), code: exitBadInput, says: list("nowhere")},
		{args: list("warm", "new", "--plan", "field.yaml"), code: exitBadInput, says: list("field.yaml", "line 5, column 5", `"entrie"`)},
		{args: list("plan", "check", "field.yaml"), code: exitBadInput, says: list("field.yaml", "line 5, column 5", `"entrie"`)},
		{args: list("plan", "check", "field.yaml", "--offline"), code: exitBadInput, says: list("field.yaml", "line 5, column 5", `"entrie"`)},
		{args: list("plan", "check", "plan.yaml"), code: exitFailed, says: list("plan.yaml", "line 4", "sources[0]", "SITE_DSN")},
		{args: list("plan", "check", "plan.yaml", "--release", "a b"), code: exitBadInput, says: list(`"a b"`)},
		{args: list("plan", "check", "plan.yaml", "--release", ""), code: exitBadInput, says: list("--release is empty")},
		{args: list("plan", "run", "new", "--plan", "nowhere"), code: exitBadInput, says: list("nowhere")},
		{args: list("plan", "check", "nowhere"), code: exitBadInput, says: list("nowhere")},
		{args: list("warm", "new", "--plan", "plan.yaml", "--source", "pages"), code: exitBadInput, says: list(`"pages"`, "posts")},
		{args: list("warm", "new", "--plan", "plan.yaml", "--sample", "0%"), code: exitBadInput, says: list(`"0%"`, "5%")},
		{args: list("warm", "new", "--plan", "plan.yaml", "--sample", "200%"), code: exitBadInput, says: list(`"200%"`, "100%")},
		{args: list("warm", "new", "--plan", "plan.yaml", "--sample", "abc"), code: exitBadInput, says: list(`"abc"`, "5%")},
		{args: list("warm", "stored", "--plan", "plan.yaml"), code: exitRefused, says: list("archived", "stoker rollback --to stored")},

		{args: list("invalidate"), code: exitBadInput, says: list("name a key, a tag or a prefix")},
		{args: list("invalidate", "--key", ""), code: exitBadInput, says: list("empty key", "stoker expire")},
		{args: list("invalidate", "--tag", ""), code: exitBadInput, says: list("empty tag")},
		{args: list("invalidate", "--prefix", ""), code: exitBadInput, says: list("empty prefix", "stoker expire")},
		{args: list("invalidate", "--prefix", "", "--dry-run"), code: exitBadInput, says: list("empty prefix")},
		{args: list("invalidate", "--prefix", "#tag:"), code: exitBadInput, says: list("#tag:", "reserved")},
		{args: list("invalidate", "--key", "a", "--reason", "\x1b[31mred"), code: exitBadInput, says: list(`\x1b[31mred`, "plain text")},
		{args: list("release", "pin", "r10", "--reason", "bell\x07"), code: exitBadInput, says: list(`\a`, "plain text")},
		{args: list("release", "create", "r11", "--why", "\x1b[2J"), code: exitBadInput, says: list(`\x1b[2J`, "plain text")},
		{args: list("release", "create", "r11", "--reason", strings.Repeat("x", 1001)), name: "long reason", code: exitBadInput, says: list("1001", "1000")},

		{args: list("release", "create", "r1"), code: exitRefused, says: list(`"r1"`, "exists already")},
		{args: list("release", "create", "r11", "--active"), code: exitBadInput, says: list("--adopt")},
		{args: list("release", "create", "r11", "--adopt"), code: exitBadInput, says: list(`"site:r11:"`, "STOKER_KEY_TEMPLATE")},
		{args: list("release", "create", "new", "--adopt", "--active"), code: exitRefused, says: list(`"r1"`, "roll back")},
		{args: list("release", "activate", "new", "--wait"), code: exitRefused, says: list(`"new"`, "not ready", "stoker warm new")},
		{args: list("release", "activate", "warming"), code: exitRefused, says: list(`"warming"`, "warming")},
		{args: list("release", "activate", "uncertain"), code: exitRefused, says: list(`"uncertain"`, "inconclusive", "--force")},
		{args: list("release", "activate", "r1"), code: exitRefused, says: list(`"r1"`, "active")},
		{args: list("release", "activate", "r10"), code: exitRefused, says: list(`"r10"`, "stoker rollback --to r10")},
		{args: list("release", "activate", "gone", "--force"), code: exitRefused, says: list(`"gone"`, "expired")},

		{args: list("rollback", "--to", "r1"), code: exitRefused, says: list(`"r1"`, "active already")},
		{args: list("rollback", "--to", "new"), code: exitRefused, says: list(`"new"`, "stoker release activate new")},
		{args: list("rollback", "--to", "gone"), code: exitRefused, says: list(`"gone"`, "expired", "warm a release")},
		{args: list("rollback", "--to", "stored"), code: exitRefused, says: list(`"stored"`)}, // there is no archive
		{args: list("rollback", "--to", ""), code: exitBadInput, says: list("--to is empty")},
		{args: list("rollback", "--wait"), name: "rollback without a standby", env: bare, code: exitRefused, says: list("no release is on standby", "warm and activate a new one")},

		{args: list("expire", "--no-snapshot"), code: exitBadInput, says: list("--release ID")},
		{args: list("expire", "--release", ""), code: exitBadInput, says: list("--release is empty")},
		{args: list("expire", "--release", "r1"), code: exitRefused, says: list(`"r1"`, "served", "roll back first")},
		{args: list("expire", "--release", "r1", "--no-snapshot", "--wait"), code: exitRefused, says: list(`"r1"`, "served")},
		{args: list("expire", "--release", "kept"), code: exitRefused, says: list(`"kept"`, "pinned", "stoker release unpin kept")},
		{args: list("expire", "--release", "warming", "--no-snapshot"), code: exitRefused, says: list(`"warming"`, "wait for the run")},
		{args: list("expire", "--release", "new"), code: exitRefused, says: list(`"new"`, "--no-snapshot")},
		{args: list("snapshot", "stored"), code: exitRefused, says: list(`"stored"`, "archived", "stoker rollback --to stored")},
		{args: list("snapshot", "verify", "r10"), code: exitBadInput, says: list(`"r10"`, "stoker snapshot r10")},
		{args: list("compare", "r1", "r10"), code: exitBadInput, says: list(`"r1"`, "stoker baseline r1")},
		{args: list("baseline", "r1"), code: exitBadInput, says: list(`"r1"`, "STOKER_PLAN")},
		{args: list("baseline", "r1"), name: "baseline without probes", env: list("STOKER_PLAN=plan.yaml"), code: exitBadInput, says: list("probes:")},
	})
}

// Every command that takes a release says so when there is none of that name, or when the name
// can be none.
func TestUnknownReleases(t *testing.T) {
	in := newInstall(t)
	in.town()
	in.write("plan.yaml", onePost)
	commands := [][]string{
		list("release", "show", "ID"), list("release", "activate", "ID"), list("release", "activate", "ID", "--force"),
		list("release", "pin", "ID"), list("release", "unpin", "ID"), list("release", "note", "ID"),
		list("warm", "ID", "--plan", "plan.yaml"), list("warm", "ID", "--plan", "plan.yaml", "--dry-run"),
		list("snapshot", "ID"), list("snapshot", "verify", "ID"),
		list("expire", "--release", "ID"), list("expire", "--release", "ID", "--no-snapshot"), list("expire", "--release", "ID", "--dry-run"),
		list("rollback", "--to", "ID"), list("baseline", "ID"), list("compare", "ID", "r1"),
	}
	of := func(command []string, id string) []string {
		args := slices.Clone(command)
		args[slices.Index(args, "ID")] = id
		return args
	}
	var cases []refusal
	for _, command := range commands {
		cases = append(cases, refusal{args: of(command, "r2"), code: exitBadInput, says: list(`"r2"`, "stoker release list", "stoker release create r2")})
	}
	wrong := []string{"r1*", "r?", "[r]1", "r 1", "", "../r1", "r1\n", "рилиз", strings.Repeat("r", 65)}
	for i, id := range wrong { // every name with some commands, every command with some names
		for j, command := range append(commands, list("release", "create", "ID"), list("release", "create", "ID", "--adopt")) {
			if (i+j)%4 != 0 {
				continue
			}
			says := list(fmt.Sprintf("%q", id), "A-Z")
			if id == "" && strings.HasPrefix(command[len(command)-2], "--") || id == "" && command[0] == "expire" {
				says = list("empty")
			}
			cases = append(cases, refusal{name: fmt.Sprintf("%q", of(command, id)), args: of(command, id), code: exitBadInput, says: says})
		}
	}
	in.refusedAll(cases)
}

// A worker refuses Redises that may forget what it needs, unless the setting that is named for
// the risk takes it.
func TestWorkerRefusesEviction(t *testing.T) {
	for _, c := range []struct {
		name, policy string
		asCache      bool
		says         string
		allow        string
	}{
		{"queue", "allkeys-lru", false, "allkeys-lru", "STOKER_ALLOW_QUEUE_EVICTION_AND_LOSE_INVALIDATIONS"},
		{"queue, volatile", "volatile-ttl", false, "volatile-ttl", "STOKER_ALLOW_QUEUE_EVICTION_AND_LOSE_INVALIDATIONS"},
		{"cache", "allkeys-lfu", true, "allkeys-lfu", "STOKER_ALLOW_TAG_INDEX_EVICTION"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := newInstall(t)
			evicting := redistest.Start(t, "--maxmemory", "100mb", "--maxmemory-policy", c.policy)
			env := []string{"STOKER_CACHE_URL=" + evicting.URL}
			if !c.asCache {
				env = []string{"STOKER_REDIS_URL=" + evicting.URL, "STOKER_CACHE_URL=" + in.redis.URL}
			}
			in.with(env...).refused(refusal{args: list("worker"), code: exitRefused, says: list(c.says, c.allow, "maxmemory-policy")})
			if keys := dump(t, evicting.Client); len(keys) > 0 {
				t.Errorf("it wrote %v", slices.Sorted(maps.Keys(keys)))
			}
			worker := in.with(append(env, c.allow+"=true")...).start("worker")
			redistest.Eventually(t, "a worker that takes the risk to start", func() bool {
				log, err := os.ReadFile(worker.log)
				return err == nil && strings.Contains(string(log), "worker started")
			})
		})
	}
}
