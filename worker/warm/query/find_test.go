package query_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/query"
	"github.com/alphanode/stoker/worker/warm/source"
)

// find asks for keys and returns the answers by key: "found", "gone", or why it failed.
func (d database) find(t *testing.T, sql string, e query.Entry, keys ...string) map[string]string {
	t.Helper()
	spec := query.Spec{Driver: d.driver, DSNEnv: "SITE_DSN", SQL: sql}
	got := map[string]string{}
	err := d.open(t, spec, e).Find(t.Context(), keys, func(c source.Chunk) error {
		for _, e := range c.Entries {
			got[e.Key] = "found"
		}
		for _, key := range c.Gone {
			got[key] = "gone"
		}
		for _, f := range c.Failed {
			got[f.Key] = f.Error
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// walked returns the keys of a walk.
func (d database) walked(t *testing.T, sql string, e query.Entry) []string {
	t.Helper()
	var keys []string
	spec := query.Spec{Driver: d.driver, DSNEnv: "SITE_DSN", SQL: sql}
	err := d.open(t, spec, e).Walk(t.Context(), source.Part{}, "", func(c source.Chunk) error {
		for _, e := range c.Entries {
			keys = append(keys, e.Key)
		}
		for _, f := range c.Failed {
			t.Errorf("%q: %s", f.Key, f.Error)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// columns are expressions of each type that can be part of a key, by database.
var columns = map[string][]string{
	"sqlite": {"id", "id * 1000000007", "price", "price + id", "slug", "upper(slug)", "body"},
	"postgres": {
		"id", "id::int", "id::smallint", "price", "price::real / 10", "price::numeric(9,3)", "slug", "title::char(40)",
		"slug::name", "body", "id > 100", "at", "at::timestamp", "at::date", "slug::text::citext_like",
		"('00000000-0000-4000-8000-' || lpad(id::text, 12, '0'))::uuid",
	},
	"mysql": {
		"id", "CAST(id AS UNSIGNED) + 9223372036854775807", "price", "CAST(price AS DECIMAL(9,3))", "slug",
		"CAST(title AS CHAR(40))", "body", "at", "CAST(at AS DATE)", "upper(slug)",
	},
}

// findByType makes keys of columns of each type and asks for what a walk reads. No key, whatever it
// holds, may spoil the answer for the others.
func (d database) findByType(t *testing.T) {
	e := query.Entry{Key: "k:{{.x}}", Value: "column:id"}
	for _, column := range columns[d.driver] {
		if strings.HasSuffix(column, "citext_like") {
			column = "CASE WHEN id % 2 = 0 THEN 'even' ELSE 'odd' END::parity"
			d.exec(t, "CREATE TYPE parity AS ENUM ('even', 'odd')")
		}
		sql := "SELECT " + column + " AS x, id FROM posts WHERE id IN (1)"
		keys := d.walked(t, sql, e)
		if len(keys) != 1 {
			t.Fatalf("%s: a walk reads %q, want one key", column, keys)
		}
		strange := []string{"k:", "k:x", "k:-1", "k:1e400", "k:NaN", "k:00000000-0000-4000-8000-00000000000g",
			"k:99999999999999999999", "k:18446744073709551615", "k:9223372036854775807", "k:-32769", "k:2026-01-02T03:04:05.000000007Z", "k:\x00", "k:\xff", "k:\\xff"}
		for key, answer := range d.find(t, sql, e, append(strange, keys...)...) {
			want := "gone"
			if key == keys[0] {
				want = "found"
			}
			if answer != want {
				t.Errorf("%s: %q: %s, want %s", column, key, answer, want)
			}
		}
	}
	refused := map[string]string{"sqlite": "at", "postgres": "meta", "mysql": "CAST(price AS FLOAT)"}[d.driver]
	got := d.find(t, "SELECT "+refused+" AS x FROM posts", e, "k:1")
	if !strings.Contains(got["k:1"], `column "x"`) || !strings.Contains(got["k:1"], "cannot be compared") {
		t.Errorf("%s: %q, want why it cannot be asked", refused, got)
	}
	if got := d.find(t, "SELECT id FROM posts", e, "k:1"); !strings.Contains(got["k:1"], `no column "x"`) {
		t.Errorf("no such column: %q", got)
	}
}

// findBySeveral makes keys of two columns, where one key can be read in two ways.
func (d database) findBySeveral(t *testing.T) {
	const sql = "SELECT 'a' AS a, 'b:c' AS b, 1 AS v UNION ALL SELECT 'a:b', 'd', 2 UNION ALL SELECT 'x', 'y', 3"
	e := query.Entry{Key: "{{.Release}}/{{.a}}:{{.b}}", Value: "column:v"}
	got := d.find(t, sql, e, "r1/a:b:c", "r1/a:b:d", "r1/x:y", "r1/x:d", "r2/x:y", "r1/a")
	for key, want := range map[string]string{
		"r1/a:b:c": "found", "r1/a:b:d": "found", "r1/x:y": "found", "r1/x:d": "gone", "r2/x:y": "gone", "r1/a": "gone",
	} {
		if got[key] != want {
			t.Errorf("%q: %q, want %q", key, got[key], want)
		}
	}
	if got := d.find(t, sql+" UNION ALL SELECT 'z', 'z', 4", query.Entry{Key: "fixed", Value: "json"}, "fixed"); !strings.Contains(got["fixed"], "several rows") {
		t.Errorf("a key of no column, of rows that differ: %q", got)
	}
}

// findDoubles has several rows of one key, and a row whose value cannot be made.
func (d database) findDoubles(t *testing.T) {
	const sql = "SELECT 's' AS a, 'v' AS v UNION ALL SELECT 's', 'v' UNION ALL SELECT 't', 'v' UNION ALL SELECT 't', 'w' UNION ALL SELECT 'n', NULL"
	got := d.find(t, sql, query.Entry{Key: "{{.a}}", Value: "column:v"}, "s", "t", "n")
	for key, want := range map[string]string{"s": "found", "t": "several rows that differ", "n": `column "v" is NULL`} {
		if !strings.Contains(got[key], want) {
			t.Errorf("%q: %q, want %q", key, got[key], want)
		}
	}
}

// TestUnaskable names templates that cannot be read backwards, and why.
func TestUnaskable(t *testing.T) {
	d := servers[0].open(t)
	for key, want := range map[string]string{
		`{{printf "%05d" .id}}`:          "printf",
		`{{if .id}}a{{end}}`:             "{{if .id}}",
		`{{.id}}{{.slug}}`:               "nothing stands between",
		`{{.id | json}}`:                 "json",
		`{{$x := .id}}{{$x}}`:            "$x",
		`post:{{.a.b}}`:                  ".a.b",
		`post:{{range .id}}{{.}}{{end}}`: "range",
	} {
		_, err := query.Entry{Key: key}.Keys("r1")
		if !errors.Is(err, tasks.ErrInvalid) || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%s: got %v, want invalid input that names %s", key, err, want)
		}
		spec := query.Spec{Driver: d.driver, DSNEnv: "SITE_DSN", SQL: "SELECT 1 AS id"}
		if err := d.open(t, spec, query.Entry{Key: key}).Find(t.Context(), []string{"x"}, nil); !errors.Is(err, tasks.ErrInvalid) {
			t.Errorf("%s: find: got %v, want invalid input", key, err)
		}
	}
	p, err := query.Entry{Key: "{{- .a -}} : {{/* which */}}{{.b}}@{{.Release}}"}.Keys("r1")
	if err != nil {
		t.Fatal(err)
	}
	if names := p.Names(); !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("names %q", names)
	}
}
