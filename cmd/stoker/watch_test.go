package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
	"github.com/alphanode/stoker/worker/release"
)

const webhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// receiver is where people are told: it verifies every message.
type receiver struct {
	*httptest.Server
	t       *testing.T
	refuses atomic.Int64 // so many messages are answered with 503 first

	mu     sync.Mutex
	events []string // guarded by mu
	lines  map[string]string
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	verify, err := webhooks.NewWebhook(webhookSecret)
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{t: t, lines: map[string]string{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		raw, _ := io.ReadAll(req.Body)
		if err := verify.Verify(raw, req.Header); err != nil {
			t.Errorf("message %s: %v", raw, err)
		}
		if r.refuses.Add(-1) >= 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		var m struct {
			Type string
			Data struct{ Lines []string }
		}
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if !strings.HasPrefix(m.Type, "health.") {
			r.events = append(r.events, m.Type)
			r.lines[m.Type] = strings.Join(m.Data.Lines, "\n")
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) told() ([]string, map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(slices.Values(r.events)), r.lines
}

// brittle is an installation whose site follows the active release, and fails every fifth request under
// release r2. r1 is served and has a baseline; r2 is registered.
func brittle(t *testing.T, env ...string) (*install, *receiver) {
	t.Helper()
	in, people := newInstall(t), newReceiver(t)
	client, err := tasks.NewClient(tasks.Config{App: "site", RedisURL: in.redis.URL, FillLimit: 1e9})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	var n atomic.Int64
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, err := client.Release(r.Context())
		if err != nil || id == "r2" && n.Add(1)%5 == 0 {
			w.WriteHeader(http.StatusInternalServerError)
		}
		w.Header().Set("X-Cache", "HIT")
	}))
	t.Cleanup(site.Close)
	in.write("plan.yaml", onePost+fmt.Sprintf("probes: {base: %q, paths: [/, /about], count: 400}\n", site.URL))
	in = in.with(append([]string{
		"STOKER_PLAN=plan.yaml", "STOKER_WATCH_FOR=2s", "STOKER_WEBHOOK_URL=" + people.URL + "/T0KEN", "STOKER_WEBHOOK_SECRET=" + webhookSecret,
	}, env...)...)
	if err := in.redis.Client.Set(context.Background(), "site:r1:post:1", "one", 0).Err(); err != nil {
		t.Fatal(err)
	}
	in.start("worker")
	in.must("release", "create", "r1", "--adopt", "--active")
	in.must("baseline", "r1", "--wait")
	in.must("release", "create", "r2", "--why", "new tag pages", "--owner", "ann")
	return in, people
}

