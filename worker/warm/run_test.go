package warm

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
)

// checkWarm holds the whole of a finished, undisturbed run against what it must have done.
func (g *rig) checkWarm(s RunStatus) {
	g.t.Helper()
	if s.Status != string(Pass) || s.Certificate == nil || s.OpenBatches != 0 {
		g.t.Fatalf("run: %+v, certificate %+v", s, s.Certificate)
	}
	want := []SourceStatus{
		{"articles", "query", articles, Figures{Planned: articles, Stored: articles}, nil},
		{"pages", "crawl", pages, Figures{Planned: pages, Stored: pages}, nil},
		{"assets", "carry", assets, Figures{Planned: assets, Stored: assets}, nil},
	}
	if diff := cmp.Diff(want, s.Sources); diff != "" {
		g.t.Errorf("sources (-want +got):\n%s", diff)
	}
	var c Certificate
	rec := g.record1()
	if ok, err := rec.Doc(release.DocCertificate, &c); !ok || err != nil || c.Verdict != Pass || c.Sampled != 50 || c.Entries != articles+pages+assets {
		g.t.Errorf("certificate in the ledger: %v, %v, %+v", ok, err, c)
	}
	if c.FirstExpiry < 21*time.Hour || c.FirstExpiry > 24*time.Hour {
		g.t.Errorf("first expiry in %v", c.FirstExpiry)
	}
	if rec.State != release.Ready || rec.Run != "" {
		g.t.Errorf("release is %s, run %q", rec.State, rec.Run)
	}
	if n := g.entries("r1"); n != articles+pages+assets {
		g.t.Errorf("%d entries, want %d", n, articles+pages+assets)
	}
	for _, key := range []string{"post:a0", "page:/p23", "asset:7"} {
		if !g.exists("r1", key) {
			g.t.Errorf("no entry %q", key)
		}
	}
	if g.exists("r1", "other:1") || g.openMarks("r1") != 0 {
		g.t.Errorf("carried another family, or %d marks are open", g.openMarks("r1"))
	}
	left, err := g.client.Exists(g.t.Context(), g.keys.RunOpen(s.Run), g.keys.RunURLs(s.Run, "pages")).Result()
	if err != nil || left != 0 {
		g.t.Errorf("%d lists of the run are left (%v)", left, err)
	}
	if got := len(g.tasks.batches()); got != 5 {
		g.t.Errorf("%d batches, want 5: %+v", got, g.tasks.batches())
	}
}

func TestRun(t *testing.T) {
	g := newRig(t)
	g.checkWarm(g.warm(g.start("run1", "r1", g.plan())))
	// The last move says why.
	moves, err := g.ledger.History(t.Context(), "r1")
	must(t, err)
	if last := moves[len(moves)-1]; last.Reason != "warm: pass" || last.Actor != "ann" {
		t.Errorf("last move: %+v", last)
	}
	// A ready release may be warmed again; what is there already counts as carried.
	g.tasks.all, g.jobs.cursors = nil, nil
	g.checkWarm(g.warm(g.start("run2", "r1", g.plan())))
}

func TestProgress(t *testing.T) {
	g := newRig(t)
	_, err := g.Run(t.Context(), g.jobs.job("run"), g.start("run1", "r1", g.plan()))
	must(t, err)
	if s := g.status("run1"); s.Status != "running" || s.OpenBatches != 5 || s.Done != 0 || s.Over() {
		t.Errorf("after the cut: %+v", s)
	}
	// One page of articles, one batch of pages.
	g.jobs.drainAt = 2 // the first save tells only of the servers
	batches := g.tasks.batches()
	if _, err := g.Batch(t.Context(), g.jobs.job(BatchTaskID(batches[0])), batches[0]); !errors.Is(err, tasks.ErrDraining) {
		t.Fatalf("got %v, want draining", err)
	}
	_, err = g.Batch(t.Context(), g.jobs.job(BatchTaskID(batches[1])), batches[1])
	must(t, err)
	s := g.status("run1")
	if s.Sources[0].Planned != 100 || s.Sources[0].Total != articles || s.Sources[1].Planned != 8 || s.Done != 108 || s.OpenBatches != 4 {
		t.Errorf("midway: %+v", s)
	}
	must(t, g.runBatches())
	g.checkWarm(g.status("run1"))
}

