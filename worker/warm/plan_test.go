package warm

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/alphanode/stoker/tasks"
)

const goodPlan = `version: 1
hot: {access_log: /var/log/nginx/access.log*, top: 5000, entries: [{path: '/posts/{{.slug}}', key: 'post:{{.slug}}'}]}
sources:
  - name: articles
    query: {driver: postgres, dsn_env: SITE_DSN, sql: "SELECT slug, title FROM posts", page: {by: slug, size: 1000}}
    entry: {key: "post:{{.slug}}", value: json, ttl: 24h, jitter: 10%, tags: ["post:{{.slug}}"]}
  - name: pages
    crawl: {base: "http://canary:8080", sitemap: /sitemap.xml, headers: {X-Release: "{{.Release}}"}}
    expect: {key: "page:{{.Path}}", header: {X-Release: "{{.Release}}"}}
  - name: unchanged
    carry: {from: active, families: ["nav:", "asset:"]}
  - name: popular
    crawl: {base: "http://canary:8080", hot: true}
  - name: kept
    carry: {from: r1, hot: true}
  - name: own
    custom: {source: prices, with: {currency: EUR}}
certificate: {coverage: 99%, sample: 200, hot: 95%}
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
	if diff := cmp.Diff([]string{"query", "crawl", "carry", "crawl", "carry", "custom"}, kinds); diff != "" {
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

// badPlans replace one piece of a good plan; the refusal says want.
var badPlans = []struct{ name, old, new, want string }{
	{"empty", goodPlan, "", "empty"},
	{"version", "version: 1", "version: 2", "line 1, column 10: version: version 2"},
	{"unknown field", "dsn_env:", "dsn:", "line 5, column 31: unknown field \"dsn\""},
	{"unknown top field", "probes:", "probe:", "line 19, column 1: unknown field"},
	{"duplicate field", "certificate:", "version:", "line 18, column 1: mapping key \"version\" already defined"},
	{"wrong type", "size: 1000", "size: many", "line 5"},
	{"second document", goodPlan, goodPlan + "---\nversion: 1\n", "more than one YAML document"},
	{"duplicate name", "name: pages", "name: articles", `"articles" is the name of two sources`},
	{"bad name", "name: pages", "name: a b", "line 7, column 11: sources[1].name"},
	{"two kinds", "    expect:", "    carry: {from: active, families: [a]}\n    expect:", "has 2 of query, crawl, carry and custom"},
	{"no kind", "    carry: {from: active, families: [\"nav:\", \"asset:\"]}", "", "has 0 of query, crawl, carry and custom"},
	{"entry elsewhere", "    expect:", "    entry: {key: a}\n    expect:", "belongs to a query"},
	{"driver", "driver: postgres", "driver: oracle", "line 5, column 21: sources[0].query.driver: unknown driver \"oracle\""},
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
	{"expected name", "page:{{.Path}}", "page:{{.Pth}}", "a page has no Pth: it has Path, Query"},
	{"status", "expect: {", "expect: {status: 99, ", "status 99"},
	{"carry from", "from: active", "from: 'a b'", "release \"a b\""},
	{"empty family", "\"nav:\"", "\"\"", "an empty prefix"},
	{"reserved family", "\"nav:\"", "\"#tag:\"", "reserved"},
	{"coverage", "coverage: 99%", "coverage: 101%", "line 18"},
	{"sample", "sample: 200", "sample: 10001", "10001 entries"},
	{"probe base", "base: \"https://www.example.com\"", "base: www", "line 19"},
	{"probe path", "\"/about\"", "about", "begin it with /"},
	{"probe count", "count: 50", "count: -1", "-1 requests"},
	{"no hot list", "access_log: /var/log/nginx/access.log*, ", "", "line 2, column 6: hot: no list"},
	{"two hot lists", "top: 5000", "keys_of: active", "two lists"},
	{"hot size", "top: 5000", "top: 100001", "100001 entries"},
	{"hot entry", "path: '/posts/{{.slug}}'", "path: 'posts'", "begin it with /"},
	{"hot release", "access_log: /var/log/nginx/access.log*, top: 5000, entries: [{path: '/posts/{{.slug}}', key: 'post:{{.slug}}'}]", "keys_of: 'a b'", "release \"a b\""},
	{"hot crawl of no list", "hot: {access_log: /var/log/nginx/access.log*, top: 5000, entries: [{path: '/posts/{{.slug}}', key: 'post:{{.slug}}'}]}", "", "wants the hot list"},
	{"hot demand", "hot: 95%", "hot: 95", "with the percent sign"},
	{"custom name", "source: prices", "source: 'a b'", "custom.source"},
	{"entry of a custom source", "    custom:", "    entry: {key: a}\n    custom:", "belongs to a query"},
}

// TestPlanRefused: the refusal of a bad plan names the place.
func TestPlanRefused(t *testing.T) {
	for _, tt := range badPlans {
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

// byParserOnly are the bad plans that no schema can tell from good ones.
var byParserOnly = []string{"second document", "duplicate name", "semicolon", "key template", "reserved key", "value", "jitter of nothing",
	"tag template", "base", "base with path", "no addresses", "timeout", "header name", "expected key", "expected name", "hot crawl of no list", "probe base", "coverage"}

// TestSchemaJudgesLikeTheParser validates good and bad plans by the published schema: it accepts what the
// parser does, and refuses what that does, but for what a schema cannot know.
func TestSchemaJudgesLikeTheParser(t *testing.T) {
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(Schema)))
	must(t, err)
	c := jsonschema.NewCompiler()
	must(t, c.AddResource("plan.json", doc))
	schema, err := c.Compile("plan.json")
	must(t, err)
	validate := func(text string) error {
		raw, err := yaml.YAMLToJSON([]byte(text))
		if err != nil {
			return err
		}
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(string(raw)))
		if err != nil {
			return err
		}
		return schema.Validate(v)
	}
	for _, text := range []string{goodPlan, strings.Replace(sitePlan, "SITE\"", "http://canary:8080\"", 1), ownKindsPlan} {
		if _, err := ParsePlan([]byte(text)); err != nil {
			t.Errorf("parser: %v", err)
		}
		if err := validate(text); err != nil {
			t.Errorf("schema: %v", err)
		}
	}
	for _, tt := range badPlans {
		err := validate(strings.Replace(goodPlan, tt.old, tt.new, 1))
		if only := slices.Contains(byParserOnly, tt.name); (err == nil) != only {
			t.Errorf("%s: the schema says %v; only the parser can tell: %v", tt.name, err, only)
		}
	}
}

const ownKindsPlan = `version: 1
hot: {keys_of: active}
sources: [{name: a, carry: {from: active, hot: true}}, {name: b, custom: {source: x}}]
`

// TestEveryProblem: all that is wrong is told in one go, in the order of the text.
func TestEveryProblem(t *testing.T) {
	_, err := ParsePlan([]byte(`version: 2