// A release whose pages fail is taken back by itself, people are told by messages whose signature
// they can verify, and the note tells the story.
func TestAutoRollback(t *testing.T) {
	t.Parallel()
	in, people := brittle(t)
	people.refuses.Store(1) // the first message has to be sent twice
	in.must("release", "activate", "r2", "--force", "--auto-rollback", "--wait", "--reason", "go")
	redistest.Eventually(t, "r1 to be active again", func() bool {
		return field[string](t, in.must("status", "--json"), "active") == "r1"
	})
	redistest.Eventually(t, "people to be told", func() bool { events, _ := people.told(); return len(events) == 2 })
	events, lines := people.told()
	if !slices.Equal(events, []string{tasks.EventRolledBack, tasks.EventWorse}) || !strings.Contains(lines[tasks.EventWorse], "errors: 0 of 400 before, 80 of 400 after") {
		t.Errorf("told %q: %q", events, lines)
	}
	note := in.must("release", "note", "r2")
	for _, want := range []string{
		"Verdict after the switch: **worse**", "errors: 0 of 400 before, 80 of 400 after", "ended: clearly worse",
		"The watch rolled back to r1 by itself", "fresh as of number", "| active | standby | watch |", "served by force", "stoker rollback --to r1 --wait",
	} {
		if !strings.Contains(note, want) {
			t.Errorf("the note lacks %q:\n%s", want, note)
		}
	}
	page := in.must("release", "note", "r2", "--html")
	for _, want := range []string{"<svg", "The watch rolled back to r1 by itself", `<span class="verdict worse">worse</span>`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	history, err := release.Open(in.redis.Client, tasks.KeysOf("site")).History(context.Background(), "r1")
	if last := history[len(history)-1]; err != nil || last.Actor != "watch" || !strings.Contains(last.Reason, "clearly worse") {
		t.Errorf("history of r1: %+v, %v", last, err)
	}
	if text := dump(t, in.redis.Client); strings.Contains(fmt.Sprint(text), "T0KEN") || strings.Contains(fmt.Sprint(text), webhookSecret) {
		t.Error("Redis holds the receiver's address or the secret")
	}
}

// What is not asked for does not happen, and what may not come back does not: people are told either
// way.
func TestAutoRollbackNotDone(t *testing.T) {
	t.Parallel()
	t.Run("not asked for", func(t *testing.T) {
		t.Parallel()
		in, people := brittle(t)
		in.must("release", "activate", "r2", "--force", "--wait")
		redistest.Eventually(t, "people to be told", func() bool { events, _ := people.told(); return len(events) > 0 })
		if events, lines := people.told(); !slices.Equal(events, []string{tasks.EventWorse}) || !strings.Contains(lines[tasks.EventWorse], "stoker rollback --to r1") {
			t.Errorf("told %q: %q", events, lines)
		}
		out := in.must("status")
		if !strings.Contains(out, "serves r2") || !strings.Contains(out, "Since its switch r2 is worse") {
			t.Errorf("status:\n%s", out)
		}
	})
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		in, people := brittle(t, "STOKER_WATCH_ROLLBACK=true")
		in.must("pause", "health")
		in.must("release", "activate", "r2", "--force", "--wait")
		in.must("expire", "--release", "r1", "--no-snapshot", "--wait")
		in.must("resume", "health")
		redistest.Eventually(t, "people to be told", func() bool { events, _ := people.told(); return len(events) == 2 })
		events, lines := people.told()
		if !slices.Equal(events, []string{tasks.EventNotRolledBack, tasks.EventWorse}) || !strings.Contains(lines[tasks.EventNotRolledBack], "refused") {
			t.Errorf("told %q: %q", events, lines)
		}
		if active := field[string](t, in.must("status", "--json"), "active"); active != "r2" {
			t.Errorf("%s is active", active)
		}
		if note := in.must("release", "note", "r2"); !strings.Contains(note, "The watch wanted to roll back to r1") {
			t.Errorf("the note does not tell:\n%s", note)
		}
	})
}

// The test message arrives, from here and from a worker; without a receiver the way out is named.
func TestNotifyCommand(t *testing.T) {
	t.Parallel()
	people := newReceiver(t)
	in := newInstall(t, "STOKER_WEBHOOK_URL="+people.URL+"/T0KEN", "STOKER_WEBHOOK_SECRET="+webhookSecret)
	in.start("worker")
	in.must("notify", "--test")
	in.must("notify", "--test", "--wait")
	if events, _ := people.told(); !slices.Equal(events, []string{tasks.EventTest, tasks.EventTest}) {
		t.Errorf("told %q", events)
	}
	if out := in.must("config"); strings.Contains(out, "T0KEN") || strings.Contains(out, webhookSecret) {
		t.Errorf("config tells the secret:\n%s", out)
	}
	people.Close()
	for args, want := range map[string]int{"notify": exitBadInput, "notify --test": exitFailed} {
		_, msg, code := in.run(strings.Fields(args)...)
		if code != want || strings.Contains(msg, "T0KEN") {
			t.Errorf("%s: exit code %d, %s", args, code, msg)
		}
	}
	if _, msg, code := in.with("STOKER_WEBHOOK_URL=").run("notify", "--test"); code != exitRefused || !strings.Contains(msg, "STOKER_WEBHOOK_URL") {
		t.Errorf("without a receiver: exit code %d, %s", code, msg)
	}
}