func TestFailedRun(t *testing.T) {
	g := newRig(t)
	g.broken.Store(true)
	s := g.warm(g.start("run1", "r1", g.plan()))
	if s.Status != string(Fail) || g.record1().State != release.New {
		t.Errorf("run %s, release %s", s.Status, g.record1().State)
	}
	crawl := s.Certificate.Sources[1]
	if crawl.Failed != pages || len(crawl.Examples) != maxExamples || !strings.Contains(crawl.Examples[0], "404") {
		t.Errorf("crawl: %+v", crawl)
	}
	moves, err := g.ledger.History(t.Context(), "r1")
	must(t, err)
	if last := moves[len(moves)-1]; !strings.Contains(last.Reason, `source "pages": coverage 0%`) {
		t.Errorf("last move: %+v", last)
	}
}

func TestSampledRun(t *testing.T) {
	g := newRig(t)
	s := g.warm(g.sampledStart("run1", "r1", 0.2))
	if s.Status != string(Inconclusive) || g.record1().State != release.New || s.Certificate.Reasons[0] != "sampled 20%" {
		t.Errorf("run %s %+v, release %s", s.Status, s.Certificate, g.record1().State)
	}
	for i, all := range []int64{articles, pages} {
		if n := s.Sources[i].Planned; n < all/10 || n > all/3 {
			t.Errorf("source %d: planned %d of %d for 20%%", i, n, all)
		}
	}
	before := s.Certificate.Planned
	g.tasks.all, g.jobs.cursors = nil, nil
	if again := g.warm(g.sampledStart("run2", "r1", 0.2)); again.Certificate.Planned != before {
		t.Errorf("the same sample planned %d, then %d", before, again.Certificate.Planned)
	}
}

func TestPartOfThePlan(t *testing.T) {
	g := newRig(t)
	p := g.start("run1", "r1", g.plan())
	p.Sources = []string{"assets"}
	s := g.warm(p)
	if s.Status != string(Inconclusive) || !strings.Contains(s.Certificate.Reasons[0], "left out") || g.entries("r1") != assets {
		t.Errorf("run %+v", s.Certificate)
	}
}

func TestNothingPlanned(t *testing.T) {
	g := newRig(t)
	plan := "version: 1\nsources: [{name: a, carry: {from: active, families: ['none:']}}]\n"
	if s := g.warm(g.start("run1", "r1", plan)); s.Status != string(Inconclusive) || g.record1().State != release.New {
		t.Errorf("run %s, release %s", s.Status, g.record1().State)
	}
}

// TestServedRelease: a release in use stays what it is, whatever the outcome.
func TestServedRelease(t *testing.T) {
	g := newRig(t)
	g.warm(g.start("run1", "r1", g.plan()))
	_, err := g.ledger.Flip(t.Context(), "r1", release.Ready, by)
	must(t, err)
	g.tasks.all, g.jobs.cursors = nil, nil
	s := g.warm(g.start("run2", "r1", g.plan()))
	// It is the active one now: there is nothing to carry from.
	if s.Status != string(Pass) || s.Sources[2].Planned != 0 {
		t.Errorf("run: %+v %+v", s, s.Certificate)
	}
	g.tasks.all, g.jobs.cursors = nil, nil
	if s := g.warm(g.sampledStart("run3", "r1", 0.2)); s.Status != string(Inconclusive) {
		t.Errorf("sampled run: %s", s.Status)
	}
	var c Certificate
	rec := g.record1()
	if _, err := rec.Doc(release.DocCertificate, &c); err != nil || rec.State != release.Active || c.Run != "run2" {
		t.Errorf("release %s, certificate of %q (%v); want active, run2", rec.State, c.Run, err)
	}
}

