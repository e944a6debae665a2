package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/redistest"
	"github.com/alphanode/stoker/worker/release"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noon is the time in all tests that do not tell the time.
var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// fakeLedger is a ledger in memory; err, when set, is all that it answers.
type fakeLedger struct {
	records []release.Record
	active  string
	history []release.Move
	err     error
}

func (f *fakeLedger) List(context.Context) ([]release.Record, error) { return f.records, f.err }
func (f *fakeLedger) Active(context.Context) (string, error)         { return f.active, f.err }

func (f *fakeLedger) Get(_ context.Context, id string) (release.Record, error) {
	for _, r := range f.records {
		if r.ID == id {
			return r, f.err
		}
	}
	return release.Record{}, errors.Join(f.err, fmt.Errorf("release %q: %w", id, tasks.ErrNotFound))
}

func (f *fakeLedger) History(context.Context, string) ([]release.Move, error) {
	return f.history, f.err
}

// site is a console over fakes, and what it logged.
type site struct {
	*Server
	ledger *fakeLedger
	logged *syncBuffer
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// newSite makes a console of an app with four releases; change may alter what it reads.
func newSite(t *testing.T, cfg Config, queue redis.UniversalClient, change ...func(*Deps)) *site {
	t.Helper()
	if cfg.WebAddr == "" {
		cfg.WebAddr = "127.0.0.1:0"
	}
	if cfg.WebSession == 0 {
		cfg.WebSession = time.Hour
	}
	if queue == nil {
		queue = redistest.Mini(t)
	}
	s := &site{ledger: exampleLedger(), logged: &syncBuffer{}}
	deps := Deps{
		App: "alpha", Queue: queue, Cache: queue, Ledger: s.ledger,
		Status: func(context.Context) (LogStatus, error) {
			return LogStatus{Pending: 2, OldestPending: 3 * time.Second, Last: noon.UnixMicro(), Targets: 48210}, nil
		},
		Lag: func(context.Context) (invalidation.Lag, error) {
			return invalidation.Lag{Calls: 3, P50: time.Millisecond, P99: 2 * time.Millisecond, Max: 4 * time.Millisecond,
				Namespaces: []invalidation.NamespaceLag{{Release: "r41", P99: 3 * time.Millisecond, Max: 5 * time.Millisecond}}}, nil
		},
		Pending: func(context.Context, int) ([]Pending, error) {
			return []Pending{
				{Number: noon.UnixMicro() - 3_000_000, Age: 3 * time.Second, Targets: 2, By: tasks.By{Actor: "cms", Reason: "post 42 edited"},
					Sample: []tasks.Target{{Kind: tasks.KindKey, Name: "post:42"}, {Kind: tasks.KindTag, Name: "author:ann"}}},
				{Number: noon.UnixMicro(), Age: 40 * time.Millisecond, Targets: 1, By: tasks.By{Actor: "cms"},
					Sample: []tasks.Target{{Kind: tasks.KindPrefix, Name: "nav:\x00"}}},
			}, nil
		},
		Recent: func(_ context.Context, n int) ([]tasks.Applied, error) {
			at := noon.Add(-time.Minute)
			return []tasks.Applied{
				{Number: at.UnixMicro(), Recorded: at, At: at.Add(2 * time.Millisecond), Targets: 1, Namespaces: map[string]int64{"r42": 1200, "r41": 1},
					Sample: []tasks.Target{{Kind: tasks.KindTag, Name: "author:<b>bob"}}, By: tasks.By{Actor: "editor", Reason: "typo in \u202ename"}},
				{Number: at.UnixMicro() - 1, Recorded: at, At: at.Add(time.Second), Targets: 12, Namespaces: map[string]int64{},
					Sample: []tasks.Target{{Kind: tasks.KindKey, Name: "\x00odd"}}, By: tasks.By{Actor: "cms"}},
			}[:min(n, 2)], nil
		},
		Usage: func(_ context.Context, id string) (Usage, error) {
			return Usage{Entries: 1774 + int64(len(id)), Bytes: 12_600_000}, nil
		},
		Health:    func(context.Context) (json.RawMessage, error) { return json.RawMessage(exampleHealth), nil },
		Freshness: func(context.Context) (json.RawMessage, error) { return json.RawMessage(exampleFreshness), nil },
		Rollback: func(context.Context) (Readiness, error) {
			return Readiness{Ready: true, To: "r41", Reason: "it is standby and fresh, so this is a flip."}, nil
		},
		Applied: func(_ context.Context, n int64) (tasks.Applied, Stage, error) {
			return tasks.Applied{}, "", fmt.Errorf("number %d: %w", n, tasks.ErrNotFound)
		},
		Reads:    exampleReads(),
		Operator: &fakeOperator{task: Task{State: TaskWaits}},
		Log:      slog.New(slog.NewTextHandler(s.logged, nil)),
		Now:      func() time.Time { return noon },
	}
	for _, c := range change {
		c(&deps)
	}
	var err error
	if s.Server, err = New(deps, cfg); err != nil {
		t.Fatal(err)
	}
	return s
}

const exampleFreshness = `{"at": "2026-11-22T11:55:00Z", "places": [
	{"release": "r41", "suspects": 2, "stale": 1, "day": {"compared": 7200, "nines": 3.4}},
	{"release": "r40", "archive": "r40.stoker", "day": {"compared": 0, "nines": 0}}]}`

const exampleHealth = `{"at": "2026-11-22T11:59:20Z", "status": "warn", "checks": [
	{"name": "queue.answers", "status": "ok", "detail": "0.3 ms", "value": 0.0003},
	{"name": "queue.policy", "status": "ok", "detail": "noeviction", "value": 1},
	{"name": "queue.persistence", "status": "warn", "detail": "no append-only file", "remedy": "set appendonly yes", "value": 0},
	{"name": "cache.answers", "status": "ok", "detail": "0.2 ms", "value": 0.0002},
	{"name": "cache.memory", "status": "unknown", "detail": "the server does not say", "value": 0},
	{"name": "snapshot.age", "status": "ok", "detail": "newest verified 5 hours ago", "value": 18000}
]}`

func exampleLedger() *fakeLedger {
	snap := func(ago time.Duration) json.RawMessage {
		return json.RawMessage(fmt.Sprintf(`{"entries": 1702, "bytes": 11900000, "store": "s3://key:hunter2@bucket/site", "created": %q, "verified_at": %q}`,
			noon.Add(-ago).Format(time.RFC3339), noon.Add(-ago+time.Minute).Format(time.RFC3339)))
	}
	pass := json.RawMessage(`{"verdict": "pass", "coverage": 0.9994, "planned": 1774, "stored": 1771, "invalidated": 2, "failed": 1, "sources": [
		{"name": "articles", "kind": "query", "planned": 1502, "stored": 1500, "invalidated": 2, "coverage": 1},
		{"name": "pages", "kind": "crawl", "planned": 272, "stored": 271, "failed": 1, "coverage": 0.996, "failures": [{"kind": "not_found", "count": 1, "examples": ["/tags/<b>old</b>"]}]}]}`)
	return &fakeLedger{
		active: "r42",
		records: []release.Record{
			{ID: "r43", State: release.Warming, CreatedAt: noon.Add(-4 * time.Minute), ChangedAt: noon.Add(-40 * time.Second), Run: "w-7f3a", Template: tasks.DefaultTemplate,
				Notes: release.Notes{Owner: "ben", Reason: "search results without the old facets"}},
			{ID: "r42", State: release.Active, CreatedAt: noon.Add(-3 * time.Hour), ChangedAt: noon.Add(-2 * time.Hour), ActivatedAt: noon.Add(-2 * time.Hour), Template: tasks.DefaultTemplate,
				Notes: release.Notes{Owner: "ann", Reason: "new article template", Expected: "first paint 200 ms sooner", RollbackNote: "nothing to undo in the database", Revision: "9c1f3e2", Files: []string{"templates/article.html", "static/article.css"}, Commands: []string{"stoker warm r42", "stoker release activate r42"}},
				Docs: map[release.Doc]json.RawMessage{release.DocCertificate: pass, release.DocVerdict: json.RawMessage(`{"verdict": "worse"}`), release.DocWatch: json.RawMessage(
					`{"activated_at": "2026-11-22T10:00:00Z", "planned": 7, "looks": [{"verdict": "same"}, {"verdict": "worse"}], "next": "2026-11-22T12:05:00Z", "rollback": {"to": "r41", "outcome": "refused", "detail": "not fresh"}}`)}},
			{ID: "r41", State: release.Standby, Pinned: true, CreatedAt: noon.Add(-50 * time.Hour), ChangedAt: noon.Add(-2 * time.Hour), ActivatedAt: noon.Add(-49 * time.Hour), Template: tasks.DefaultTemplate,
				Notes: release.Notes{Owner: "ann", Reason: "tag pages: <related> block"},
				Docs:  map[release.Doc]json.RawMessage{release.DocCertificate: pass, release.DocSnapshot: snap(5 * time.Hour)}},
			{ID: "r40", State: release.Archived, CreatedAt: noon.Add(-200 * time.Hour), ChangedAt: noon.Add(-40 * time.Hour), ActivatedAt: noon.Add(-190 * time.Hour), Template: tasks.DefaultTemplate,
				Notes: release.Notes{Owner: "cleo", Reason: "framework update"},
				Docs: map[release.Doc]json.RawMessage{release.DocCertificate: json.RawMessage(`{"verdict": "inconclusive"}`), release.DocSnapshot: snap(42 * time.Hour), release.DocDrill: json.RawMessage(
					`{"at": "2026-11-22T04:23:00Z", "good": true, "last_good": "2026-11-22T04:23:00Z", "compared": 1702, "rollback_seconds": 3.2}`)}},
		},
		history: []release.Move{
			{At: noon.Add(-3 * time.Hour), To: release.New, By: tasks.By{Actor: "ann", Reason: "new article template"}},
			{At: noon.Add(-150 * time.Minute), From: release.New, To: release.Warming, By: tasks.By{Actor: "ann"}},
			{At: noon.Add(-130 * time.Minute), From: release.Warming, To: release.Ready, By: tasks.By{Actor: "worker"}, Note: "certificate: pass"},
			{At: noon.Add(-2 * time.Hour), From: release.Ready, To: release.Active, By: tasks.By{Actor: "ann", Reason: "release window"}},
		},
	}
}

// The secrets of the tokens file that tests use.
const (
	viewSecret       = "v-5d0c2c9b6f"
	operateSecret    = "o-c5a3f0b1e2"
	invalidateSecret = "i-91be27d0aa"
)

// tokensFile writes a file with one token a scope and returns its path.
func tokensFile(t *testing.T) string {
	t.Helper()
	line := func(name string, scope Scope, secret string) string {
		return fmt.Sprintf("%s %s sha256:%x\n", name, scope, sha256.Sum256([]byte(secret)))
	}
	return writeFile(t, "# name scope token\n\n"+line("vera", View, viewSecret)+line("otto", Operate, operateSecret)+line("shop", Invalidate, invalidateSecret))
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// ask makes a request as a browser on the console's own page would, changed by the functions
// given.
func (s *site) ask(method, path string, change ...func(*http.Request)) *http.Response {
	r := httptest.NewRequest(method, "http://127.0.0.1:8080"+path, strings.NewReader("{}"))
	r.RemoteAddr = "127.0.0.1:40000"
	for _, c := range change {
		c(r)
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, resp *http.Response) string {
	t.Helper()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func basic(name, secret string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth(name, secret) }
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func host(h string) func(*http.Request) { return func(r *http.Request) { r.Host = h } }

func from(addr string) func(*http.Request) { return func(r *http.Request) { r.RemoteAddr = addr } }
