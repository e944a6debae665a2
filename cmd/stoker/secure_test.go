package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

var listensAt = regexp.MustCompile(`"console listens","addr":"([^"]+)"`)

// page asks the console for a page, or posts a form to it, and returns the status, where that led and the text.
func (in *secured) page(token, path string, form url.Values) (int, string, string) {
	in.Helper()
	method, sent := http.MethodGet, ""
	if form != nil {
		method, sent = http.MethodPost, form.Encode()
	}
	r, err := http.NewRequest(method, "http://"+in.web+path, strings.NewReader(sent))
	if err != nil {
		in.Fatal(err)
	}
	authorize := func(r *http.Request) {
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
	}
	authorize(r)
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	client := http.Client{CheckRedirect: func(r *http.Request, _ []*http.Request) error { authorize(r); return nil }}
	resp, err := client.Do(r)
	if err != nil {
		in.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		in.Fatal(err)
	}
	return resp.StatusCode, resp.Request.URL.RequestURI(), string(text)
}

var hiddenField = regexp.MustCompile(`<input type="hidden" name="([a-z]+)" value="([^"]*)">`)

// act takes an action on the console as a person would, with the plan before it, and returns the
// page that it led to.
func (in *secured) act(path, reason string) string {
	in.Helper()
	_, _, plan := in.page(annToken, path, nil)
	form := url.Values{"reason": {reason}}
	for _, m := range hiddenField.FindAllStringSubmatch(plan, -1) {
		form.Set(m[1], m[2])
	}
	status, at, text := in.page(annToken, path, form)
	if status != http.StatusOK {
		in.Fatalf("%s: status %d\n%s", path, status, text)
	}
	return at
}