// TestTwoRuns: the second is refused by name and changes nothing, until the first is dead.
func TestTwoRuns(t *testing.T) {
	g := newRig(t)
	first, second := g.start("run1", "r1", g.plan()), g.start("run2", "r1", g.plan())
	_, err := g.Run(t.Context(), g.jobs.job("run"), first)
	must(t, err)
	_, err = g.Run(t.Context(), g.jobs.job("other"), second)
	if !errors.Is(err, tasks.ErrRefused) || !strings.Contains(err.Error(), `"run1"`) {
		t.Fatalf("got %v, want a refusal that names run1", err)
	}
	if s := g.status("run2"); s.Status != "refused" || !strings.Contains(s.Error, "run1") || g.record1().Run != "run1" {
		t.Errorf("run2: %+v; release is warmed by %q", s, g.record1().Run)
	}
	must(t, g.client.HSet(t.Context(), g.keys.Run("run1"), "touched_at", time.Now().Add(-2*staleAfter).UnixMicro()).Err())
	old := g.tasks.batches()
	g.tasks.all, g.jobs.cursors = nil, nil
	s := g.warm(g.start("run3", "r1", g.plan()))
	g.checkWarm(s)
	for _, b := range old {
		got, err := g.Batch(t.Context(), g.jobs.job(BatchTaskID(b)), b)
		if err != nil || got.Status != "abandoned" {
			t.Errorf("a batch of the dead run: %+v, %v", got, err)
		}
	}
	g.checkWarm(g.status("run3"))
}

// What a newer command has asked for waits for a newer worker, as it was.
func TestARunThatOnlyANewerWorkerReads(t *testing.T) {
	g := newRig(t)
	for run, change := range map[string]func(run string) tasks.WarmRun{
		"plan": func(run string) tasks.WarmRun { return g.start(run, "r1", "version: 2\nnovelty: true\n") },
		"record": func(run string) tasks.WarmRun {
			p := g.start(run, "r1", g.plan())
			if err := g.client.HSet(t.Context(), g.keys.Run(run), "version", 2).Err(); err != nil {
				t.Fatal(err)
			}
			return p
		},
	} {
		_, err := g.Run(t.Context(), g.jobs.job(run), change(run))
		if !errors.Is(err, tasks.ErrNewer) || !strings.Contains(err.Error(), "version 2") || !strings.Contains(err.Error(), "up to version 1") {
			t.Errorf("%s: got %v", run, err)
		}
		if s := g.client.HGetAll(t.Context(), g.keys.Run(run)).Val(); s["status"] != "queued" || s["error"] != "" {
			t.Errorf("%s: %v", run, s)
		}
		if rec := g.record1(); rec.State != release.New || rec.Run != "" || rec.Docs[release.DocCertificate] != nil {
			t.Errorf("%s: release is %s, run %q", run, rec.State, rec.Run)
		}
	}
}

func TestRefusedRuns(t *testing.T) {
	g := newRig(t)
	plan := g.plan()
	tests := []struct {
		name, id, plan string
		sources        []string
		cause          error
		want           string
	}{
		{"no such release", "r9", plan, nil, tasks.ErrNotFound, "r9"},
		{"no plan", "r1", "", nil, tasks.ErrInvalid, "STOKER_PLAN"},
		{"wrong plan", "r1", "version: 0\n", nil, tasks.ErrInvalid, "version 0"},
		{"no such source", "r1", plan, []string{"none"}, tasks.ErrInvalid, `"none"`},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run := "run" + string(rune('a'+i))
			p := g.start(run, tt.id, tt.plan)
			p.Sources = tt.sources
			_, err := g.Run(t.Context(), g.jobs.job("run"), p)
			if !errors.Is(err, tt.cause) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %v with %q", err, tt.cause, tt.want)
			}
			if s := g.status(run); s.Status != "refused" || s.Error == "" {
				t.Errorf("run: %+v", s)
			}
			if rec := g.record1(); rec.State != release.New || rec.Run != "" {
				t.Errorf("release is %s, run %q", rec.State, rec.Run)
			}
		})
	}
	t.Run("archived", func(t *testing.T) {
		g.warm(g.start("run1", "r1", plan))
		must(t, g.ledger.Move(t.Context(), "r1", release.Ready, release.Expired, by))
		if _, err := g.Run(t.Context(), g.jobs.job("run"), g.start("run2", "r1", plan)); !errors.Is(err, tasks.ErrRefused) {
			t.Errorf("got %v, want a refusal", err)
		}
	})
	t.Run("no record", func(t *testing.T) {
		_, err := g.Run(t.Context(), g.jobs.job("run"), tasks.WarmRun{Run: "gone", Release: "r0", By: by})
		if !errors.Is(err, tasks.ErrNotFound) {
			t.Errorf("got %v, want not found", err)
		}
	})
}

