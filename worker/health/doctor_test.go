package health

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
	"github.com/alphanode/stoker/worker/release"
)

// sound returns an installation of which every check is ok.
func sound() Setup {
	h := healthy()
	return Setup{
		Queue: h.Queue, Cache: h.Cache,
		QueueURL:    parseEndpoint("rediss://stoker:x@queue.example.org:6379/0"),
		CacheURL:    parseEndpoint("redis://127.0.0.1:6380"),
		QueueRights: Answer[Rights]{Asked: true}, CacheRights: Answer[Rights]{Asked: true},
		At:      testNow,
		Console: Answer[Console]{Asked: true, Value: Console{URL: "http://127.0.0.1:8080", Status: 200, Header: consoleHeader()}},
		Files:   []SecretFile{{Setting: "STOKER_WEB_TOKENS_FILE", Path: "tokens", Mode: 0o600}},
		WebAddr: "127.0.0.1:8080", Template: tasks.DefaultTemplate,
		Records:     []release.Record{{ID: "r1", State: release.Active, Template: tasks.DefaultTemplate}},
		ActiveBytes: Answer[int64]{Asked: true, Value: 500},
		Store:       Answer[string]{Asked: true, Value: "file store"},
		Schedule:    Answer[string]{Asked: true, Value: "3 entries"},
		Plan:        Answer[string]{Asked: true, Value: "2 sources"},
		BodyLimit:   Answer[int]{Asked: true, Value: http.StatusRequestEntityTooLarge},
		Actor:       "ann@host", Version: "v1",
		Processes: Answer[[]Process]{Asked: true, Value: []Process{running("worker", "v1"), running("scheduler", "v1")}},
		Ticks:     Answer[[]Tick]{Asked: true, Value: []Tick{{"health", testNow, testNow}, {"new", time.Time{}, testNow}}},
	}
}

func running(role, version string) Process {
	return Process{Role: role, Host: "host", PID: 1, Version: version, Asynq: "v0.26.0"}
}

