package query_test

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/query"
	"github.com/alphanode/stoker/worker/warm/query/sqltest"
	"github.com/alphanode/stoker/worker/warm/source"
	"github.com/alphanode/stoker/worker/warm/source/sourcetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const rows = 523 // several chunks, and not a whole number of pages

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// database is a server with the table posts.
type database struct {
	driver, dsn string
	columns     string // of the table
}

var servers = []struct {
	name string
	open func(t *testing.T) database
}{
	{"sqlite", func(t *testing.T) database {
		dsn := "file:" + filepath.Join(t.TempDir(), "site.db")
		return database{"sqlite", dsn, "id INTEGER PRIMARY KEY, slug TEXT UNIQUE, title TEXT, body BLOB, price REAL, at DATETIME, note TEXT"}
	}},
	{"postgres", func(t *testing.T) database {
		return database{"postgres", sqltest.Postgres(t), "id BIGINT PRIMARY KEY, slug TEXT COLLATE \"C\" UNIQUE, title TEXT, body BYTEA, price DOUBLE PRECISION, at TIMESTAMPTZ, note TEXT, meta JSONB"}
	}},
	{"mysql", func(t *testing.T) database {
		return database{"mysql", sqltest.MySQL(t), "id BIGINT PRIMARY KEY, slug VARCHAR(100) UNIQUE, title TEXT, body BLOB, price DOUBLE, at DATETIME, note TEXT"}
	}},
}

