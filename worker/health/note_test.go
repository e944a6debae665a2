package health

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
)

// fullNote is a release about which everything is known, some of it by people who like Markdown.
func fullNote() NoteInput {
	at := func(min int) time.Time { return testNow.Add(time.Duration(min) * time.Minute) }
	edits := int64(1234)
	before := Baseline{
		Release: "r41", At: at(-60), Requests: 400, Errors: 0,
		Figures: Figures{P50: 3.2, P95: 9.75, P99: 22.1, HitRate: 0.97, CacheReported: 400, DBCallsPerRequest: 0.12, DBReported: 400},
	}
	after := before
	before.First = &Figures{P50: 4, HitRate: 0.5, CacheReported: 40}
	for q := range 21 {
		before.Quantiles = append(before.Quantiles, 2+float64(q)/3)
		after.Quantiles = append(after.Quantiles, 1.9+float64(q)/2.5)
	}
	after.Release, after.At, after.P50, after.CacheReported = "r42", at(40), 3.1, 0
	look := func(min, errors int, p50, p95 float64, v Outcome) Look {
		return Look{At: at(min), Verdict: v, Requests: 400, Errors: errors, Figures: Figures{P50: p50, P95: p95, HitRate: 0.5, CacheReported: 400}}
	}
	return NoteInput{
		Record: release.Record{
			ID: "r42", State: release.Active, CreatedAt: at(0), ActivatedAt: at(30), Template: tasks.DefaultTemplate, Pinned: true,
			Notes: release.Notes{
				Owner: "Ann <ann@example.org>", Revision: "a1b2c3d",
				Reason:       "New *teaser* layout.\n# Not a heading\n<script>alert(1)</script>",
				Expected:     "p95 below 10 ms & [no link](http://example.org)",
				RollbackNote: "Tell the newsroom first.",
				Files:        []string{"templates/teaser.html", "```", "a|b.css"},
				Commands:     []string{"stoker warm r42 --wait", "stoker release activate r42"},
			},
		},
		History: []release.Move{
			{At: at(0), To: release.New, By: tasks.By{Actor: "ann", Reason: "deploy"}},
			{At: at(10), From: release.New, To: release.Warming, Note: "run 7", By: tasks.By{Actor: "worker"}},
			{At: at(30), From: release.Ready, To: release.Active, Note: "r41 to standby", By: tasks.By{Actor: "bob|ops", Reason: "go"}},
		},
		Previous: "r41",
		Baseline: &after,
		Verdict: &Verdict{
			Verdict: Worse, Reasons: []string{"errors: 0 of 400 before, 40 of 1,200 after <b>"}, Before: before, After: after, Look: 3, Looks: 7, Final: true,
			Found: []Finding{{MeasureErrors, Worse, "errors: 0 of 400 before, 40 of 1,200 after <b>"}, {MeasureLatency, Same, "latency: much as it was"}},
		},
		Watch: &Watching{
			ActivatedAt: at(30), Before: "r41", Planned: 7, Ended: "clearly worse", Clear: true,
			Looks:    []Look{look(30, 0, 3, 9, Same), look(31, 10, 3.2, 10, Worse), look(32, 30, 3.1, 9.5, Worse)},
			Rollback: &AutoRollback{To: "r41", At: at(32), Task: "watch-rollback:r42", Outcome: RollbackDone, Detail: "by way of standby, fresh as of number 1795371029000001"},
		},
		Checklist: Checklist(release.Record{Notes: release.Notes{Files: []string{"config/prod.env", "a"}}}, nil, "pass", []Check{
			{Name: "queue.user", Status: Warn, Detail: "Redis's user default is used", Remedy: "give stoker a user"}, {Name: "workers", Status: OK},
		}),
		Certificate:   []Field{{"Verdict", "pass"}, {"Entries", "5,322"}, {"Coverage", "100%"}},
		Invalidations: &edits,
		Rollback:      "stoker rollback --to r41 --wait",
	}
}

func TestNoteGolden(t *testing.T) {
	adopted := NoteInput{Record: release.Record{ID: "r1", State: release.Standby, CreatedAt: testNow}, Baseline: &Baseline{Release: "r1", At: testNow, Requests: 3}}
	for name, in := range map[string]NoteInput{"note_full": fullNote(), "note_bare": adopted} {
		got := Note(in)
		path := filepath.Join("testdata", name+".md")
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got; -update rewrites it):\n%s", name, diff)
		}
	}
}

// TestNoteHTML: the page stands alone, and what people wrote stays text.
func TestNoteHTML(t *testing.T) {
	adopted := NoteInput{Record: release.Record{ID: "r1", State: release.Standby, CreatedAt: testNow}, Baseline: &Baseline{Release: "r1", At: testNow, Requests: 3}}
	for name, in := range map[string]NoteInput{"note_full": fullNote(), "note_bare": adopted} {
		got, err := NoteHTML(in)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", name+".html")
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got; -update rewrites it):\n%s", name, diff)
		}
		for _, banned := range []string{"<script", "javascript:", " src=", " href=", "url(", "@import", "<b>"} {
			if strings.Contains(got, banned) {
				t.Errorf("%s holds %q", name, banned)
			}
		}
		if n := strings.Count(got, "<svg"); name == "note_full" && n != 2 || name == "note_bare" && n != 0 {
			t.Errorf("%s has %d plots", name, n)
		}
	}
}

func TestInline(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"plain text, 3.2 ms", "plain text, 3.2 ms"},
		{"a\nb\tc", "a b c"},
		{"<b>*x*_y_`z`", "\\<b\\>\\*x\\*\\_y\\_\\`z\\`"},
		{"[a](b)|c\\d", "\\[a\\](b)\\|c\\\\d"},
		{"bell\a\x00!", "bell\\!"},
	} {
		if got := inline(tt.in); got != tt.want {
			t.Errorf("inline(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

// TestProseCannotStartABlock: the start of a line is where Markdown's lists, quotes and headings
// begin.
func TestProseCannotStartABlock(t *testing.T) {
	for _, text := range []string{"- item", "+ item", "1. item", "2) item", "> quote", "# head", "===", "---", "~~~", "    code", "| a |"} {
		in := NoteInput{Record: release.Record{ID: "r1", Notes: release.Notes{Reason: "first\n" + text}}}
		_, after, _ := strings.Cut(Note(in), "first\\\n")
		line, _, _ := strings.Cut(after, "\n")
		if line == text || !strings.HasPrefix(line, `\`) && line != "code" && line != `1\. item` && line != `2\) item` {
			t.Errorf("%q became %q", text, line)
		}
	}
}

func TestBlockOutlivesFences(t *testing.T) {
	w := &noteWriter{}
	w.block("a\n````\nb")
	if got, want := w.String(), "`````text\na\n````\nb\n`````\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
