package warm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
)

// TestCheckPlan: what cannot be reached is told with its place, all of it in one go, and nothing is
// changed.
func TestCheckPlan(t *testing.T) {
	g := newRig(t)
	plan, notes, err := g.CheckPlan(t.Context(), []byte(g.plan()), "")
	if err != nil || len(notes) > 0 || len(plan.Sources) != 3 {
		t.Fatalf("a plan that can be used: %v, %q", err, notes)
	}
	closed := "http://127.0.0.1:1"
	text := fmt.Sprintf(`version: 1
hot: {access_log: /nowhere/access.log}
sources:
  - name: no-table
    query: {driver: sqlite, dsn_env: SITE_DSN, sql: "SELECT * FROM nothing"}
    entry: {key: "{{.a}}"}
  - name: no-column
    query: {driver: sqlite, dsn_env: SITE_DSN, sql: "SELECT slug FROM posts"}
    entry: {key: "{{.slugg}}", tags: ["{{.slug}}", "{{.tag}}"]}
  - name: no-dsn
    query: {driver: postgres, dsn_env: OTHER_DSN, sql: "SELECT 1 AS a"}
    entry: {key: "{{.a}}"}
  - name: no-instance
    crawl: {base: %q, urls: [/]}
  - name: no-sitemap
    crawl: {base: %q, sitemap: /none}
  - name: no-release
    carry: {from: r9, families: [a]}
  - name: by-release
    crawl: {base: "http://{{.Release}}.example", urls: [/]}
  - name: own
    custom: {source: prices}
`, closed, g.site.URL)
	_, notes, err = g.CheckPlan(t.Context(), []byte(text), "")
	want := []string{
		"line 2, column 19: hot.access_log: ", "line 5, column 12: sources[0].query: query: ", `line 9, column 18: sources[1].entry.key: key {{.slugg}}: the rows have no column "slugg"`,
		`line 9, column 52: sources[1].entry.tags[1]: tag {{.tag}}: the rows have no column "tag"`, "line 11, column 40: sources[2].query.dsn_env: OTHER_DSN is not set",
		"line 14, column 19: sources[3].crawl.base: the base does not answer", "line 16, column 54: sources[4].crawl.sitemap: ", "line 18, column 19: sources[5].carry.from: ",
	}
	_, list, _ := strings.Cut(fmt.Sprint(err), "from here: 8 problems:\n  ")
	lines := strings.Split(list, "\n  ")
	if len(lines) != len(want) || errors.Is(err, tasks.ErrInvalid) {
		t.Fatalf("got %d problems (%v), want %d of another cause than the plan:\n%v", len(lines), errors.Is(err, tasks.ErrInvalid), len(want), err)
	}
	for i := range want {
		if !strings.HasPrefix(lines[i], want[i]) {
			t.Errorf("problem %d: %s\nwant %s", i, lines[i], want[i])
		}
	}
	if len(notes) != 2 || !strings.Contains(notes[0]+notes[1], "prices") || !strings.Contains(notes[0]+notes[1], "by-release") {
		t.Errorf("notes %q", notes)
	}
	// What is wrong with the plan and what cannot be reached come together.
	_, _, err = g.CheckPlan(t.Context(), []byte(strings.Replace(text, "name: own", "nam: own", 1)), "")
	if !errors.Is(err, tasks.ErrInvalid) || !strings.Contains(err.Error(), `unknown field "nam"`) || !strings.Contains(err.Error(), "r9") {
		t.Errorf("got %v", err)
	}
	if g.record1().State != release.New {
		t.Errorf("release is %s", g.record1().State)
	}
}

// TestEstimates: a dry run says what a run will take from what it can measure, and what it cannot; and the
// run takes about that.
func TestEstimates(t *testing.T) {
	g := newRig(t)
	plan, err := ParsePlan([]byte(g.plan()))
	must(t, err)
	first, err := g.DryRun(t.Context(), plan, "r1", nil, 0)
	must(t, err)
	if first[1].Requests != pages || first[0].Requests != articles/100+1 || first[2].Requests != 0 {
		t.Errorf("requests %+v", first)
	}
	if first[1].Bytes != 0 || len(first[1].Unknown) != 2 || first[0].Took != 0 {
		t.Errorf("nothing is known of the crawl, and no time: %+v", first)
	}
	g.warm(g.start("run1", "r1", g.plan()))
	_, err = g.ledger.Flip(t.Context(), "r1", release.Ready, by)
	must(t, err)
	must(t, g.ledger.Create(t.Context(), release.Record{ID: "r2", Template: tasks.DefaultTemplate}, by))
	second, err := g.DryRun(t.Context(), plan, "r2", nil, 0)
	must(t, err)
	for i, s := range second {
		if s.Took <= 0 || s.Bytes <= 0 || len(s.Unknown) > 0 || len(s.Basis) < 2 {
			t.Errorf("after a run everything is known of source %d: %+v", i, s)
		}
	}
	half, err := g.DryRun(t.Context(), plan, "r2", nil, 0.2)
	must(t, err)
	if n := half[0].Count; n < articles/10 || n > articles/3 {
		t.Errorf("a fifth of %d articles is %d", articles, n)
	}
}

