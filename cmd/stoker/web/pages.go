package web

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
)

//go:embed pages assets
var files embed.FS

// pages renders the console's own pages.
type pages struct {
	overview, releases, release, note, feed, health, schedule, message, signIn *template.Template
	action, task, invalidate, notes                                            *template.Template
}

func newPages(now func() time.Time) *pages {
	funcs := template.FuncMap{
		"ago":   func(t time.Time) string { return ago(now().Sub(t)) },
		"until": func(t time.Time) string { return "in " + short(t.Sub(now())) },
		"short": short,
		"comma": comma,
		"share": func(v float64) string { return fmt.Sprintf("%.1f%%", 100*v) },
		"bytes": func(n int64) string { return humanize.IBytes(uint64(max(n, 0))) },
		"stamp": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
		"iso":   func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"micro": time.UnixMicro,
	}
	page := func(name string) *template.Template {
		return template.Must(template.New(name).Funcs(funcs).ParseFS(files, "pages/layout.html", "pages/"+name))
	}
	return &pages{
		overview: page("overview.html"), release: page("release.html"), feed: page("invalidations.html"),
		message: page("message.html"), signIn: page("signin.html"),
		releases: page("releases.html"), note: page("note.html"), notes: page("notes.html"), health: page("health.html"), schedule: page("schedule.html"),
		action: page("action.html"), task: page("task.html"), invalidate: page("invalidate.html"),
	}
}

// assets serves the pages' style sheet, script and icon.
func (*pages) assets() http.Handler {
	only, err := fs.Sub(files, "assets") // not the templates beside them, whatever the address says
	if err != nil {
		panic(err) // the name is a constant
	}
	all := http.StripPrefix("/assets", http.FileServerFS(only))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "private, max-age=300")
		all.ServeHTTP(w, r)
	})
}

// comma is a whole number with its thousands apart.
func comma(n any) string {
	switch n := n.(type) {
	case int:
		return humanize.Comma(int64(n))
	case int64:
		return humanize.Comma(n)
	case *int64:
		return humanize.Comma(*n)
	}
	return fmt.Sprint(n)
}

// short is a duration in one unit, as a person would say it.
func short(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", max(d, 0).Milliseconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// ago is a time in the past by its age.
func ago(age time.Duration) string {
	if age < time.Second {
		return "just now"
	}
	return short(age) + " ago"
}

// Section is the part of the console that a page belongs to, by the address of its first page.
func (v view) Section() string {
	for _, s := range []string{"/releases", "/invalidat", "/health", "/schedule"} {
		if strings.HasPrefix(v.Path, s) {
			return s
		}
	}
	return "/"
}

// view is what every page's layout needs besides the page's own Data.
type view struct {
	App, Title string
	Path       string
	At         time.Time
	Who        actor
	Acts       bool // actions are offered
	Reload     bool // where there is no JavaScript, by the browser
	Data       any
}

// showOverview answers /.
func (s *Server) showOverview(w http.ResponseWriter, r *http.Request) {
	o := s.gather(r.Context())
	status := http.StatusOK
	if len(o.Problems) > 0 {
		status = http.StatusServiceUnavailable
	}
	s.render(w, r, status, s.pages.overview, "Now", o)
}

// details is what a release's page shows.
type details struct {
	row
	History   []release.Move // newest first
	Documents []document
	Warm      *WarmRun // the run under way; nil without one
	Measured  Measured
	Edits     *int64   // invalidations recorded since it was made; nil when not known
	Problems  []string // what could not be read
}

type document struct {
	Name string
	Text string
}

// showRelease answers /releases/{id}.
func (s *Server) showRelease(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	d, err := within(r.Context(), readLimit, func(ctx context.Context) (details, error) { return s.details(ctx, id) })
	switch {
	case errors.Is(err, tasks.ErrNotFound), errors.Is(err, tasks.ErrInvalid):
		s.render(w, r, http.StatusNotFound, s.pages.message, "No such release", err.Error())
	case err != nil:
		s.deps.Log.WarnContext(r.Context(), "console cannot read release", "release", id, "err", err)
		s.render(w, r, http.StatusServiceUnavailable, s.pages.message, "The release could not be read", redactText(err.Error()))
	default:
		s.render(w, r, http.StatusOK, s.pages.release, "Release "+id, d)
	}
}

// details reads one release.
func (s *Server) details(ctx context.Context, id string) (details, error) {
	if err := tasks.ValidateRelease(id); err != nil {
		return details{}, err
	}
	rec, err := s.deps.Ledger.Get(ctx, id)
	if err != nil {
		return details{}, err
	}
	active, err := s.deps.Ledger.Active(ctx)
	if err != nil {
		return details{}, err
	}
	moves, err := s.deps.Ledger.History(ctx, id)
	if err != nil {
		return details{}, err
	}
	d := details{row: newRow(rec, active), History: slices.Clone(moves)}
	slices.Reverse(d.History)
	if rec.State.Live() {
		d.Count = s.counts.of(ctx, id)
	}
	s.besides(ctx, rec, &d)
	for _, name := range slices.Sorted(maps.Keys(rec.Docs)) {
		d.Documents = append(d.Documents, document{string(name), indent(redact(rec.Docs[name]))})
	}
	return d, nil
}

// besides reads what the ledger does not hold of a release. What cannot be read leaves a word and the rest
// of the page.
func (s *Server) besides(ctx context.Context, rec release.Record, d *details) {
	problem := func(name string, err error) {
		if err != nil {
			s.deps.Log.WarnContext(ctx, "console page lacks a part", "part", name, "err", err)
			d.Problems = append(d.Problems, name+" could not be read: "+redactText(err.Error()))
		}
	}
	var err error
	if rec.Run != "" {
		var run WarmRun
		if run, err = s.deps.Reads.WarmRun(ctx, rec.Run); err == nil && !run.Over {
			run.Err = redactText(run.Err)
			d.Warm = &run
		} else if !errors.Is(err, tasks.ErrNotFound) {
			problem("Its warm run", err)
		}
	}
	d.Measured, err = s.deps.Reads.Measured(ctx, rec)
	problem("What was measured", err)
	d.Edits, err = s.deps.Reads.Edits(ctx, rec.CreatedAt)
	problem("Invalidations since", err)
}

// render writes a page whole or not at all.
func (s *Server) render(w http.ResponseWriter, r *http.Request, status int, page *template.Template, title string, data any) {
	var out bytes.Buffer
	task, isTask := data.(taskPage)
	if err := page.ExecuteTemplate(&out, "layout", view{App: s.deps.App, Title: title, Path: r.URL.Path, At: s.deps.Now(), Who: *actorOf(r), Acts: s.deps.Operator != nil && actorOf(r).scope.allows(Operate), Reload: isTask && !task.Ended(), Data: data}); err != nil {
		s.deps.Log.ErrorContext(r.Context(), "console page failed", "page", page.Name(), "err", err)
		http.Error(w, "The page could not be made; the log says why.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(out.Bytes()) // the client is gone: nobody to tell
}

// indent makes redacted JSON readable; text stays as it is.
func indent(text string) string {
	var out bytes.Buffer
	if json.Indent(&out, []byte(text), "", "  ") != nil {
		return text
	}
	return out.String()
}
