package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/release"
)

// Operator carries out what people ask for on the pages. It is safe for concurrent use.
type Operator interface {
	// MayRollback says why a rollback to that release would be refused now; nil when it would not.
	MayRollback(ctx context.Context, to string) error
	// MayActivate says why a switch to that release would be refused now; nil when it would not.
	MayActivate(ctx context.Context, id string) error
	// Enqueue has a worker do it and returns the task's ID.
	Enqueue(ctx context.Context, p tasks.Payload) (id string, err error)
	// Task says how far a task has come, or an error that wraps [tasks.ErrNotFound].
	Task(ctx context.Context, taskType, id string) (Task, error)
	// Pause stops a lane from taking new tasks, or lets it go on. It is harmless twice.
	Pause(ctx context.Context, lane tasks.Lane, paused bool) error
	// Preview says what an invalidation would remove from each live release.
	Preview(ctx context.Context, targets []tasks.Target) ([]invalidation.Preview, error)
	Keeper
}

// action is something that an operator can do on a page of its own: the plan first, then, with a reason,
// the deed.
type action struct {
	// plan says what would happen now.
	plan func(ctx context.Context, r *http.Request) (plan, error)
	// do does it, or has it done, and returns where that can be watched.
	do func(ctx context.Context, p plan, by tasks.By) (next string, err error)
}

// plan is what an action would do.
type plan struct {
	Title   string
	Steps   []string
	Refused string // why it would not be done; "" when it would
	Button  string
	// Subject and Seen are what the plan is about and what it rests on: a deed is done only while both
	// are as they were when the plan was shown.
	Subject, Seen string
	Back          string // where to go without doing it; "" means the first page

	Reason  string // as typed so far
	Problem string // why the page is shown again
}

// actionRoutes adds the pages of actions.
func (s *Server) actionRoutes(mux *router) {
	if s.deps.Operator == nil {
		return
	}
	operate := func(*http.Request) Scope { return Operate }
	actions := s.upkeepActions()
	actions["/rollback"] = action{s.planRollback, s.rollBack}
	actions["/releases/{id}/activate"] = action{s.planActivation, s.activate}
	actions["/lanes/{lane}"] = action{s.planLane, s.switchLane}
	for path, a := range actions {
		mux.Handle("GET "+path, s.guard.need(operate, s.showPlan(a)))
		mux.Handle("POST "+path, s.guard.need(operate, s.carryOut(a)))
	}
	mux.Handle("GET /releases/{id}/notes", s.guard.need(operate, http.HandlerFunc(s.editNotes)))
	mux.Handle("POST /releases/{id}/notes", s.guard.need(operate, http.HandlerFunc(s.postNotes)))
	mux.Handle("GET /invalidate", s.guard.need(operate, http.HandlerFunc(s.showInvalidate)))
	mux.Handle("POST /invalidate", s.guard.need(operate, http.HandlerFunc(s.postInvalidate)))
	mux.Handle("GET /tasks/{type}/{id}", s.guard.need(func(*http.Request) Scope { return View }, s.live(watched, s.showTask)))
}

func (s *Server) showPlan(a action) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if p, ok := s.planned(w, r, a); ok {
			s.render(w, r, http.StatusOK, s.pages.action, p.Title, p)
		}
	}
}

// planned makes a plan, or answers why there is none.
func (s *Server) planned(w http.ResponseWriter, r *http.Request, a action) (plan, bool) {
	p, err := within(r.Context(), previewLimit, func(ctx context.Context) (plan, error) { return a.plan(ctx, r) })
	switch {
	case errors.Is(err, tasks.ErrNotFound), errors.Is(err, tasks.ErrInvalid):
		s.render(w, r, http.StatusNotFound, s.pages.message, "There is no such thing", err.Error())
	case err != nil:
		s.fail(w, r, "Nothing could be planned", err)
	}
	return p, err == nil
}

