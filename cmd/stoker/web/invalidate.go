package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
)

// previewLimit bounds a dry run: a prefix scans whole namespaces.
const previewLimit = 20 * time.Second

// invalidateForm is what the page for invalidating shows: what was typed, and what it would do.
type invalidateForm struct {
	Keys, Tags, Prefixes string // one a line
	Reason               string
	Refresh              bool
	Problem              string
	Planned              bool   // Preview is of these targets
	Seen                 string // names them
	Preview              []invalidation.Preview
}

// targets reads what was typed.
func (f invalidateForm) targets() []tasks.Target {
	var all []tasks.Target
	for _, part := range []struct {
		kind tasks.Kind
		text string
	}{{tasks.KindKey, f.Keys}, {tasks.KindTag, f.Tags}, {tasks.KindPrefix, f.Prefixes}} {
		for line := range strings.Lines(part.text) {
			if line = strings.TrimRight(line, "\r\n"); line != "" {
				all = append(all, tasks.Target{Kind: part.kind, Name: tasks.Bytes(line)})
			}
		}
	}
	return all
}

// showInvalidate answers GET /invalidate.
func (s *Server) showInvalidate(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	s.render(w, r, http.StatusOK, s.pages.invalidate, "Invalidate", invalidateForm{Keys: q.Get("keys"), Tags: q.Get("tags"), Prefixes: q.Get("prefixes")})
}

// postInvalidate answers the form: first with what it would remove, then, when the same targets come
// again with a reason, by recording it.
func (s *Server) postInvalidate(w http.ResponseWriter, r *http.Request) {
	f := invalidateForm{
		Keys: r.FormValue("keys"), Tags: r.FormValue("tags"), Prefixes: r.FormValue("prefixes"),
		Reason: strings.TrimSpace(r.FormValue("reason")), Refresh: r.FormValue("refresh") != "",
	}
	call := tasks.Invalidation{Targets: f.targets(), Refresh: f.Refresh, By: tasks.By{Actor: actorOf(r).name, Reason: f.Reason}}
	if err := call.Validate(); err != nil {
		f.Problem = strings.ReplaceAll(err.Error(), tasks.ErrInvalid.Error()+": ", "")
		s.render(w, r, http.StatusUnprocessableEntity, s.pages.invalidate, "Invalidate", f)
		return
	}
	raw, err := json.Marshal(call.Targets)
	if err != nil {
		s.fail(w, r, "Nothing was invalidated", err)
		return
	}
	f.Seen = digest(string(raw))
	if r.FormValue("step") == "do" && r.FormValue("seen") == f.Seen && f.Reason != "" {
		s.recordFrom(w, r, call)
		return
	}
	if r.FormValue("step") == "do" && f.Reason == "" {
		f.Problem = "Nothing was invalidated: say why, for whoever reads this later."
	}
	f.Preview, err = within(r.Context(), previewLimit, func(ctx context.Context) ([]invalidation.Preview, error) {
		return s.deps.Operator.Preview(ctx, call.Targets)
	})
	if err != nil {
		s.fail(w, r, "What it would remove could not be found out", err)
		return
	}
	f.Planned = true
	s.render(w, r, http.StatusOK, s.pages.invalidate, "Invalidate", f)
}

// recordFrom records a call of the page's and shows it among the others.
func (s *Server) recordFrom(w http.ResponseWriter, r *http.Request, call tasks.Invalidation) {
	// Who leaves the page must not leave it open whether the call is recorded.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), recordLimit)
	defer cancel()
	receipt, err := s.deps.Invalidate(ctx, call)
	if err != nil && !errors.Is(err, tasks.ErrNotEnqueued) { // which a sweep applies
		s.fail(w, r, "It may or may not be recorded: send it again, which is harmless", err)
		return
	}
	s.deps.Log.InfoContext(r.Context(), "console action", "actor", call.Actor, "action", fmt.Sprintf("Invalidate %d targets", len(call.Targets)), "reason", call.Reason, "number", receipt.Number)
	http.Redirect(w, r, "/invalidations", http.StatusSeeOther)
}