source: []
sources:
  - name: a
    query: {driver: oracle, dsn: X, dsn_env: SITE_DSN, sql: "SELECT 1", page: {by: id, size: 0, from: 1}}
    entry: {keys: "x", key: "{{.a"}
  - name: a
    carry: {from: active, families: ["#x"]}
certificate: {coverage: 101%, samples: 3}
`))
	want := []string{
		"line 1, column 10: version: version 2", `line 2, column 1: unknown field "source": did you mean sources?`,
		"line 5, column 21: sources[0].query.driver", `line 5, column 29: unknown field "dsn"`, "line 5, column 94: sources[0].query.page.size", `line 5, column 97: unknown field "from"`,
		`line 6, column 13: unknown field "keys": did you mean key?`, "line 6, column 29: sources[0].entry.key", "line 7, column 11: sources[1].name",
		"line 8, column 37: sources[1].carry.families", "line 9, column 25: certificate.coverage", `line 9, column 31: unknown field "samples": did you mean sample?`,
	}
	lines := strings.Split(strings.TrimPrefix(fmt.Sprint(err), "plan: invalid input: 12 problems:\n  "), "\n  ")
	if len(lines) != len(want) {
		t.Fatalf("%d problems, want %d:\n%v", len(lines), len(want), err)
	}
	for i := range want {
		if !strings.HasPrefix(lines[i], want[i]) {
			t.Errorf("problem %d: %s\nwant %s", i, lines[i], want[i])
		}
	}
}

// TestPlanWithAnchors: what an alias repeats is read and checked like the rest.
func TestPlanWithAnchors(t *testing.T) {
	const text = "version: 1\nsources:\n- name: a\n  carry: &c {from: active, families: [x]}\n- name: b\n  carry: *c\n- name: d\n  carry: {<<: *c}\n"
	p, err := ParsePlan([]byte(text))
	if err != nil || p.Sources[1].Carry.Families[0] != "x" || p.Sources[2].Carry.From != "active" || p.Sources[2].Carry.Families[0] != "x" {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := ParsePlan([]byte(strings.Replace(text, "families", "family", 1))); !errors.Is(err, tasks.ErrInvalid) || !strings.Contains(err.Error(), `"family"`) {
		t.Errorf("got %v, want an unknown field", err)
	}
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