// TestSecuredLife takes a site through its life under TLS, the users of deploy/users.acl and a console with
// tokens, by command and by console; and then looks for the secrets wherever they could have got to.
func TestSecuredLife(t *testing.T) {
	t.Parallel()
	in := newSecured(t)
	inherited := in.git()
	worker, scheduler, web := in.start("worker"), in.start("scheduler"), in.start("web")
	redistest.Eventually(t, "the console", func() bool {
		m := listensAt.FindStringSubmatch(web.text())
		if m != nil {
			in.web = m[1]
		}
		return m != nil
	})

	var shown strings.Builder // whatever people saw
	must := func(args ...string) { t.Helper(); shown.WriteString(in.must(args...)) }
	must("release", "create", "r1", "--why", "the first")
	must("warm", "r1", "--wait")
	must("release", "activate", "r1", "--wait")
	must("release", "create", "r2")
	must("warm", "r2", "--wait")
	if status, _, _ := in.page(benToken, "/releases/r2/activate", nil); status != http.StatusForbidden {
		t.Errorf("a viewer plans a switch: status %d", status)
	}
	in.await(in.act("/releases/r2/activate", "certificate passed"), "r2 is served; r1 is on standby")
	in.appServer()
	in.edit(0, 100)

	began := time.Now()
	in.page(annToken, "/", nil)
	in.await(in.act("/rollback", "checkout is broken"), "r1 is served, from standby")
	t.Logf("from loading the first page to rolled back: %v", time.Since(began).Round(time.Millisecond))
	if n := in.assertFresh("r1"); n != posts-100 {
		t.Errorf("r1 has %d entries after 100 edits, want %d", n, posts-100)
	}
	must("expire", "--release", "r2", "--wait")
	in.edit(100, 100)
	in.await(in.act("/rollback?to=r2", "the other one, from its archive"), "r2 is served, from archive")
	if n := in.assertFresh("r2"); n != posts-200 {
		t.Errorf("r2 has %d entries after its restore and 200 edits, want %d", n, posts-200)
	}
	in.act("/lanes/warm", "the database is slow")
	if out := in.must("status"); !regexp.MustCompile(`(?m)^warm .* yes$`).MatchString(out) {
		t.Errorf("the lane warm is not paused:\n%s", out)
	}
	must("resume", "warm")
	doctor, _, _ := in.run("doctor", "--json")
	for name, status := range statuses(t, doctor) {
		if status == "fail" || status == "warn" && name != "secrets.environment" { // the webhook's address, put there on purpose
			t.Errorf("doctor: %s: %s\n%s", name, status, doctor)
		}
	}
	if _, msg, code := in.run("release", "create", "r1"); code != exitBadInput && code != exitRefused {
		t.Errorf("a release that exists: exit code %d, %s", code, msg)
	}

	for _, args := range [][]string{{"status"}, {"status", "--json"}, {"health"}, {"health", "--json"}, {"snapshot", "list"}, {"doctor"}, {"config"}, {"config", "--json"}, {"release", "show", "r2", "--json"}, {"release", "note", "r2"}, {"notify", "--test"}, {"invalidations"}} {
		out, msg, _ := in.run(args...)
		shown.WriteString(out + msg)
	}
	shown.WriteString(doctor)
	for _, path := range []string{"/", "/releases/r1", "/releases/r2", "/invalidations", "/metrics", "/queues/api/queues", "/queues/api/redis_info",
		"/queues/api/queues/site.release/completed_tasks", "/queues/api/queues/site.warm/completed_tasks", "/queues/api/servers"} {
		status, _, text := in.page(benToken, path, nil)
		if status != http.StatusOK {
			t.Errorf("%s: status %d", path, status)
		}
		shown.WriteString(text)
	}
	// What fails tells most: a wrong token, a server that is away, a plan that cannot be read.
	in.page(canary+"-guess", "/", nil)
	in.page("", "/signin", url.Values{"token": {canary + "-typed"}})
	shown.WriteString(in.failures())
	shown.WriteString(in.bucket(worker))
	shown.WriteString(in.provider())
	places := map[string]string{"somebody saw": shown.String(), "a child process inherited": inherited()}
	for name, p := range map[string]*process{"the worker": worker, "the scheduler": scheduler, "the console": web} {
		places[name+" logged"] = p.text()
	}
	for name, addr := range map[string]string{"queue": in.queue, "cache": in.cache} {
		places["the "+name+" Redis holds"] = in.everything(addr, map[string]string{"queue": queuePassword, "cache": cachePassword}[name])
	}
	for place, text := range places {
		for _, secret := range in.secrets {
			if at := strings.Index(text, secret); at >= 0 {
				t.Errorf("a secret in what %s: …%s…", place, text[max(0, at-200):min(len(text), at+60)])
			}
		}
	}
}

// git puts a program of that name onto the path, which tells what it inherits of those secrets that stand in
// files.
func (in *secured) git() (inherited func() string) {
	in.Helper()
	dir, at := in.TempDir(), filepath.Join(in.dir, "inherited")
	script := "#!/bin/sh\nenv | grep -v '_DSN=\\|_BROKEN=\\|_WORDS=\\|AWS_\\|STOKER_WEBHOOK_URL=' >>" + at + "\nexit 1\n"
	if err := os.WriteFile(filepath.Join(dir, "git"), []byte(script), 0o700); err != nil {
		in.Fatal(err)
	}
	in.env = append(in.env, "PATH="+dir+":"+os.Getenv("PATH"))
	return func() string {
		raw, err := os.ReadFile(at)
		if err != nil || !strings.Contains(string(raw), "STOKER_REDIS_URL_FILE=") {
			in.Errorf("git was not asked: %v %s", err, raw)
		}
		return string(raw)
	}
}

// bucket has snapshots fail at an S3 server that quotes all that it was sent.
func (in *secured) bucket(worker *process) string {
	in.Helper()
	s3 := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, "<Error><Code>SignatureDoesNotMatch</Code><Message>%s %s</Message></Error>", r.URL, r.Header.Get("Authorization"))
	}))
	in.Cleanup(s3.Close)
	worker.end(syscall.SIGTERM)
	other := in.with("STOKER_SNAPSHOT_URL=s3://bucket/site?region=eu-test-1&path_style=true&endpoint=" + s3.URL)
	again := other.start("worker")
	said := (&secured{shop: &shop{install: other}, roots: in.roots, queue: in.queue}).fails(tasks.LaneUpkeep, "snapshot", "r2")
	for _, args := range [][]string{{"doctor"}, {"snapshot", "verify", "r1"}, {"snapshot", "list"}, {"config"}} {
		out, msg, _ := other.run(args...)
		said += out + msg
	}
	again.end(syscall.SIGTERM)
	return said + again.text()
}

