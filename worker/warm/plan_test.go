package warm

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphanode/stoker/tasks"
)

const goodPlan = `version: 1
sources:
  - name: articles
    query: {driver: postgres, dsn_env: SITE_DSN, sql: "SELECT slug, title FROM posts", page: {by: slug, size: 1000}}
    entry: {key: "post:{{.slug}}", value: json, ttl: 24h, jitter: 10%, tags: ["post:{{.slug}}"]}
  - name: pages
    crawl: {base: "http://canary:8080", sitemap: /sitemap.xml, headers: {X-Release: "{{.Release}}"}}
    expect: {key: "page:{{.Path}}", header: {X-Release: "{{.Release}}"}}
  - name: unchanged
    carry: {from: active, families: ["nav:", "asset:"]}
certificate: {coverage: 99%, sample: 200}
probes: {base: "https://www.example.com", paths: ["/", "/about"], count: 50}
`

func TestParsePlan(t *testing.T) {
	p, err := ParsePlan([]byte(goodPlan))
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Sources[0].Entry.TTL.Or(0); got != 24*time.Hour {
		t.Errorf("ttl = %v, want 24h", got)
	}
	var kinds []string
	for _, s := range p.Sources {
		kinds = append(kinds, s.Kind())
	}
	if diff := cmp.Diff([]string{"query", "crawl", "carry"}, kinds); diff != "" {
		t.Error(diff)
	}
	if p.Certificate.coverage() != 0.99 || p.Certificate.sample() != 200 || p.Probes.Count != 50 {
		t.Errorf("demand %+v, probes %+v", p.Certificate, p.Probes)
	}
}

func TestPlanDefaults(t *testing.T) {
	p, err := ParsePlan([]byte("version: 1\nsources: [{name: a, carry: {from: r1, families: [x]}}]\nprobes: {base: 'http://h', paths: [/]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if p.Certificate.coverage() != DefaultCoverage || p.Certificate.sample() != DefaultSample || p.Probes.Count != DefaultProbes {
		t.Errorf("demand %+v, probes %+v", p.Certificate, p.Probes)
	}
}

// TestPlanRefused replaces one piece of a good plan and wants the refusal to name the place.
func TestPlanRefused(t *testing.T) {
	tests := []struct{ name, old, new, want string }{
		{"empty", goodPlan, "", "empty"},
		{"version", "version: 1", "version: 2", "line 1, column 10: version: version 2"},
		{"unknown field", "dsn_env:", "dsn:", "line 4, column 31: unknown field \"dsn\""},
		{"unknown top field", "probes:", "probe:", "line 12, column 1: unknown field"},
		{"duplicate field", "certificate:", "version:", "line 11, column 1: mapping key \"version\" already defined"},
		{"wrong type", "size: 1000", "size: many", "line 4"},
		{"second document", goodPlan, goodPlan + "---\nversion: 1\n", "more than one YAML document"},
		{"duplicate name", "name: pages", "name: articles", `"articles" is the name of two sources`},
		{"bad name", "name: pages", "name: a b", "line 6, column 11: sources[1].name"},
		{"two kinds", "    expect:", "    carry: {from: active, families: [a]}\n    expect:", "has 2 of query, crawl and carry"},
		{"no kind", "    carry: {from: active, families: [\"nav:\", \"asset:\"]}", "", "has 0 of query, crawl and carry"},
		{"entry elsewhere", "    expect:", "    entry: {key: a}\n    expect:", "belongs to a query"},
		{"driver", "driver: postgres", "driver: oracle", "line 4, column 21: sources[0].query.driver: unknown driver \"oracle\""},
		{"dsn in the plan", "dsn_env: SITE_DSN", "dsn_env: 'postgres://u:secret@h/d'", "not the name of an environment variable"},
		{"semicolon", "FROM posts\"", "FROM posts;\"", "ends with a semicolon"},
		{"not a select", "SELECT slug, title FROM", "DROP TABLE", "SELECT or WITH"},
		{"page size", "size: 1000", "size: 0", "0 rows"},
		{"page column", "by: slug", "by: 'slug; --'", "plain name"},
		{"key template", "post:{{.slug}}\", value", "post:{{.slug\", value", "sources[0].entry.key"},
		{"reserved key", "key: \"post:", "key: \"#post:", "reserved"},
		{"value", "value: json", "value: jsn", "use json, column:NAME or a template"},
		{"ttl", "ttl: 24h", "ttl: 1d", "duration \"1d\""},
		{"negative ttl", "ttl: 24h", "ttl: -1h", "duration \"-1h\""},
		{"jitter", "jitter: 10%", "jitter: 10", "with the percent sign"},
		{"jitter of nothing", "ttl: 24h, ", "", "of no ttl"},
		{"tag template", "tags: [\"post:{{.slug}}\"]", "tags: [\"{{\"]", "sources[0].entry.tags"},
		{"base", "base: \"http://canary:8080\"", "base: canary", "use scheme and host"},
		{"base with path", "canary:8080\"", "canary:8080/app\"", "use scheme and host"},
		{"no addresses", "sitemap: /sitemap.xml, ", "", "no addresses"},
		{"concurrency", "sitemap:", "concurrency: 65, sitemap:", "65 requests"},
		{"timeout", "sitemap:", "timeout: 11m, sitemap:", "timeout"},
		{"header name", "headers: {X-Release:", "headers: {'X Release':", "not a header's name"},
		{"expected key", "key: \"page:{{.Path}}\"", "key: \"#p\"", "reserved"},
		{"status", "expect: {", "expect: {status: 99, ", "status 99"},
		{"carry from", "from: active", "from: 'a b'", "release \"a b\""},
		{"empty family", "\"nav:\"", "\"\"", "an empty prefix"},
		{"reserved family", "\"nav:\"", "\"#tag:\"", "reserved"},
		{"coverage", "coverage: 99%", "coverage: 101%", "line 11"},
		{"sample", "sample: 200", "sample: 10001", "10001 entries"},
		{"probe base", "base: \"https://www.example.com\"", "base: www", "line 12"},
		{"probe path", "\"/about\"", "about", "begin it with /"},
		{"probe count", "count: 50", "count: -1", "-1 requests"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !strings.Contains(goodPlan, tt.old) {
				t.Fatalf("the good plan does not hold %q", tt.old)
			}
			_, err := ParsePlan([]byte(strings.Replace(goodPlan, tt.old, tt.new, 1)))
			if !errors.Is(err, tasks.ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v\nwant invalid input with %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error repeats a password: %v", err)
			}
		})
	}
}

