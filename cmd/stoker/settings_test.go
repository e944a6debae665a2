package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite what this package's tests hold against files: the README's table, goldens")

// bareEnvironment takes every setting out of this process's environment for one test.
func bareEnvironment(t *testing.T) {
	t.Helper()
	for _, pair := range os.Environ() {
		if name, _, _ := strings.Cut(pair, "="); strings.HasPrefix(name, envPrefix+"_") {
			unset(t, name)
		}
	}
}

// unset takes one variable out of the environment until the test ends.
func unset(t *testing.T, name string) {
	t.Helper()
	t.Setenv(name, "") // brings it back
	if err := os.Unsetenv(name); err != nil {
		t.Fatal(err)
	}
}

// field of a room, as "tasks.Config.RedisURL", and its value.
func fieldsOf(s *settings) map[string]any {
	all := map[string]any{}
	for _, room := range s.rooms() {
		v := reflect.ValueOf(room).Elem()
		for i := range v.NumField() {
			all[v.Type().String()+"."+v.Type().Field(i).Name] = v.Field(i).Interface()
		}
	}
	return all
}

// others holds a valid value that is not the default for each setting whose type does not tell.
var others = map[string]string{
	"STOKER_APP": "blog", "STOKER_REDIS_URL": "redis://queue:6379/3", "STOKER_CACHE_URL": "redis://cache:6379/0",
	"STOKER_KEY_TEMPLATE": "<app>/<release>/<key>", "STOKER_RELEASE": "r7", "STOKER_LANES": "warm,health",
	"STOKER_PLAN": "stoker.yaml", "STOKER_PACE": "gentle", "STOKER_CRAWL_NETWORKS": "10.0.0.0/8,fd00::/8", "STOKER_SNAPSHOT_URL": "file:///archives",
	"STOKER_SNAPSHOT_KEY_FILE": "/keys", "STOKER_RETAIN_MEMORY": "2GiB",
	"STOKER_SCHEDULE": "schedule.yaml", "STOKER_WEB_ADDR": "127.0.0.1:9090", "STOKER_WEB_TOKENS_FILE": "tokens",
	"STOKER_WEB_URL": "https://stoker.example", "STOKER_PROMETHEUS_URL": "http://prometheus:9090", "STOKER_WEB_SESSION": "2h", "STOKER_WEB_PROXIES": "10.0.0.7,10.1.0.0/16",
	"STOKER_WEB_PROXY_USER": "X-Forwarded-User", "STOKER_WEB_PROXY_GROUPS": "X-Forwarded-Groups", "STOKER_WEB_OPERATORS": "ann,ops",
	"STOKER_WEB_OIDC_ISSUER": "https://id.example", "STOKER_WEB_OIDC_CLIENT": "console", "STOKER_WEB_OIDC_SECRET_FILE": "secret",
	"STOKER_WEB_OIDC_SCOPES": "openid,groups", "STOKER_WEB_OIDC_GROUPS": "roles",
	"STOKER_API_URL": "https://stoker.example", "STOKER_API_TOKEN_FILE": "token", "STOKER_API_CA_FILE": "ca.pem",
	"STOKER_PROBE_CACHE_HEADER": "X-Hit", "STOKER_PROBE_DB_METRIC": "sql",
	"STOKER_PROBE_DB_HEADER": "X-Queries", "STOKER_WEBHOOK_FORMAT": "slack",
	"STOKER_WEBHOOK_URL": "https://chat.example/hook", "STOKER_WEBHOOK_SECRET": "a secret of more than 24 characters",
}

func other(t *testing.T, name string, field any) string {
	t.Helper()
	if v, ok := others[name]; ok {
		return v
	}
	switch reflect.TypeOf(field).String() {
	case "bool":
		return "true"
	case "int":
		return "3"
	case "float64":
		return "0.7"
	case "time.Duration":
		return "7s"
	}
	t.Fatalf("%s is a %T: give it a value in this test", name, field)
	return ""
}

// What describe lists is what is read: each variable, set, arrives in the fields that bear its
// name and in no other, and no field is left that none reaches.
func TestSettingsArrive(t *testing.T) {
	bareEnvironment(t)
	load := func() map[string]any {
		t.Helper()
		s, err := loadSettings()
		if err != nil {
			t.Fatal(err)
		}
		return fieldsOf(s)
	}
	defaults := load()
	reached := map[string]bool{}
	for _, v := range describe() {
		var named []string
		for name := range defaults {
			if envPrefix+"_"+strings.ToUpper(words(name[strings.LastIndex(name, ".")+1:])) == v.Name {
				named = append(named, name)
			}
		}
		if len(named) == 0 {
			t.Errorf("%s names no field", v.Name)
			continue
		}
		value := other(t, v.Name, defaults[named[0]])
		t.Setenv(v.Name, value)
		now := load()
		for name := range defaults {
			changed := !reflect.DeepEqual(now[name], defaults[name])
			switch {
			case changed && slices.Contains(named, name):
				reached[name] = true
			case changed:
				t.Errorf("%s=%s changed %s", v.Name, value, name)
			case slices.Contains(named, name):
				t.Errorf("%s=%s did not reach %s", v.Name, value, name)
			}
		}
		shown := describe()[slices.IndexFunc(describe(), func(s setting) bool { return s.Name == v.Name })]
		if shown.Value != conceal(v.Name, value) || shown.Source != "environment" {
			t.Errorf("%s=%s is shown as %q from the %s", v.Name, value, shown.Value, shown.Source)
		}
		if v.Help == "" {
			t.Errorf("%s has no words in its desc tag", v.Name)
		}
		unset(t, v.Name)
	}
	for name := range defaults {
		if !reached[name] {
			t.Errorf("no variable reaches %s", name)
		}
	}
}

