package warm

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/alphanode/stoker/tasks"
)

// found asks for keys and returns who answered what: "articles found", "pages gone".
func (g *rig) found(l *Lookup, keys ...string) map[string]string {
	g.t.Helper()
	got := map[string]string{}
	must(g.t, l.Find(g.t.Context(), keys, func(f Found) error {
		say := func(key, what string) {
			if got[key] != "" {
				g.t.Errorf("%q is answered twice: %s, %s", key, got[key], what)
			}
			got[key] = f.Source + " " + what
		}
		for _, e := range f.Entries {
			say(e.Key, "found")
		}
		for _, key := range f.Gone {
			say(key, "gone")
		}
		for _, f := range f.Failed {
			say(f.Key, "failed: "+f.Error)
		}
		return nil
	}))
	return got
}

func (g *rig) lookup(release string) *Lookup {
	g.t.Helper()
	l, err := g.Lookup(g.t.Context(), release)
	must(g.t, err)
	g.t.Cleanup(func() { must(g.t, l.Close()) })
	return l
}

func TestLookup(t *testing.T) {
	g := newRig(t)
	g.start("run1", "r1", g.plan())
	l := g.lookup("r1")
	if got := l.Unaskable(); len(got) != 1 || !strings.Contains(got[0], `source "assets"`) {
		t.Errorf("sources that cannot be asked: %q", got)
	}
	for key, want := range map[string][]string{"post:a1": {"articles"}, "page:/x": {"pages"}, "asset:1": nil, "": nil} {
		if got := l.Owners(key); !slices.Equal(got, want) {
			t.Errorf("owners of %q: %q, want %q", key, got, want)
		}
	}
	want := map[string]string{"post:a1": "articles found", "post:none": "articles gone", "page:/p1": "pages found"}
	if diff := cmp.Diff(want, g.found(l, "post:a1", "post:none", "page:/p1", "asset:1")); diff != "" {
		t.Errorf("answers (-want +got):\n%s", diff)
	}
	if !g.exists("r1", "page:/p1") || g.exists("r1", "post:a1") {
		t.Error("a page is filled by the site that is asked for it, a query writes nothing")
	}
}

// TestLookupOwners has sources whose keys overlap: each key is answered once, by the first that has it.
func TestLookupOwners(t *testing.T) {
	g := newRig(t)
	const plan = `version: 1
sources:
  - name: wide
    query: {driver: sqlite, dsn_env: SITE_DSN, sql: "SELECT 'a1' AS k UNION ALL SELECT 'a3:tail'"}
    entry: {key: "post:{{.k}}"}
  - name: narrow
    query: {driver: sqlite, dsn_env: SITE_DSN, sql: "SELECT slug FROM posts"}
    entry: {key: "post:{{.slug}}:tail"}
`
	g.start("run1", "r1", plan)
	got := g.found(g.lookup("r1"), "post:a1", "post:a2:tail", "post:a3:tail", "post:none:tail", "post:a2")
	want := map[string]string{
		"post:a1": "wide found", "post:a2:tail": "narrow found", "post:a3:tail": "wide found",
		"post:none:tail": "narrow gone", "post:a2": "wide gone",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answers (-want +got):\n%s", diff)
	}
}

// TestLookupPlan takes the newest run's plan, not that of one that never began, then the worker's.
func TestLookupPlan(t *testing.T) {
	g := newRig(t)
	ctx := t.Context()
	if _, err := g.Lookup(ctx, "r1"); !errors.Is(err, tasks.ErrNotFound) {
		t.Errorf("no plan: got %v, want not found", err)
	}
	g.cfg.Plan = filepath.Join(t.TempDir(), "plan.yaml")
	must(t, os.WriteFile(g.cfg.Plan, []byte(strings.ReplaceAll(g.plan(), "name: articles", "name: own")), 0o600))
	owner := func(want string) {
		t.Helper()
		if got := g.lookup("r1").Owners("post:a1"); !slices.Equal(got, []string{want}) {
			t.Errorf("owners %q, want %q", got, want)
		}
	}
	owner("own")
	g.start("run1", "r1", strings.ReplaceAll(g.plan(), "name: articles", "name: first"))
	owner("first")
	g.start("run2", "r1", strings.ReplaceAll(g.plan(), "name: articles", "name: second"))
	owner("second")
	must(t, g.client.HSet(ctx, g.keys.Run("run2"), "status", statusRefused).Err())
	owner("first")
	must(t, g.client.Del(ctx, g.keys.Run("run1")).Err())
	owner("own")
}