// fill makes the table: every seventh slug is NULL, so its key cannot be made.
func (d database) fill(t *testing.T) {
	t.Helper()
	name := map[string]string{"postgres": "pgx"}[d.driver]
	if name == "" {
		name = d.driver
	}
	db, err := sql.Open(name, d.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	exec := func(text string, args ...any) {
		t.Helper()
		if _, err := tx.ExecContext(t.Context(), text, args...); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	exec("CREATE TABLE posts (" + d.columns + ")")
	insert := "INSERT INTO posts (id, slug, title, body, price, at) VALUES (?, ?, ?, ?, ?, ?)"
	if d.driver == "postgres" {
		insert = "INSERT INTO posts (id, slug, title, body, price, at, meta) VALUES ($1, $2, $3, $4, $5, $6, '{\"a\": [1]}')"
	}
	for i := range rows {
		var slug any = fmt.Sprintf("post-%d", i)
		if i%7 == 6 {
			slug = nil
		}
		exec(insert, i, slug, "Tîtle <"+fmt.Sprint(i)+">", []byte("body"), 1.5, now)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

// exec runs a statement.
func (d database) exec(t *testing.T, text string, args ...any) {
	t.Helper()
	name := map[string]string{"postgres": "pgx"}[d.driver]
	if name == "" {
		name = d.driver
	}
	db, err := sql.Open(name, d.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), text, args...); err != nil {
		t.Fatal(err)
	}
}

func (d database) spec() query.Spec {
	return query.Spec{Driver: d.driver, DSNEnv: "SITE_DSN", SQL: "SELECT * FROM posts ORDER BY title -- a comment"}
}

var entry = query.Entry{Key: "post:{{.slug}}", TTL: "24h", Jitter: "10%", Tags: []string{"post:{{.slug}}", "all:{{.Release}}"}}

func (d database) open(t *testing.T, spec query.Spec, e query.Entry) *query.Source {
	t.Helper()
	getenv := func(name string) string { return map[string]string{"SITE_DSN": d.dsn}[name] }
	s, err := query.New(spec, e, "r1", getenv, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestSource runs the contract and the questions of one driver against each database.
func TestSource(t *testing.T) {
	for _, server := range servers {
		t.Run(server.name, func(t *testing.T) {
			t.Parallel()
			d := server.open(t)
			d.fill(t)
			var keys []string
			for i := range rows {
				if i%7 != 6 {
					keys = append(keys, fmt.Sprintf("post:post-%d", i))
				}
			}
			h := sourcetest.Harness{Keys: keys, Entries: keys, Failed: rows / 7, Written: source.ByRunner,
				Gone: []string{"post:post-6", "post:POST-1", "post:post-1 ", "post:", "post:a\x00b", "post:\xff", "post:'", "other:post-1", "#tag:x"}}
			pages := map[string]*query.Page{"in one go": nil, "by number": {By: "id", Size: 100}}
			for name, page := range pages {
				t.Run(name, func(t *testing.T) {
					spec := d.spec()
					spec.Page, h.Resumes = page, page != nil
					h.Open = func(t *testing.T) source.Source { return d.open(t, spec, entry) }
					sourcetest.Run(t, h)
				})
			}
			t.Run("by text", func(t *testing.T) {
				spec := d.spec()
				spec.SQL, spec.Page = "SELECT * FROM posts WHERE slug IS NOT NULL", &query.Page{By: "slug", Size: 64}
				text := h
				text.Failed, text.Resumes = 0, true
				text.Open = func(t *testing.T) source.Source { return d.open(t, spec, entry) }
				sourcetest.Run(t, text)
			})
			t.Run("values", d.values)
			t.Run("find by type", d.findByType)
			t.Run("find by several columns", d.findBySeveral)
			t.Run("find what differs", d.findDoubles)
			t.Run("read only", d.readOnly)
			t.Run("count", d.count)
			t.Run("probe", d.testProbe)
			if d.driver != "sqlite" {
				t.Run("one consistent read", d.testSnapshot)
			}
			t.Run("page by what is not unique", d.notUnique)
		})
	}
}

// first returns the first entry that a walk of one row yields, or its failure.
func (d database) first(t *testing.T, e query.Entry) (source.Entry, string) {
	t.Helper()
	spec := d.spec()
	spec.SQL = "SELECT * FROM posts WHERE id = 1"
	var got source.Chunk
	err := d.open(t, spec, e).Walk(t.Context(), source.Part{}, "", func(c source.Chunk) error { got = c; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Failed) > 0 {
		return source.Entry{}, got.Failed[0].Error
	}
	return got.Entries[0], ""
}

func (d database) values(t *testing.T) {
	e, failure := d.first(t, entry)
	if failure != "" {
		t.Fatal(failure)
	}
	var row map[string]any
	if err := json.Unmarshal([]byte(e.Value), &row); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"id": 1.0, "slug": "post-1", "title": "Tîtle <1>", "body": "body", "price": 1.5, "note": nil}
	if d.driver == "postgres" {
		want["meta"] = map[string]any{"a": []any{1.0}}
	}
	at, err := time.Parse(time.RFC3339Nano, row["at"].(string))
	if err != nil || !at.Equal(now) {
		t.Errorf("time %v (%v), want %v", row["at"], err, now)
	}
	delete(row, "at")
	if diff := cmp.Diff(want, row); diff != "" {
		t.Errorf("row (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"post:post-1", "all:r1"}, e.Tags); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	if life := time.UnixMilli(e.ExpiresAt).Sub(now); life > 24*time.Hour || life < 21*time.Hour+30*time.Minute {
		t.Errorf("lifetime %v, want 24h less up to 10%%", life)
	}
	again, _ := d.first(t, entry)
	if again.ExpiresAt != e.ExpiresAt {
		t.Error("a repeated walk gave the entry another lifetime")
	}
	for value, want := range map[string]string{"column:title": "Tîtle <1>", "{{.Release}}|{{.title}}|{{.note}}|{{if .note}}y{{else}}n{{end}}": "r1|Tîtle <1>||n"} {
		if e, failure := d.first(t, query.Entry{Key: "k", Value: value}); e.Value != want || e.ExpiresAt != 0 {
			t.Errorf("%s: got %q (%s), want %q that never expires", value, e.Value, failure, want)
		}
	}
	for value, want := range map[string]string{"column:none": "no column", "column:note": "NULL", "{{.none}}": "none"} {
		if _, failure := d.first(t, query.Entry{Key: "k", Value: value}); !strings.Contains(failure, want) {
			t.Errorf("%s: got %q, want a failure with %q", value, failure, want)
		}
	}
	if _, failure := d.first(t, query.Entry{Key: "{{.slug | printf \"#%s\"}}"}); !strings.Contains(failure, "reserved") {
		t.Errorf("a reserved key gave %q", failure)
	}
}

// readOnly: a plan cannot change the site's database.
func (d database) readOnly(t *testing.T) {
	for _, text := range []string{"DELETE FROM posts", "DELETE FROM posts RETURNING id"} {
		spec := d.spec()
		spec.SQL = text
		if err := d.open(t, spec, entry).Walk(t.Context(), source.Part{}, "", func(source.Chunk) error { return nil }); err == nil {
			t.Errorf("%s: no error", text)
		}
	}
	if n, err := d.open(t, d.spec(), entry).Count(t.Context()); err != nil || n != rows {
		t.Errorf("%d rows are left (%v), want %d", n, err, rows)
	}
}

func (d database) count(t *testing.T) {
	spec := d.spec()
	spec.SQL = "SELECT nonsense FROM nowhere"
	if n, err := d.open(t, spec, entry).Count(t.Context()); n != 0 || err != nil {
		t.Errorf("a query that fails counts %d, %v; want 0: it is for progress only", n, err)
	}
	if err := d.open(t, spec, entry).Keys(t.Context(), func(string) error { return nil }); err == nil {
		t.Error("a query that fails has keys")
	}
}

func (d database) notUnique(t *testing.T) {
	spec := d.spec()
	spec.Page = &query.Page{By: "price", Size: 10}
	err := d.open(t, spec, entry).Walk(t.Context(), source.Part{}, "", func(source.Chunk) error { return nil })
	if !errors.Is(err, tasks.ErrInvalid) || !strings.Contains(err.Error(), "unique") {
		t.Errorf("got %v, want invalid input: the column is not unique", err)
	}
	spec.Page.By = "slug" // NULL in some rows: in the end or the beginning, as the database has it
	err = d.open(t, spec, entry).Walk(t.Context(), source.Part{}, "", func(source.Chunk) error { return nil })
	if !errors.Is(err, tasks.ErrInvalid) {
		t.Errorf("got %v, want invalid input: the column holds NULLs", err)
	}
}

func TestBytesInJSON(t *testing.T) {
	d := servers[0].open(t)
	spec := query.Spec{Driver: d.driver, DSNEnv: "SITE_DSN", SQL: "SELECT x'ff00' AS body"}
	for value, want := range map[string]string{"json": "not UTF-8", "column:body": ""} {
		var got source.Chunk
		err := d.open(t, spec, query.Entry{Key: "k", Value: value}).Walk(t.Context(), source.Part{}, "", func(c source.Chunk) error { got = c; return nil })
		if err != nil {
			t.Fatal(err)
		}
		if want == "" && got.Entries[0].Value != "\xff\x00" || want != "" && !strings.Contains(got.Failed[0].Error, want) {
			t.Errorf("%s: %+v, want %q", value, got, want)
		}
	}
}

func TestTwoColumnsOfOneName(t *testing.T) {
	d := servers[0].open(t)
	spec := query.Spec{Driver: d.driver, DSNEnv: "SITE_DSN", SQL: "SELECT 1 AS a, 2 AS a"}
	err := d.open(t, spec, entry).Keys(t.Context(), func(string) error { return nil })
	if !errors.Is(err, tasks.ErrInvalid) || !strings.Contains(err.Error(), "alias") {
		t.Errorf("got %v, want invalid input: two columns of one name", err)
	}
}

func TestSecret(t *testing.T) {
	file := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(file, []byte("file::memory:\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, driver string
		env          map[string]string
		want         string
	}{
		{"not set", "sqlite", nil, "SITE_DSN is not set"},
		{"from a file", "sqlite", map[string]string{"SITE_DSN_FILE": file}, ""},
		{"no such file", "sqlite", map[string]string{"SITE_DSN_FILE": file + ".gone"}, "SITE_DSN_FILE"},
		{"no DSN", "mysql", map[string]string{"SITE_DSN": "user:secret@tcp(host"}, "SITE_DSN"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec := query.Spec{Driver: tt.driver, DSNEnv: "SITE_DSN", SQL: "SELECT 1 AS a"}
			s, err := query.New(spec, query.Entry{Key: "k"}, "r1", func(name string) string { return tt.env[name] }, time.Now)
			if err == nil {
				err = errors.Join(s.Keys(t.Context(), func(string) error { return nil }), s.Close())
			}
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, tasks.ErrInvalid) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v, want invalid input with %q and without the password", err, tt.want)
			}
		})
	}
}