func TestDiagnose(t *testing.T) {
	boom := errors.New("boom")
	tests := []struct {
		name   string
		check  string
		change func(*Setup)
		want   Status
	}{
		{"queue down", "queue.answers", func(s *Setup) { s.Queue = Redis{Err: boom} }, Fail},
		{"queue down, version", "queue.version", func(s *Setup) { s.Queue = Redis{Err: boom} }, Unknown},
		{"old", "queue.version", func(s *Setup) { s.Queue = redisOf(server("redis_version", "6.2.14")) }, Fail},
		{"two digits", "cache.version", func(s *Setup) { s.Cache = redisOf(server("redis_version", "10.0.1")) }, OK},
		{"version untold", "cache.version", func(s *Setup) { s.Cache = redisOf(Server{}) }, Unknown},
		{"queue evicts", "queue.policy", func(s *Setup) { s.Queue = redisOf(server("maxmemory_policy", "allkeys-lru")) }, Fail},
		{"no AOF", "queue.persistence", func(s *Setup) { s.Queue = redisOf(server("aof_enabled", "0")) }, Warn},
		{"cache evicts tags", "cache.tags", func(s *Setup) { s.Cache = redisOf(server("maxmemory_policy", "allkeys-lru")) }, Fail},

		{"plain text on the network", "queue.transport", queueURL("redis://stoker:x@10.0.0.5:6379"), Warn},
		{"TLS cluster", "queue.transport", queueURL("rediss-cluster://stoker:x@10.0.0.5:6379"), OK},
		{"Unix socket", "queue.transport", queueURL("unix:///run/redis/redis.sock"), OK},
		{"IPv6 loopback", "queue.transport", queueURL("redis://[::1]:6379"), OK},
		{"bad URL", "queue.transport", queueURL("redis://a b:c%zz@:x"), Fail},
		{"no password", "queue.user", queueURL("rediss://10.0.0.5:6379"), Fail},
		{"no password, local", "queue.user", queueURL("redis://localhost:6379"), OK},
		{"default user", "queue.user", queueURL("rediss://:secret@10.0.0.5:6379"), Warn},
		{"default user by name", "queue.user", queueURL("rediss://default:secret@10.0.0.5:6379"), Warn},

		{"secrets in the environment", "secrets.environment", func(s *Setup) { s.EnvSecrets = []string{"STOKER_REDIS_URL"} }, Warn},
		{"file gone", "secrets.files", files(SecretFile{Err: boom}), Fail},
		{"file read by all", "secrets.files", files(SecretFile{Mode: 0o644}), Warn},
		{"file read by the group", "secrets.files", files(SecretFile{Mode: 0o640}), OK},
		{"file written by the group", "secrets.files", files(SecretFile{Mode: 0o660}), Fail},
		{"worst of several", "secrets.files", files(SecretFile{Mode: 0o644}, SecretFile{Mode: 0o622}, SecretFile{Mode: 0o600}), Fail},

		{"web open", "web.address", func(s *Setup) { s.WebAddr = ":8080" }, Fail},
		{"web on all addresses", "web.address", func(s *Setup) { s.WebAddr = "0.0.0.0:8080" }, Fail},
		{"web guarded", "web.address", func(s *Setup) { s.WebAddr, s.WebGuarded = "0.0.0.0:8080", true }, OK},
		{"web address wrong", "web.address", func(s *Setup) { s.WebAddr = "8080" }, Fail},
		{"web not known", "web.address", func(s *Setup) { s.WebAddr = "" }, Unknown},

		{"rights not tried", "queue.rights", func(s *Setup) { s.QueueRights = Answer[Rights]{} }, Unknown},
		{"rights untold", "cache.rights", func(s *Setup) { s.CacheRights.Err = boom }, Unknown},
		{"too many rights", "queue.rights", func(s *Setup) { s.QueueRights.Value.Excess = []string{"change settings"} }, Warn},
		{"too many rights, local", "cache.rights", func(s *Setup) { s.CacheRights.Value.Excess = []string{"change settings"} }, OK},
		{"too few rights", "cache.rights", func(s *Setup) {
			s.CacheRights.Value = Rights{Excess: []string{"change settings"}, Missing: []string{"scan"}}
		}, Fail},

		{"console not running", "web.answers", func(s *Setup) { s.Console.Err = boom }, Unknown},
		{"console not known", "web.answers", func(s *Setup) { s.Console.Asked = false }, Unknown},
		{"console refuses strangers", "web.answers", console("https://stoker.example", 401, consoleHeader()), OK},
		{"a proxy sends them to sign in", "web.answers", console("https://stoker.example", 302, nil), OK},
		{"everybody is let in", "web.answers", console("https://stoker.example", 200, consoleHeader()), Fail},
		{"headers lost", "web.answers", console("https://stoker.example", 401, http.Header{"X-Frame-Options": {"DENY"}}), Warn},
		{"in the clear", "web.answers", console("http://stoker.example", 401, consoleHeader()), Warn},

		{"no certificate looked at", "queue.transport", queueURL("rediss://stoker:x@10.0.0.5:6379?skip_verify=true"), Warn},
		{"the same, local", "queue.transport", queueURL("rediss://stoker:x@127.0.0.1:6379?skip_verify=true"), OK},

		{"body taken", "web.limits", func(s *Setup) { s.BodyLimit.Value = 422 }, Warn},
		{"body stopped by a proxy", "web.limits", func(s *Setup) { s.BodyLimit.Value = 302 }, OK},
		{"body not sent", "web.limits", func(s *Setup) { s.BodyLimit.Err = boom }, Unknown},
		{"nobody", "audit.actor", func(s *Setup) { s.Actor = "unknown@host" }, Warn},
		{"actor not known", "audit.actor", func(s *Setup) { s.Actor = "" }, Unknown},
		{"no worker", "processes", processes(running("scheduler", "v1")), Warn},
		{"no scheduler", "processes", processes(running("worker", "v1"), running("web", "v1")), Warn},
		{"processes untold", "processes", func(s *Setup) { s.Processes.Err = boom }, Unknown},
		{"two versions", "stoker.versions", processes(running("worker", "v1"), running("worker", "v2")), Warn},
		{"this one is newer", "stoker.versions", func(s *Setup) { s.Version = "v2" }, OK},
		{"nothing runs", "stoker.versions", processes(), OK},
		{"ticks missed", "schedule.ticks", ticks(Tick{"health", testNow.Add(-time.Hour), testNow.Add(-3 * time.Minute)}), Fail},
		{"ticks on time", "schedule.ticks", ticks(Tick{"health", testNow.Add(-time.Minute), testNow.Add(-3 * time.Minute)}), OK},
		{"no ticks yet", "schedule.ticks", ticks(Tick{"health", time.Time{}, testNow}), Unknown},
		{"ticks untold", "schedule.ticks", func(s *Setup) { s.Ticks.Err = boom }, Unknown},

		{"no drill for long", "drill", func(s *Setup) {
			s.Records[0].Docs = map[release.Doc]json.RawMessage{release.DocDrill: json.RawMessage(`{"good": true, "last_good": "2020-01-01T00:00:00Z"}`),
				release.DocSnapshot: json.RawMessage(`{"verified_at": "2020-01-01T00:00:00Z"}`)}
		}, Fail},
		{"drills untold", "drill", func(s *Setup) { s.RecordsErr = boom }, Unknown},

		{"template changed", "key.template", func(s *Setup) { s.Template = "x:<release>:<key>" }, Fail},
		{"template of an expired one", "key.template", func(s *Setup) {
			s.Records = append(s.Records, release.Record{ID: "r0", State: release.Expired, Template: "old:<release>:<key>"})
		}, OK},
		{"ledger untold", "key.template", func(s *Setup) { s.RecordsErr = boom }, Unknown},

		{"no room for two", "cache.two_releases", func(s *Setup) { s.ActiveBytes.Value = 901 }, Warn},
		{"just room for two", "cache.two_releases", func(s *Setup) { s.ActiveBytes.Value = 900 }, OK},
		{"no room beside the headroom", "cache.two_releases", func(s *Setup) { s.ActiveBytes.Value, s.Headroom = 801, 0.1 }, Warn},
		{"weight not known", "cache.two_releases", func(s *Setup) { s.ActiveBytes.Err = boom }, Unknown},
		{"nothing active", "cache.two_releases", func(s *Setup) { s.ActiveBytes = Answer[int64]{} }, Unknown},
		{"room not known", "cache.two_releases", func(s *Setup) { s.Cache = redisOf(Server{}) }, Unknown},

		{"clock ahead", "queue.clock", skew(3 * time.Second), Warn},
		{"clock behind", "queue.clock", skew(-3 * time.Second), Warn},
		{"clock close", "queue.clock", skew(-time.Second), OK},
		{"clock untold", "queue.clock", func(s *Setup) { s.Queue = redisOf(Server{}) }, Unknown},

		{"store unreachable", "snapshot.store", func(s *Setup) { s.Store.Err = boom }, Fail},
		{"no store", "snapshot.store", func(s *Setup) { s.Store.Asked = false }, Unknown},
		{"schedule broken", "schedule.file", func(s *Setup) { s.Schedule.Err = boom }, Fail},
		{"plan broken", "plan.file", func(s *Setup) { s.Plan.Err = boom }, Fail},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := sound()
			tt.change(&s)
			c := find(t, Diagnose(s, defaults(t)), tt.check)
			if c.Status != tt.want || c.Detail == "" {
				t.Errorf("%s: got %s (%s), want %s", tt.check, c.Status, c.Detail, tt.want)
			}
			if (c.Status == Warn || c.Status == Fail) && c.Remedy == "" {
				t.Errorf("%s: %s without a remedy", tt.check, c.Status)
			}
		})
	}
}

