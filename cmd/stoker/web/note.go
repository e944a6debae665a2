package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/extension"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
)

// markdown renders notes. It drops HTML and addresses that run something; what is not CommonMark but a
// table is shown as one, aligned without the style attributes that the content security policy forbids.
var markdown = goldmark.New(goldmark.WithExtensions(extension.NewTable(extension.WithTableCellAlignMethod(extension.TableCellAlignAttribute))))

// notePage is what the page of a release's final note shows.
type notePage struct {
	ID   string
	HTML template.HTML
}

// showNote answers /releases/{id}/note: the note that `stoker release note` writes.
func (s *Server) showNote(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	html, err := s.noteOf(r.Context(), id, nil)
	if err != nil {
		s.absentOr(w, r, "The note could not be written", err)
		return
	}
	s.render(w, r, http.StatusOK, s.pages.note, "Note of "+id, notePage{id, html})
}

// noteOf renders a release's note; notes, unless nil, stand in for the release's own.
func (s *Server) noteOf(ctx context.Context, id string, notes *release.Notes) (template.HTML, error) {
	if err := tasks.ValidateRelease(id); err != nil {
		return "", err
	}
	text, err := within(ctx, noteLimit, func(ctx context.Context) (string, error) { return s.deps.Reads.Note(ctx, id, notes) })
	if err != nil {
		return "", err
	}
	var html bytes.Buffer
	if err := markdown.Convert([]byte(text), &html); err != nil {
		return "", fmt.Errorf("render note of release %q: %w", id, err)
	}
	return template.HTML(html.String()), nil // goldmark has escaped it
}

// noteLimit is how long a note may take: its checklist asks both Redises.
const noteLimit = 3 * readLimit

// notesForm is what the page for editing notes shows.
type notesForm struct {
	ID      string
	Notes   release.Notes
	Seen    string // names the notes that were edited
	Preview template.HTML
	Problem string
}

// Lines joins what is one a line.
func (notesForm) Lines(lines []string) string { return strings.Join(lines, "\n") }

// editNotes answers GET /releases/{id}/notes.
func (s *Server) editNotes(w http.ResponseWriter, r *http.Request) {
	rec, seen, err := s.notesNow(r)
	if err != nil {
		s.absentOr(w, r, "The notes could not be read", err)
		return
	}
	s.render(w, r, http.StatusOK, s.pages.notes, "Notes of "+rec.ID, notesForm{ID: rec.ID, Notes: rec.Notes, Seen: seen})
}

// notesNow reads the release that the address names, and names its notes.
func (s *Server) notesNow(r *http.Request) (release.Record, string, error) {
	id := r.PathValue("id")
	if err := tasks.ValidateRelease(id); err != nil {
		return release.Record{}, "", err
	}
	rec, err := within(r.Context(), readLimit, func(ctx context.Context) (release.Record, error) { return s.deps.Ledger.Get(ctx, id) })
	if err != nil {
		return release.Record{}, "", err
	}
	raw, err := json.Marshal(rec.Notes)
	return rec, digest(string(raw)), err
}

// postNotes answers the form: with the note as it would be, or by keeping it.
func (s *Server) postNotes(w http.ResponseWriter, r *http.Request) {
	rec, seen, err := s.notesNow(r)
	if err != nil {
		s.absentOr(w, r, "The notes could not be read", err)
		return
	}
	f := notesForm{ID: rec.ID, Seen: r.FormValue("seen"), Notes: typedNotes(r)}
	status, save := http.StatusOK, r.FormValue("step") == "save"
	switch err := f.Notes.Validate(); {
	case err != nil:
		status, f.Problem = http.StatusUnprocessableEntity, "Nothing was saved: "+strings.ReplaceAll(err.Error(), tasks.ErrInvalid.Error()+": ", "")
	case save && f.Seen != seen:
		status, f.Seen = http.StatusConflict, seen
		f.Problem = "Nothing was saved: somebody else has changed these notes since you opened them. Saving again replaces theirs by what stands here."
	case save:
		s.keepNotes(w, r, rec.ID, f.Notes)
		return
	}
	if f.Problem == "" || status == http.StatusConflict {
		if f.Preview, err = s.noteOf(r.Context(), rec.ID, &f.Notes); err != nil {
			s.fail(w, r, "Nothing was saved: the note could not be written", err)
			return
		}
	}
	s.render(w, r, status, s.pages.notes, "Notes of "+rec.ID, f)
}

// keepNotes keeps notes and shows the release.
func (s *Server) keepNotes(w http.ResponseWriter, r *http.Request, id string, notes release.Notes) {
	by := tasks.By{Actor: actorOf(r).name}
	if _, err := within(r.Context(), readLimit, func(ctx context.Context) (any, error) {
		return nil, s.deps.Operator.SetNotes(ctx, id, notes, by)
	}); err != nil {
		s.fail(w, r, "It is not known whether the notes were saved: look before you save them again", err)
		return
	}
	s.deps.Log.InfoContext(r.Context(), "console action", "actor", by.Actor, "action", "Notes of "+id)
	http.Redirect(w, r, "/releases/"+id, http.StatusSeeOther)
}

// typedNotes reads the form's fields.
func typedNotes(r *http.Request) release.Notes {
	text := func(name string) string {
		return strings.TrimSpace(strings.ReplaceAll(r.FormValue(name), "\r\n", "\n"))
	}
	lines := func(name string) (all []string) {
		for line := range strings.Lines(text(name)) {
			if line = strings.TrimSpace(line); line != "" {
				all = append(all, line)
			}
		}
		return all
	}
	return release.Notes{
		Owner: text("owner"), Reason: text("reason"), Expected: text("expected"), RollbackNote: text("rollback_note"),
		Revision: text("revision"), Files: lines("files"), Commands: lines("commands"),
	}
}

// absentOr answers that there is no such thing, or what else went wrong.
func (s *Server) absentOr(w http.ResponseWriter, r *http.Request, title string, err error) {
	if errors.Is(err, tasks.ErrNotFound) || errors.Is(err, tasks.ErrInvalid) {
		s.render(w, r, http.StatusNotFound, s.pages.message, "No such release", err.Error())
		return
	}
	s.fail(w, r, title, err)
}