// fails has a worker fail at a task, and does not wait for how often it is tried again: its first error stands
// in the queue.
func (in *secured) fails(lane tasks.Lane, args ...string) string {
	in.Helper()
	inspector, queue := asynq.NewInspectorFromRedisClient(in.dial(in.queue, "stoker", queuePassword)), lane.Queue("site")
	failed := func() int {
		info, err := inspector.GetQueueInfo(queue)
		if err != nil {
			in.Fatal(err)
		}
		return info.Failed // tries of the day
	}
	before := failed()
	out, msg, _ := in.run(args...)
	redistest.Eventually(in.T, "a failed try of "+args[0], func() bool { return failed() > before })
	return out + msg
}

// provider has somebody sign in at a provider that does not answer, and the same with one that quotes what
// it is sent.
func (in *secured) provider() string {
	in.Helper()
	id := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent, _ := io.ReadAll(r.Body)
		http.Error(w, r.URL.String()+" "+r.Header.Get("Authorization")+string(sent), http.StatusInternalServerError)
	}))
	in.Cleanup(id.Close)
	web := in.with("STOKER_WEB_URL=https://stoker.example", "STOKER_WEB_OIDC_ISSUER="+id.URL, "STOKER_WEB_OIDC_SECRET_FILE="+in.file("oidc", canary+"-oidc")).start("web")
	addr := in.listens(web)
	said := ""
	for _, path := range []string{"/signin/provider", "/signin/callback?code=" + canary + "-code&state=x"} {
		resp, err := http.Get("http://" + addr + path)
		if err != nil {
			in.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		said += string(text)
	}
	web.end(syscall.SIGTERM)
	return said + web.text()
}

// await waits until the page of a task says how it ended.
func (in *secured) await(path, text string) {
	in.Helper()
	redistest.Eventually(in.T, text, func() bool {
		_, _, page := in.page(annToken, path, nil)
		if strings.Contains(page, ">failed<") {
			in.Fatalf("%s:\n%s", path, page)
		}
		return strings.Contains(page, text)
	})
}

// appServer does what a site's own process does, with the rights of one.
func (in *secured) appServer() {
	in.Helper()
	ctx := context.Background()
	app, err := tasks.NewClientFrom(in.dial(in.queue, "site", sitePassword), in.dial(in.cache, "site", sitePassword),
		tasks.Config{App: "site", KeyTemplate: tasks.DefaultTemplate, FillLimit: time.Second})
	if err != nil {
		in.Fatal(err)
	}
	defer func() { _ = app.Close() }()
	load := func(context.Context) ([]byte, error) { return []byte("page"), nil }
	for _, hit := range []bool{false, true} {
		if got, err := app.Fetch(ctx, "page:1", []string{"page"}, time.Minute, load); err != nil || got.Hit != hit {
			in.Errorf("fetch: %+v, %v; want hit %v", got, err, hit)
		}
	}
	receipt, err := app.Invalidate(ctx, tasks.Invalidation{Targets: []tasks.Target{{Kind: tasks.KindTag, Name: "page"}}, By: tasks.By{Actor: "cms"}})
	if err != nil {
		in.Fatal(err)
	}
	if applied, err := app.Wait(ctx, receipt); err != nil || applied.Namespaces["r2"] != 1 {
		in.Errorf("applied: %+v, %v", applied, err)
	}
}