// TestHopelessRuns: what fails for good ends with a failed certificate and a release that can be
// warmed again, rather than with a run that is under way for ever.
func TestHopelessRuns(t *testing.T) {
	g := newRig(t)
	for name, plan := range map[string]string{
		"no dsn":            strings.Replace(g.plan(), "SITE_DSN", "OTHER_DSN", 1),
		"carry from nobody": strings.Replace(g.plan(), "from: active", "from: r9", 1),
		"sitemap is a page": strings.Replace(g.plan(), "/sitemap.xml", "/p1?broken", 1),
	} {
		t.Run(name, func(t *testing.T) {
			g.reset()
			_, err := g.Run(t.Context(), g.jobs.job("run"), g.start("run1", "r1", plan))
			if name == "sitemap is a page" {
				// It may be a page today only: the task is tried again.
				if err == nil || hopeless(err) {
					t.Errorf("got %v, want an error that is worth another try", err)
				}
				return
			}
			if !hopeless(err) {
				t.Errorf("got %v, want an error of the plan", err)
			}
			s := g.status("run1")
			if s.Status != string(Fail) || !strings.Contains(s.Certificate.Reasons[0], "gave up") || g.record1().State != release.New {
				t.Errorf("run: %+v, %+v, release %s", s, s.Certificate, g.record1().State)
			}
			g.checkWarm(g.warm(g.start("run2", "r1", g.plan())))
		})
	}
}

// TestPlanChanges: a run keeps the plan that it began with.
func TestPlanChanges(t *testing.T) {
	g := newRig(t)
	g.cfg.Plan = filepath.Join(t.TempDir(), "plan.yaml")
	must(t, os.WriteFile(g.cfg.Plan, []byte(g.plan()), 0o600))
	p := g.start("run1", "r1", "")
	_, err := g.Run(t.Context(), g.jobs.job("run"), p)
	must(t, err)
	must(t, os.WriteFile(g.cfg.Plan, []byte("version: 3\n"), 0o600))
	_, err = g.Run(t.Context(), g.jobs.job("run"), p) // a retry
	must(t, err)
	must(t, g.runBatches())
	g.checkWarm(g.status("run1"))
}

func TestDryRun(t *testing.T) {
	g := newRig(t)
	plan, err := ParsePlan([]byte(g.plan()))
	must(t, err)
	before, err := g.client.DBSize(t.Context()).Result()
	must(t, err)
	got, err := g.DryRun(t.Context(), plan, "r1", nil, 0)
	must(t, err)
	var counts []int64
	for _, s := range got {
		counts = append(counts, s.Count)
		if len(s.Keys) == 0 || s.Kind != "carry" && len(s.Keys) != sampleKeys {
			t.Errorf("%s shows %d keys", s.Name, len(s.Keys))
		}
	}
	if diff := cmp.Diff([]int64{articles, pages, assets}, counts); diff != "" || got[2].From != "r0" {
		t.Errorf("carried from %q, counts (-want +got):\n%s", got[2].From, diff)
	}
	after, err := g.client.DBSize(t.Context()).Result()
	must(t, err)
	if before != after || g.record1().State != release.New {
		t.Errorf("%d keys before, %d after; release %s", before, after, g.record1().State)
	}
	if _, err := g.DryRun(t.Context(), plan, "a b", nil, 0); !errors.Is(err, tasks.ErrInvalid) {
		t.Errorf("got %v, want invalid input", err)
	}
}