// TestEstimatedMemory holds the estimate against what the server then takes.
func TestEstimatedMemory(t *testing.T) {
	g := newRig(t)
	const rows = 10_000
	for name, entry := range map[string]string{"plain": `value: "column:v", ttl: 24h`, "with tags": `ttl: 24h, tags: ["all", "row:{{.i}}"]`} {
		text := fmt.Sprintf("version: 1\nsources:\n- name: rows\n  query: {driver: sqlite, dsn_env: SITE_DSN, sql: \"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < %d) SELECT i, hex(randomblob(150)) AS v FROM n\"}\n  entry: {key: \"row:{{.i}}\", %s}\n", rows, entry)
		plan, err := ParsePlan([]byte(text))
		must(t, err)
		g.reset()
		found, err := g.DryRun(t.Context(), plan, "r1", nil, 0)
		must(t, err)
		before := g.memory()
		if s := g.warm(g.start("run1", "r1", text)); s.Status != string(Pass) {
			t.Fatalf("%+v", s.Certificate)
		}
		took := g.memory() - before
		t.Logf("%s: estimated %d bytes, taken %d: %.2f", name, found[0].Bytes, took, float64(found[0].Bytes)/float64(took))
		if guess := found[0].Bytes; guess < took*8/10 || guess > took*14/10 {
			t.Errorf("%s: estimated %d bytes, the server took %d", name, guess, took)
		}
	}
}

// memory is what the server has in use.
func (g *rig) memory() int64 {
	g.t.Helper()
	info, err := g.client.InfoMap(g.t.Context(), "memory").Result()
	must(g.t, err)
	var n int64
	_, err = fmt.Sscan(info["Memory"]["used_memory"], &n)
	must(g.t, err)
	return n
}

// TestDryRunInOrder shows first what would be warmed first, and does without a log that is not here.
func TestDryRunInOrder(t *testing.T) {
	g := newRig(t)
	file := accessLog(t, map[string]int{"/p7": 9, "/posts/a30": 8})
	plan, err := ParsePlan([]byte(g.hotPlan(logOf(file))))
	must(t, err)
	got, err := g.DryRun(t.Context(), plan, "r1", nil, 0)
	must(t, err)
	if got[0].Keys[0] != "post:a30" || got[1].Keys[0] != "/p7" || got[0].Hot != 1 || got[1].Hot != 1 || got[0].Count != articles || got[1].Count != pages {
		t.Errorf("got %+v", got)
	}
	must(t, os.Remove(file))
	got, err = g.DryRun(t.Context(), plan, "r1", nil, 0)
	must(t, err)
	if got[0].Count != articles || !strings.Contains(fmt.Sprint(got[0].Unknown), filepath.Base(file)) {
		t.Errorf("got %+v", got)
	}
}

func TestSameMinute(t *testing.T) {
	s := func(seconds ...int) []time.Duration {
		var all []time.Duration
		for _, n := range seconds {
			all = append(all, time.Duration(n)*time.Second)
		}
		return all
	}
	for _, tt := range []struct {
		lives []time.Duration
		n     int
		share float64
		in    time.Duration
	}{
		{nil, 0, 0, 0}, {nil, 5, 0, 0}, {s(10), 4, 0.25, 10 * time.Second},
		{s(300, 10, 70, 71, 129), 5, 0.6, 70 * time.Second}, {s(0, 60, 61), 3, 2.0 / 3, 0},
	} {
		share, in := sameMinute(tt.lives, tt.n)
		if share != tt.share || in != tt.in {
			t.Errorf("%v: %v in %v, want %v in %v", tt.lives, share, in, tt.share, tt.in)
		}
	}
	if warnAtOnce(0.9, time.Hour, fewest-1) != "" || warnAtOnce(0.4, time.Hour, 100) != "" || !strings.Contains(warnAtOnce(0.9, time.Hour, 100), "90% of the sampled entries end within one minute, in 1h0m0s") {
		t.Error("warns at the wrong time")
	}
}

// TestOldCertificate: a certificate that an older stoker wrote is read, and one that a newer one wrote.
func TestOldCertificate(t *testing.T) {
	g := newRig(t)
	old := map[string]any{"verdict": "pass", "run": "run0", "planned": 5, "stored": 5, "coverage": 1, "new_field": map[string]int{"a": 1}}
	must(t, g.ledger.SetDoc(t.Context(), "r1", release.DocCertificate, old))
	var c Certificate
	rec := g.record1()
	ok, err := rec.Doc(release.DocCertificate, &c)
	if diff := cmp.Diff(Certificate{Verdict: Pass, Run: "run0", Figures: Figures{Planned: 5, Stored: 5}, Coverage: 1}, c); !ok || err != nil || diff != "" {
		t.Errorf("%v, %v (-want +got):\n%s", ok, err, diff)
	}
}
