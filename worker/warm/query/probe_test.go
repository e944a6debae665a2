package query_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/alphanode/stoker/worker/warm/query"
	"github.com/alphanode/stoker/worker/warm/source"
)

// testProbe: a probe names every column that is not there, and what the database says of a query.
func (d database) testProbe(t *testing.T) {
	spec := d.spec()
	if err := d.open(t, spec, entry).Probe(t.Context()); err != nil {
		t.Errorf("a sound source: %v", err)
	}
	spec.Page = &query.Page{By: "nr", Size: 10}
	bad := query.Entry{Key: "{{.slugg}}:{{.Release}}", Value: "column:bodyy", Tags: []string{"{{.slug}}", "{{if .x}}y{{end}}"}}
	err := d.open(t, spec, bad).Probe(t.Context())
	for _, want := range []string{".entry.key:", `"slugg"`, ".entry.value:", `"bodyy"`, ".entry.tags[1]:", `"x"`, ".query.page.by:", `"nr"`, `"slug"`} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%v\ndoes not say %s", err, want)
		}
	}
	var p *source.Problem
	err = d.open(t, query.Spec{Driver: d.driver, DSNEnv: "SITE_DSN", SQL: "SELECT slug FROM nowhere"}, entry).Probe(t.Context())
	if !errors.As(err, &p) || p.Path != ".query" || !strings.Contains(p.Text, "nowhere") {
		t.Errorf("no such table: %v", err)
	}
}

// testSnapshot: a walk of several pages reads the database as it was at its beginning; after a retry it
// goes on as the database is then.
func (d database) testSnapshot(t *testing.T) {
	d.exec(t, "CREATE TABLE moving (id BIGINT PRIMARY KEY, v VARCHAR(20))")
	for i := range 10 {
		d.exec(t, fmt.Sprintf("INSERT INTO moving VALUES (%d, 'old')", i*10))
	}
	spec := query.Spec{Driver: d.driver, DSNEnv: "SITE_DSN", SQL: "SELECT id, v FROM moving", Page: &query.Page{By: "id", Size: 2}}
	e := query.Entry{Key: "m:{{.id}}", Value: "column:v"}
	changed := false
	positions := []string{}
	got := map[string]string{}
	walk := func(from string) {
		t.Helper()
		err := d.open(t, spec, e).Walk(context.WithoutCancel(t.Context()), source.Part{}, from, func(c source.Chunk) error {
			if !changed {
				changed = true
				d.exec(t, "UPDATE moving SET v = 'new'")
				d.exec(t, "INSERT INTO moving VALUES (95, 'new')")
				d.exec(t, "DELETE FROM moving WHERE id = 90")
			}
			positions = append(positions, c.Next)
			for _, e := range c.Entries {
				got[e.Key] = e.Value
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	walk("")
	for i := range 10 {
		if key := fmt.Sprint("m:", i*10); got[key] != "old" {
			t.Errorf("%s is %q in one walk, want it as it was at the beginning", key, got[key])
		}
	}
	if len(got) != 10 {
		t.Errorf("%d rows, want 10", len(got))
	}
	clear(got)
	walk(positions[1])
	if len(got) != 6 || got["m:40"] != "new" || got["m:95"] != "new" {
		t.Errorf("after a retry: %v", got)
	}
}