// fail answers with what went wrong.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, title string, err error) {
	s.deps.Log.WarnContext(r.Context(), "console action failed", "path", r.URL.Path, "err", err)
	s.render(w, r, http.StatusServiceUnavailable, s.pages.message, title, redactText(err.Error()))
}

// carryOut does what the plan said, or shows the plan again with what stands against it.
func (s *Server) carryOut(a action) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p, ok := s.planned(w, r, a)
		if !ok {
			return
		}
		status := 0
		p.Reason = strings.TrimSpace(r.FormValue("reason"))
		by := tasks.By{Actor: actorOf(r).name, Reason: p.Reason}
		switch err := by.Validate(); {
		case p.Refused != "":
			status = http.StatusConflict
		case r.FormValue("subject") != p.Subject || r.FormValue("seen") != p.Seen:
			status, p.Problem = http.StatusConflict, "Nothing was done: things have changed since this plan was made. This is the plan now."
		case p.Reason == "":
			status, p.Problem = http.StatusUnprocessableEntity, "Nothing was done: say why, for whoever reads this later."
		case err != nil:
			status, p.Problem = http.StatusUnprocessableEntity, "Nothing was done: "+err.Error()
		}
		if status != 0 {
			s.render(w, r, status, s.pages.action, p.Title, p)
			return
		}
		next, err := within(r.Context(), readLimit, func(ctx context.Context) (string, error) { return a.do(ctx, p, by) })
		if err != nil {
			s.fail(w, r, "It is not known whether this was done: look before you do it again", err)
			return
		}
		s.deps.Log.InfoContext(r.Context(), "console action", "actor", by.Actor, "action", p.Title, "reason", by.Reason, "watch", next)
		http.Redirect(w, r, next, http.StatusSeeOther)
	}
}

// enqueue has a worker do it.
func (s *Server) enqueue(ctx context.Context, p tasks.Payload) (string, error) {
	id, err := s.deps.Operator.Enqueue(ctx, p)
	return "/tasks/" + p.TaskType() + "/" + id, err
}

// planRollback plans /rollback: to the release that ?to= names, or the one that was active before.
func (s *Server) planRollback(ctx context.Context, r *http.Request) (plan, error) {
	active, err := s.deps.Ledger.Active(ctx)
	if err != nil {
		return plan{}, err
	}
	to := r.URL.Query().Get("to")
	if to == "" {
		ready, err := s.deps.Rollback(ctx)
		if err != nil {
			return plan{}, err
		}
		if to = ready.To; to == "" {
			return plan{Title: "Roll back", Refused: redactText(ready.Reason)}, nil
		}
	}
	if err := tasks.ValidateRelease(to); err != nil {
		return plan{}, err
	}
	rec, err := s.deps.Ledger.Get(ctx, to)
	if err != nil {
		return plan{}, err
	}
	p := plan{Title: "Roll back to " + to, Button: "Roll back to " + to, Subject: to, Seen: active + " " + string(rec.State)}
	if err := s.deps.Operator.MayRollback(ctx, to); err != nil {
		p.Refused = redactText(err.Error())
		return p, nil
	}
	if active != "" {
		p.Steps = append(p.Steps, active+" is served until "+to+" is ready to be; then it goes on standby and can be brought back like this.")
	}
	p.Steps = append(p.Steps, s.wayBack(newRow(rec, active)))
	if status, err := s.deps.Status(ctx); err == nil && status.Pending > 0 {
		p.Steps = append(p.Steps, fmt.Sprintf("%d invalidations are under way, the oldest for %s: both releases get them.", status.Pending, short(status.OldestPending)))
	}
	return p, nil
}

// FlipTakes is what people are told that a rollback to a standby takes: a worker takes the task up,
// flips the pointer and says so.
const FlipTakes = time.Second

