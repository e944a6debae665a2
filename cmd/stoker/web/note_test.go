package web

import (
	"context"
	"net/url"
	"strings"
	"testing"

	"github.com/alphanode/stoker/worker/release"
)

// TestNotes: without scripts, the editor shows what is there, previews the whole note without saving, and saves
// once, for who has seen what it replaces.
func TestNotes(t *testing.T) {
	ledger := exampleLedger()
	s, op, v := operated(t, func(d *Deps) { d.Ledger = ledger })
	_, _, page := v.page("/releases/r42/notes", nil)
	for _, want := range []string{`value="ann"`, ">first paint 200 ms sooner</textarea>", "templates/article.html\nstatic/article.css</textarea>"} {
		if !strings.Contains(page, want) {
			t.Errorf("the editor lacks %s", want)
		}
	}
	typed := form(page, "a **new** reason")
	typed.Set("owner", "ben")
	typed.Set("files", "a.html\r\n\r\n b.html ")
	typed.Set("step", "preview")
	status, _, page := v.page("/releases/r42/notes", typed)
	if status != 200 || !strings.Contains(page, "a <strong>new</strong> reason") || !strings.Contains(page, "nothing is saved yet") || !strings.Contains(page, `value="ben"`) || len(op.done) > 0 {
		t.Errorf("the preview: status %d, done %q\n%s", status, op.done, page)
	}
	typed.Set("step", "save")
	bad := url.Values{"step": {"save"}, "seen": typed["seen"], "owner": {"a\x1b[31mb"}}
	if status, _, page := v.page("/releases/r42/notes", bad); status != 422 || !strings.Contains(page, "control characters") || len(op.done) > 0 {
		t.Errorf("with an escape sequence: status %d, done %q", status, op.done)
	}
	if status, at, _ := v.page("/releases/r42/notes", typed); status != 200 || at != "/releases/r42" {
		t.Errorf("saved: status %d at %s", status, at)
	}
	if want := `notes r42 by otto: {Owner:ben Reason:a **new** reason Expected: RollbackNote: Revision: Files:[a.html b.html] Commands:[]}`; len(op.done) != 1 || op.done[0] != want {
		t.Errorf("done %q, want %s", op.done, want)
	}
	if !strings.Contains(s.logged.String(), `msg="console action" actor=otto action="Notes of r42"`) {
		t.Errorf("the log does not tell of it:\n%s", s.logged)
	}
	ledger.records[1].Notes.Reason = "a colleague's" // nothing asks it at the same time
	if status, _, page := v.page("/releases/r42/notes", typed); status != 409 || !strings.Contains(page, "somebody else has changed") || len(op.done) != 1 {
		t.Errorf("over a colleague's notes: status %d, done %q", status, op.done)
	}
}

// TestNoteIsHarmless: whatever Markdown can carry, the page of a note runs nothing and loads nothing.
func TestNoteIsHarmless(t *testing.T) {
	const evil = "<script>alert(1)</script>\n\n<img src=x onerror=alert(1)>\n\n[a](javascript:alert(1)) <javascript:alert(1)> [b](data:text/html,x)\n\n<div style=\"x\">\n\n|a|\n|:-:|\n|b|\n"
	_, _, v := operated(t, func(d *Deps) {
		d.Reads.Note = func(context.Context, string, *release.Notes) (string, error) { return evil, nil }
	})
	_, _, editor := v.page("/releases/r42/notes", nil)
	typed := form(editor, "x")
	typed.Set("step", "preview")
	_, _, note := v.page("/releases/r42/note", nil)
	_, _, preview := v.page("/releases/r42/notes", typed)
	for name, page := range map[string]string{"note": note, "preview": preview} {
		for _, bad := range []string{"<script>", "<img src=x", "javascript:alert(1)\"", `href="data:`, "style="} {
			if strings.Contains(page, bad) {
				t.Errorf("the %s holds %s:\n%s", name, bad, page)
			}
		}
		if !strings.Contains(page, "<table>") {
			t.Errorf("the %s lacks its table", name)
		}
	}
}