// consoleHeader is what the console sets.
func consoleHeader() http.Header {
	return http.Header{"Content-Security-Policy": {"default-src 'none'; script-src 'self'"}, "X-Content-Type-Options": {"nosniff"}, "X-Frame-Options": {"DENY"}}
}

// console is a guarded console that answers so.
func console(url string, status int, header http.Header) func(*Setup) {
	return func(s *Setup) {
		s.WebGuarded, s.Console.Value = true, Console{URL: url, Status: status, Header: header}
	}
}

func processes(p ...Process) func(*Setup) { return func(s *Setup) { s.Processes.Value = p } }

func ticks(t ...Tick) func(*Setup) { return func(s *Setup) { s.Ticks.Value = t } }

func queueURL(u string) func(*Setup) {
	return func(s *Setup) { s.QueueURL = parseEndpoint(u) }
}

func files(f ...SecretFile) func(*Setup) {
	return func(s *Setup) { s.Files = f }
}

func skew(d time.Duration) func(*Setup) {
	return func(s *Setup) { s.Queue.Servers[0].Skew = &d }
}

func TestDiagnoseSound(t *testing.T) {
	for _, c := range Diagnose(sound(), defaults(t)) {
		if c.Status != OK || c.Remedy != "" {
			t.Errorf("%s: got %s (%s; %s), want ok", c.Name, c.Status, c.Detail, c.Remedy)
		}
	}
}