// failures runs commands that fail where a secret is at hand, and returns what they say.
func (in *secured) failures() string {
	in.Helper()
	var said strings.Builder
	in.must("release", "create", "r3")
	for env, driver := range map[string]string{"POSTGRES_DSN": "postgres", "POSTGRES_BROKEN": "postgres", "POSTGRES_WORDS": "postgres", "MYSQL_DSN": "mysql", "MYSQL_BROKEN": "mysql"} {
		plan := in.file(env+".yaml", "version: 1\nsources:\n  - name: posts\n    query: {driver: "+driver+", dsn_env: "+env+", sql: \"SELECT 1\"}\n    entry: {key: \"a:{{.slug}}\", value: json, ttl: 1h}\n")
		if env == "POSTGRES_DSN" { // in the worker as well
			said.WriteString(in.fails(tasks.LaneWarm, "warm", "r3", "--plan", plan))
		}
		for _, args := range [][]string{{"warm", "r3", "--plan", plan, "--dry-run"}, {"plan", "check", plan}} {
			out, msg, code := in.run(args...)
			if code == exitDone {
				in.Errorf("%s: a database that is away was read: %s", env, out)
			}
			said.WriteString(out + msg)
		}
	}
	for _, args := range [][]string{{"release", "show", "r3", "--json"}, {"release", "note", "r3"}, {"status", "--json"}, {"health", "--json"}} {
		out, msg, _ := in.run(args...)
		said.WriteString(out + msg)
	}
	right := in.env
	defer func() { in.env = right }()
	for _, wrong := range []string{"rediss://stoker:" + canary + "-wrong@" + in.queue, "redis://stoker:" + queuePassword + "@127.0.0.1:1",
		"redis-cluster://stoker:" + queuePassword + "@127.0.0.1:1?addr=127.0.0.1:2", "redis-sentinel://stoker:" + queuePassword + "@127.0.0.1:1/x?password=" + canary + "&master_name=%zz", "rediss://stoker:" + queuePassword + "%zz@" + in.queue} {
		in.env = nil
		for _, pair := range right {
			if !strings.HasPrefix(pair, "STOKER_REDIS_URL_FILE=") {
				in.env = append(in.env, pair)
			}
		}
		in.env = append(in.env, "STOKER_REDIS_URL="+wrong)
		out, msg, code := in.run("status")
		if code == exitDone {
			in.Errorf("status with a wrong queue Redis: %s", out)
		}
		said.WriteString(out + msg)
		out, msg, _ = in.run("doctor")
		said.WriteString(out + msg)
	}
	return said.String()
}

// everything is what a Redis holds, as text.
func (in *secured) everything(addr, password string) string {
	in.Helper()
	ctx, queue := context.Background(), in.dial(addr, "stoker", password)
	var all strings.Builder
	it := queue.Scan(ctx, 0, "*", 1000).Iterator()
	n := 0
	for it.Next(ctx) {
		n++
		dump, err := queue.Do(ctx, "EVAL", everyValue, 1, it.Val()).Text()
		if err != nil {
			in.Fatalf("read %q: %v", it.Val(), err)
		}
		all.WriteString(it.Val() + " " + dump + "\n")
	}
	if err := it.Err(); err != nil || n < 10 {
		in.Fatalf("%d keys read: %v", n, err)
	}
	return all.String()
}

// everyValue is a key's value, of whatever type, in one text.
const everyValue = `
local key = KEYS[1]
local kind = redis.call("TYPE", key).ok
local read = {
  string = function() return { redis.call("GET", key) } end,
  hash = function() return redis.call("HGETALL", key) end,
  list = function() return redis.call("LRANGE", key, 0, -1) end,
  set = function() return redis.call("SMEMBERS", key) end,
  zset = function() return redis.call("ZRANGE", key, 0, -1) end,
}
if not read[kind] then return kind end
return table.concat(read[kind](), " ")`

// statuses reads the checks of doctor --json.
func statuses(t *testing.T, out string) map[string]string {
	t.Helper()
	var checks []struct{ Name, Status string }
	if err := json.Unmarshal([]byte(out), &checks); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	all := map[string]string{}
	for _, c := range checks {
		all[c.Name] = c.Status
	}
	return all
}