// Two releases that both run are asked for the same pages; what differs comes first, and the exit
// code says what scripts need to know.
func TestReleaseCompare(t *testing.T) {
	t.Parallel()
	in := newInstall(t, "STOKER_PLAN=plan.yaml")
	instance := func(id string) string {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("X-Release"); got != "" && got != id {
				t.Errorf("%s was asked for release %q", id, got)
			}
			if r.URL.Path == "/gone" && id == "r2" {
				w.WriteHeader(http.StatusNotFound)
			}
			fmt.Fprintf(w, "<title>%s</title>", r.URL.Path)
		}))
		t.Cleanup(srv.Close)
		return srv.URL
	}
	active, canary := instance("r1"), instance("r2")
	in.write("plan.yaml", fmt.Sprintf(`version: 1
sources:
  - name: pages
    crawl: {base: %q, urls: [/], headers: {X-Release: "{{.Release}}"}}
probes: {base: %q, paths: [/, /about, /gone], count: 300}
`, canary, active))
	if err := in.redis.Client.Set(context.Background(), "site:r1:post:1", "one", 0).Err(); err != nil {
		t.Fatal(err)
	}
	in.must("release", "create", "r1", "--adopt", "--active")
	in.must("release", "create", "r2")

	out, msg, code := in.run("release", "compare", "r1", "r2")
	lines := strings.Split(out, "\n")
	if code != exitFailed || !strings.Contains(msg, "r2 is worse than r1") || !strings.Contains(lines[1], "200 → 404") || !strings.HasSuffix(lines[1], "/gone") {
		t.Errorf("exit code %d, %s\n%s", code, msg, out)
	}
	out, msg, code = in.run("release", "compare", "r1", "r2", "--path", "/about", "--count", "500", "--json")
	if code != exitDone || field[string](t, out, "a") != "r1" || field[struct{ Verdict string }](t, out, "verdict").Verdict != "same" {
		t.Errorf("exit code %d, %s\n%s", code, msg, out)
	}
	in.refusedAll([]refusal{
		{args: list("release", "compare", "r1", "r1"), code: exitBadInput, says: list("compares a release with itself", "--base-a")},
		{args: list("release", "compare", "r1", "r9"), code: exitBadInput, says: list(`"r9"`, "not found")},
		{args: list("release", "compare", "r1", "r2", "--base-b", "canary"), code: exitBadInput, says: list(`"canary"`, "http://host")},
		{args: list("release", "compare", "r1", "r2", "--path", "about"), code: exitBadInput, says: list(`"about"`, "begin with /")},
		{args: list("release", "compare", "r1", "r2", "--count", "-1"), code: exitBadInput, says: list("-1", "1 to 100000")},
		{args: list("release", "compare", "r1", "r2", "--count", "9"), code: exitInconclusive, says: list("inconclusive")},
		{name: "webhook address", env: list("STOKER_WEBHOOK_URL=chat/s3cret"), args: list("status"), code: exitBadInput, says: list("STOKER_WEBHOOK_URL", "https://")},
		{name: "webhook secret", env: list("STOKER_WEBHOOK_SECRET=s3cret"), args: list("status"), code: exitBadInput, says: list("STOKER_WEBHOOK_SECRET", "24")},
		{name: "webhook format", env: list("STOKER_WEBHOOK_FORMAT=telegram"), args: list("status"), code: exitBadInput, says: list(`"telegram"`, "slack")},
		{name: "watch", env: list("STOKER_WATCH_FOR=1000h"), args: list("status"), code: exitBadInput, says: list("STOKER_WATCH_FOR", "48h")},
	})
}