func TestDoctor(t *testing.T) {
	queue, cache := redistest.Start(t, "--appendonly", "yes"), redistest.Start(t)
	tokens := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(tokens, []byte("s3cret"), 0o600); err != nil {
		t.Fatal(err)
	}
	console := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, values := range consoleHeader() {
			w.Header()[name] = values
		}
		if r.ContentLength > 1<<20 {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}
	}))
	defer console.Close()
	d := DoctorDeps{
		Queue: queue.Client, Cache: cache.Client, QueueURL: queue.URL, CacheURL: cache.URL, Template: tasks.DefaultTemplate,
		SecretFiles: map[string]string{"STOKER_WEB_TOKENS_FILE": tokens, "STOKER_REDIS_URL_FILE": tokens + ".gone"},
		WebAddr:     strings.TrimPrefix(console.URL, "http://"),
		QueueKeys:   []string{"stoker:{site}:doctor"}, CacheKeys: []string{"site:doctor:doctor"},
		Records: func(context.Context) ([]release.Record, error) {
			return []release.Record{{ID: "r1", State: release.Active, Template: tasks.DefaultTemplate}}, nil
		},
		ActiveBytes: func(_ context.Context, id string) (int64, error) { return int64(len(id)), nil },
		Store:       func(context.Context) (string, error) { return "", errors.New("disk full") },
		Schedule:    func() (string, error) { return "3 entries", nil },
		Actor:       "ann@host",
		Processes:   Processes{queue.Client, tasks.KeysOf("site")}.List,
		Ticks:       func(context.Context) ([]Tick, error) { now := time.Now(); return []Tick{{"health", now, now}}, nil },
	}
	want := map[string]Status{"secrets.files": Fail, "snapshot.store": Fail, "plan.file": Unknown, "processes": Warn}
	for _, c := range Doctor(context.Background(), d, defaults(t)) {
		if s, ok := want[c.Name]; ok && c.Status != s || !ok && c.Status != OK {
			t.Errorf("%s: got %s (%s)", c.Name, c.Status, c.Detail)
		}
	}
}