// A variable of another program, such as URL or PLAN, is not taken for a setting.
func TestSettingsNeedTheirPrefix(t *testing.T) {
	bareEnvironment(t)
	want, err := loadSettings()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range describe() {
		t.Setenv(strings.TrimPrefix(v.Name, envPrefix+"_"), "nonsense")
	}
	got, err := loadSettings()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fieldsOf(want), fieldsOf(got)); diff != "" {
		t.Errorf("unprefixed variables were read (-without +with):\n%s", diff)
	}
}

func TestSecretFromFile(t *testing.T) {
	const url, shownURL = "redis://:s3cret@queue:6379/3", "redis://:xxxxx@queue:6379/3"
	values := map[string]struct{ value, shown string }{
		"STOKER_REDIS_URL":      {url, shownURL},
		"STOKER_CACHE_URL":      {url, shownURL},
		"STOKER_WEBHOOK_URL":    {"https://ann:s3cret@chat.example/hooks/s3cret?k=s3cret", "https://chat.example/xxxxx"},
		"STOKER_WEBHOOK_SECRET": {"s3cret s3cret s3cret s3cret", "xxxxx"},
	}
	for _, name := range secrets {
		t.Run(name, func(t *testing.T) {
			bareEnvironment(t)
			file := filepath.Join(t.TempDir(), "secret")
			want := values[name]
			if err := os.WriteFile(file, []byte(want.value+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv(name+"_FILE", file)
			s, err := loadSettings()
			if err != nil {
				t.Fatal(err)
			}
			if got := []string{s.Tasks.RedisURL, s.Tasks.CacheURL, s.Notify.WebhookURL, s.Notify.WebhookSecret}; !slices.Contains(got, want.value) {
				t.Errorf("read %q, want %q among them", got, want.value)
			}
			if value, ok := os.LookupEnv(name); ok {
				t.Errorf("%s=%s is left in the environment, for child processes to inherit", name, value)
			}
			for _, v := range describe() {
				if v.Name == name && (v.Source != "file "+file || v.Value != want.shown) {
					t.Errorf("shown as %+v", v)
				}
			}
			if unknown := unknownSettings(); len(unknown) > 0 {
				t.Errorf("%q taken for misspelt", unknown)
			}
		})
	}
}

func TestRedact(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"},
		{"redis://ann@host:6379/0", "redis://ann@host:6379/0"},
		{"rediss://ann:s3cret@host:6379/0", "rediss://ann:xxxxx@host:6379/0"},
		{"unix://ann:s3cret@/run/redis.sock?db=1", "unix://ann:xxxxx@/run/redis.sock?db=1"},
		{"redis-sentinel://:s3cret@a:26379/0?master_name=m&addr=b:26379", "redis-sentinel://:xxxxx@a:26379/0?master_name=m&addr=b:26379"},
		{"redis-sentinel://a:26379/0?master_name=m&password=s3cret", "redis-sentinel://a:26379/0?master_name=m&password=xxxxx"},
		{"redis://:s3cr et@host:6379", "xxxxx"}, // not URLs: nobody can tell where the password ends
		{"redis://:s3/cret@host:6379", "xxxxx"},
		{"ann:s3cret@host:6379", "xxxxx"},
		{"redis://:123?cret@host:6379", "xxxxx"},
	} {
		if got := redact(c.in); got != c.want {
			t.Errorf("redact(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

func TestUnknownSettings(t *testing.T) {
	bareEnvironment(t)
	t.Setenv("STOKER_REDIS_URI", "redis://127.0.0.1:6379/0")
	t.Setenv("STOKER_APP", "blog")
	t.Setenv("STOKER_APP_FILE", "app")
	if diff := cmp.Diff([]string{"STOKER_APP_FILE", "STOKER_REDIS_URI"}, unknownSettings()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

const (
	readme     = "../../README.md"
	tableBegin = "<!-- settings -->\n"
	tableEnd   = "<!-- /settings -->"
)

// settingsTable is the README's table of settings.
func settingsTable() string {
	cell := strings.NewReplacer("|", `\|`, "\n", " ")
	b := new(strings.Builder)
	b.WriteString("| setting | default | meaning |\n|---|---|---|\n")
	for _, s := range describe() {
		value := ""
		if s.Default != "" {
			value = "`" + cell.Replace(s.Default) + "` "
		}
		fmt.Fprintf(b, "| `%s` | %s| %s |\n", s.Name, value, cell.Replace(s.Help))
	}
	return b.String()
}

// The README's table equals the code; run with -update to write it.
func TestReadmeSettings(t *testing.T) {
	bareEnvironment(t)
	raw, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(raw), tableBegin)
	table, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		t.Fatalf("%s lacks the lines %s and %s", readme, strings.TrimSpace(tableBegin), tableEnd)
	}
	want := settingsTable()
	if *update {
		if err := os.WriteFile(readme, []byte(before+tableBegin+want+tableEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, table); diff != "" {
		t.Errorf("the table of settings in %s is not the code's; go test ./cmd/stoker -run TestReadmeSettings -update writes it (-code +README):\n%s", readme, diff)
	}
}
