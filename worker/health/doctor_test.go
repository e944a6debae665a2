package health

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
	"github.com/alphanode/stoker/worker/release"
)

// sound returns an installation of which every check is ok.
func sound() Setup {
	h := healthy()
	return Setup{
		Queue: h.Queue, Cache: h.Cache,
		QueueURL: parseEndpoint("rediss://stoker:x@queue.example.org:6379/0"),
		CacheURL: parseEndpoint("redis://127.0.0.1:6380"),
		Files:    []SecretFile{{Setting: "STOKER_WEB_TOKENS_FILE", Path: "tokens", Mode: 0o600}},
		WebAddr:  "127.0.0.1:8080", Template: tasks.DefaultTemplate,
		Records:     []release.Record{{ID: "r1", State: release.Active, Template: tasks.DefaultTemplate}},
		ActiveBytes: Answer[int64]{Asked: true, Value: 500},
		Store:       Answer[string]{Asked: true, Value: "file store"},
		Schedule:    Answer[string]{Asked: true, Value: "3 entries"},
		Plan:        Answer[string]{Asked: true, Value: "2 sources"},
	}
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

		{"template changed", "key.template", func(s *Setup) { s.Template = "x:<release>:<key>" }, Fail},
		{"template of an expired one", "key.template", func(s *Setup) {
			s.Records = append(s.Records, release.Record{ID: "r0", State: release.Expired, Template: "old:<release>:<key>"})
		}, OK},
		{"ledger untold", "key.template", func(s *Setup) { s.RecordsErr = boom }, Unknown},

		{"no room for two", "cache.two_releases", func(s *Setup) { s.ActiveBytes.Value = 901 }, Warn},
		{"just room for two", "cache.two_releases", func(s *Setup) { s.ActiveBytes.Value = 900 }, OK},
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
	d := DoctorDeps{
		Queue: queue.Client, Cache: cache.Client, QueueURL: queue.URL, CacheURL: cache.URL, Template: tasks.DefaultTemplate,
		SecretFiles: map[string]string{"STOKER_WEB_TOKENS_FILE": tokens, "STOKER_REDIS_URL_FILE": tokens + ".gone"},
		WebAddr:     "localhost:8080",
		Records: func(context.Context) ([]release.Record, error) {
			return []release.Record{{ID: "r1", State: release.Active, Template: tasks.DefaultTemplate}}, nil
		},
		ActiveBytes: func(_ context.Context, id string) (int64, error) { return int64(len(id)), nil },
		Store:       func(context.Context) (string, error) { return "", errors.New("disk full") },
		Schedule:    func() (string, error) { return "3 entries", nil },
	}
	want := map[string]Status{"secrets.files": Fail, "snapshot.store": Fail, "plan.file": Unknown}
	for _, c := range Doctor(context.Background(), d, defaults(t)) {
		if s, ok := want[c.Name]; ok && c.Status != s || !ok && c.Status != OK {
			t.Errorf("%s: got %s (%s)", c.Name, c.Status, c.Detail)
		}
	}
}

// TestDoctorKeepsSecrets: no check may show a password, whatever the URL looks like.
func TestDoctorKeepsSecrets(t *testing.T) {
	redis := redistest.Mini(t)
	for _, u := range []string{
		"redis://stoker:hunter2@cache.example.org:6379/0",
		"redis://:hunter2@cache.example.org/%zz",
		"redis://stoker:hunter2 @cache.example.org",
		"hunter2",
	} {
		for _, c := range Doctor(context.Background(), DoctorDeps{Queue: redis, Cache: redis, QueueURL: u}, defaults(t)) {
			if strings.Contains(c.Detail+c.Remedy, "hunter2") {
				t.Errorf("%s shows the password: %s; %s", c.Name, c.Detail, c.Remedy)
			}
		}
	}
}