func TestPlanTooLarge(t *testing.T) {
	if _, err := ParsePlan(make([]byte, maxPlan+1)); !errors.Is(err, tasks.ErrInvalid) {
		t.Errorf("got %v, want invalid input", err)
	}
}

func TestPlanPick(t *testing.T) {
	p, err := ParsePlan([]byte(goodPlan))
	if err != nil {
		t.Fatal(err)
	}
	picked, err := p.pick([]string{"pages", "pages"})
	if err != nil || len(picked) != 1 || picked[0].Name != "pages" {
		t.Errorf("picked %v, %v", picked, err)
	}
	if _, err := p.pick([]string{"none"}); !errors.Is(err, tasks.ErrInvalid) {
		t.Errorf("got %v, want invalid input", err)
	}
}

func FuzzParsePlan(f *testing.F) {
	f.Add([]byte(goodPlan))
	f.Add([]byte("sources: [{}]"))
	f.Add([]byte("version: 1\nsources:\n- &a {name: *a}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParsePlan(text)
		if err != nil && !errors.Is(err, tasks.ErrInvalid) {
			t.Errorf("error of another cause: %v", err)
		}
		if err == nil && (p.Version != PlanVersion || len(p.Sources) == 0) {
			t.Errorf("accepted %+v", p)
		}
	})
}

// TestSchema holds the published schema against the structs, both ways.
func TestSchema(t *testing.T) {
	var root map[string]any
	if err := json.Unmarshal(Schema, &root); err != nil {
		t.Fatal(err)
	}
	defs := root["$defs"].(map[string]any)
	compareSchema(t, "plan", root, reflect.TypeFor[Plan](), defs)
}

func compareSchema(t *testing.T, path string, object map[string]any, typ reflect.Type, defs map[string]any) {
	t.Helper()
	if object["additionalProperties"] != false {
		t.Errorf("%s: the schema lets unknown fields pass", path)
	}
	properties := object["properties"].(map[string]any)
	var want, got []string
	for name := range properties {
		got = append(got, name)
	}
	for i := range typ.NumField() {
		field := typ.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		want = append(want, name)
		inner := field.Type
		for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		property, ok := properties[name].(map[string]any)
		if inner.Kind() != reflect.Struct || !ok {
			continue
		}
		if items, ok := property["items"].(map[string]any); ok {
			property = items
		}
		ref, ok := property["$ref"].(string)
		if !ok {
			t.Errorf("%s.%s: no $ref", path, name)
			continue
		}
		compareSchema(t, path+"."+name, defs[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any), inner, defs)
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: schema and struct differ (-struct +schema):\n%s", path, diff)
	}
}

func TestOwnPlan(t *testing.T) {
	file := filepath.Join(t.TempDir(), "plan.yaml")
	if err := os.WriteFile(file, []byte(goodPlan), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, plan, want string
	}{{"none", "", "no plan"}, {"missing", file + ".gone", "STOKER_PLAN"}, {"there", file, ""}} {
		r, err := New(Config{Plan: tt.plan, WarmBatch: 100}, Deps{})
		if err != nil {
			t.Fatal(err)
		}
		text, err := r.ownPlan()
		if tt.want == "" {
			if err != nil || string(text) != goodPlan {
				t.Errorf("%s: %q, %v", tt.name, text, err)
			}
		} else if !errors.Is(err, tasks.ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want invalid input with %q", tt.name, err, tt.want)
		}
	}
}

// TestPlanMalformed: text that the YAML library panics on is refused like any other.
func TestPlanMalformed(t *testing.T) {
	_, err := ParsePlan([]byte("sources:\n  ! #000000000000000000000000000000000000000000"))
	if !errors.Is(err, tasks.ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
}