// TestProcesses: a process is in the list while it says so, and not when it has ended, or is silent.
func TestProcesses(t *testing.T) {
	server := redistest.Start(t)
	s := Processes{server.Client, tasks.KeysOf("site")}
	list := func() []Process {
		t.Helper()
		all, err := s.List(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	ctx, end := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); s.Announce(ctx, running("worker", "v1")) }()
	redistest.Eventually(t, "the worker", func() bool { return len(list()) == 1 })
	if diff := cmp.Diff([]Process{running("worker", "v1")}, list()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	end()
	<-ended
	if left := list(); len(left) > 0 {
		t.Errorf("%v, though it has ended", left)
	}

	dead := float64(time.Now().Add(-silence - time.Second).Unix())
	server.Client.ZAdd(context.Background(), s.Keys.Processes(), redis.Z{Score: dead, Member: `{"role":"web"}`})
	if left := list(); len(left) > 0 {
		t.Errorf("%v, though it is silent", left)
	}
	server.Client.ZAdd(context.Background(), s.Keys.Processes(), redis.Z{Score: dead * 2, Member: `web`})
	if _, err := s.List(context.Background()); err == nil {
		t.Error("what is no process was listed")
	}
}

// TestDoctorKeepsSecrets: no check may show a password, whatever the URL looks like.
func TestDoctorKeepsSecrets(t *testing.T) {
	mini := redistest.Mini(t)
	for _, u := range []string{
		"redis://stoker:hunter2@cache.example.org:6379/0",
		"redis://:hunter2@cache.example.org/%zz",
		"redis://stoker:hunter2 @cache.example.org",
		"hunter2",
	} {
		for _, c := range Doctor(context.Background(), DoctorDeps{Queue: mini, Cache: mini, QueueURL: u}, defaults(t)) {
			if strings.Contains(c.Detail+c.Remedy, "hunter2") {
				t.Errorf("%s shows the password: %s; %s", c.Name, c.Detail, c.Remedy)
			}
		}
	}
}

// TestRights tries users of a real Redis: stoker's own, wider ones, narrower ones. No trial changes
// anything.
func TestRights(t *testing.T) {
	server := redistest.Start(t)
	ctx := context.Background()
	const own, base = "stoker:{site}:doctor", " on nopass resetkeys resetchannels ~stoker:{site}:* &stoker:{site}:* +@read +@write +@pubsub +@transaction +@connection +eval +evalsha +script|load +script|exists +time -@dangerous +info +config|get +restore"
	tests := []struct {
		name, rules     string
		excess, missing []string
	}{
		{"asgiven", base, nil, nil},
		{"allkeys", base + " ~*", []string{"read other keys", "write other keys"}, nil},
		{"readall", base + " %R~*", []string{"read other keys"}, nil},
		{"channels", base + " &*", []string{"publish to other channels"}, nil},
		{"admin", base + " +@admin", []string{"change settings", "see and change users", "end other connections", "load modules", "make it a replica"}, nil},
		{"dangerous", base + " +swapdb +script", []string{"swap and flush databases", "drop scripts"}, nil},
		{"readonly", base + " resetkeys %R~stoker:{site}:*", nil, []string{"write keys like " + own, "restore keys like " + own}},
		{"another", base + " resetkeys ~stoker:{shop}:*", nil, []string{"read keys like " + own, "write keys like " + own, "restore keys like " + own}},
		{"noscripts", base + " -eval", nil, []string{"run scripts"}},
	}
	server.Client.Set(ctx, "kept", "1", 0)
	for _, tt := range tests {
		words := append([]any{"ACL", "SETUSER", tt.name}, anyOf(strings.Fields(tt.rules))...)
		if err := server.Client.Do(ctx, words...).Err(); err != nil {
			t.Fatal(err)
		}
		options := *server.Client.Options()
		options.Username, options.Password = tt.name, "any"
		c := redis.NewClient(&options)
		got, err := tryRights(ctx, c, append(needs([]string{own}), restores([]string{own})...))
		if diff := cmp.Diff(Rights{tt.excess, tt.missing}, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", tt.name, err, diff)
		}
		_ = c.Close()
	}
	if n := server.Client.DBSize(ctx).Val(); n != 1 {
		t.Errorf("%d keys after the trials, want the one", n)
	}
}

// TestRightsOfAll: on a server that knows no users all is allowed, and nothing is changed either.
func TestRightsOfAll(t *testing.T) {
	ctx, queue := context.Background(), redistest.Mini(t)
	queue.Set(ctx, "kept", "1", 0)
	got, err := tryRights(ctx, queue, needs([]string{"stoker:{site}:doctor"}))
	if err != nil || len(got.Excess) == 0 || len(got.Missing) > 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if n := queue.DBSize(ctx).Val(); n != 1 {
		t.Errorf("%d keys after the trials, want the one", n)
	}
	_ = queue.Close()
	if _, err := tryRights(ctx, queue, nil); err == nil {
		t.Error("rights that could not be tried were told")
	}
}

func anyOf(words []string) []any {
	var all []any
	for _, w := range words {
		all = append(all, w)
	}
	return all
}