// wayBack says how a release comes back, and how long it takes.
func (s *Server) wayBack(r row) string {
	if r.State != release.Archived || r.Snapshot == nil {
		return fmt.Sprintf("%s is on standby and gets every edit as the served one does, so this is a flip of the pointer: about %s.", r.ID, short(FlipTakes))
	}
	text := fmt.Sprintf("%s is restored from its snapshot of %s, %s entries. Every invalidation since then is applied to it, a sample is proved fresh, and only then it is served",
		r.ID, r.Snapshot.Created.UTC().Format("2006-01-02 15:04 UTC"), humanize.Comma(r.Snapshot.Entries))
	if r.Drill.Seconds > 0 {
		return fmt.Sprintf("%s: about %s, as its last good drill measured %s.", text, short(time.Duration(r.Drill.Seconds*float64(time.Second))), ago(s.deps.Now().Sub(r.Drill.LastGood)))
	}
	return text + ". How long that takes no drill with this archive has measured yet."
}

func (s *Server) rollBack(ctx context.Context, p plan, by tasks.By) (string, error) {
	return s.enqueue(ctx, tasks.Rollback{To: p.Subject, By: by})
}

// planActivation plans /releases/{id}/activate.
func (s *Server) planActivation(ctx context.Context, r *http.Request) (plan, error) {
	id := r.PathValue("id")
	if err := tasks.ValidateRelease(id); err != nil {
		return plan{}, err
	}
	rec, err := s.deps.Ledger.Get(ctx, id)
	if err != nil {
		return plan{}, err
	}
	active, err := s.deps.Ledger.Active(ctx)
	if err != nil {
		return plan{}, err
	}
	p := plan{Title: "Serve " + id, Button: "Serve " + id, Subject: id, Seen: active + " " + string(rec.State)}
	if err := s.deps.Operator.MayActivate(ctx, id); err != nil {
		p.Refused = redactText(err.Error())
		return p, nil
	}
	p.Steps = append(p.Steps, "The pointer is flipped to "+id+", whose certificate has passed.")
	if active != "" {
		p.Steps = append(p.Steps, active+" goes on standby, receives every edit, and can be brought back by a flip.")
	}
	p.Steps = append(p.Steps, "The site's pages are then measured again and again and compared with those before.")
	return p, nil
}

func (s *Server) activate(ctx context.Context, p plan, by tasks.By) (string, error) {
	return s.enqueue(ctx, tasks.Activate{Release: p.Subject, By: by})
}

// planLane plans /lanes/{lane}: to pause one that runs, to resume one that is paused.
func (s *Server) planLane(ctx context.Context, r *http.Request) (plan, error) {
	name, err := tasks.ParseLane(r.PathValue("lane"))
	if err != nil {
		return plan{}, err
	}
	all, err := s.lanes.read(ctx)
	if err != nil {
		return plan{}, err
	}
	for _, l := range all {
		if l.Lane != name {
			continue
		}
		waiting := fmt.Sprintf("%d tasks wait now, %d are being done.", l.Pending+l.Later(), l.Active)
		if l.Paused {
			return plan{Title: "Resume the lane " + string(name), Button: "Resume " + string(name), Subject: string(name), Seen: lanePaused,
				Steps: []string{"Workers take its tasks again.", waiting}}, nil
		}
		steps := []string{"Workers finish what they do and take no further task of this lane; new ones wait in Redis.", waiting}
		switch name {
		case tasks.LaneWarm, tasks.LaneRefresh:
			steps[0] = "What is being warmed or reloaded stops within a second and goes on where it was once the lane is resumed; new tasks wait in Redis."
		case tasks.LaneInvalidate, tasks.LaneBulk:
			steps = append(steps, "Invalidations do not stop by this: every worker still applies what has been pending for over a second.")
		}
		return plan{Title: "Pause the lane " + string(name), Button: "Pause " + string(name), Subject: string(name), Seen: laneRuns, Steps: steps}, nil
	}
	return plan{}, fmt.Errorf("lane %q: %w", name, tasks.ErrNotFound)
}

const (
	lanePaused = "paused"
	laneRuns   = "runs"
)

func (s *Server) switchLane(ctx context.Context, p plan, _ tasks.By) (string, error) {
	return "/#lanes", s.deps.Operator.Pause(ctx, tasks.Lane(p.Subject), p.Seen == laneRuns)
}
