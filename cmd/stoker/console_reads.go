package main

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/alphanode/stoker/cmd/stoker/web"
	"github.com/alphanode/stoker/scheduler"
	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/health"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/warm"
)

// consoleReads are what the console's pages read of the rooms.
func (r *rooms) consoleReads() web.Reads {
	return web.Reads{
		Reports: r.reportsAsJSON, Schedule: r.schedule, Note: r.noteWith, Measured: siteUnder, WarmRun: r.warmRun, Edits: r.edits,
	}
}

// reportsAsJSON returns the newest health reports.
func (r *rooms) reportsAsJSON(ctx context.Context, n int) ([]json.RawMessage, error) {
	reports, err := r.monitor.History(ctx, n)
	if err != nil {
		return nil, err
	}
	all := make([]json.RawMessage, len(reports))
	for i := range reports {
		if all[i], err = json.Marshal(reports[i]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// schedule lists the entries of the schedule that this process is configured with.
func (r *rooms) schedule(ctx context.Context) (web.Schedule, error) {
	path := r.set.Scheduler.Schedule
	plan, err := scheduler.Load(path)
	if err != nil {
		return web.Schedule{}, err
	}
	runs, err := plan.Runs(ctx, r.queue, r.keys, time.Now())
	if err != nil {
		return web.Schedule{}, err
	}
	s := web.Schedule{Source: "From the file " + path, Zone: plan.Location.String()}
	if path == "" {
		s.Source = "The default schedule; STOKER_SCHEDULE names a file of your own"
	}
	for _, run := range runs {
		s.Entries = append(s.Entries, web.ScheduleEntry{Name: run.Entry, Task: run.Task, Cron: run.Cron, Last: run.Last, Next: run.Next, Missed: run.Missed})
	}
	return s, nil
}

// noteWith writes a release's final note, with other notes in the place of its own unless they are nil.
func (r *rooms) noteWith(ctx context.Context, id string, notes *release.Notes) (string, error) {
	rec, err := r.ledger.Get(ctx, id)
	if err != nil {
		return "", err
	}
	if notes != nil {
		rec.Notes = *notes
	}
	in := health.NoteInput{Record: rec}
	if err := r.fillNote(ctx, &in); err != nil {
		return "", err
	}
	return health.Note(in), nil
}

// siteUnder tells how the site behaved before a release and under it.
func siteUnder(_ context.Context, rec release.Record) (web.Measured, error) {
	in := health.NoteInput{Record: rec}
	if err := errors.Join(
		fill(rec, release.DocBaseline, &in.Baseline), fill(rec, release.DocVerdict, &in.Verdict), fill(rec, release.DocWatch, &in.Watch),
	); err != nil {
		return web.Measured{}, err
	}
	m, err := in.Measured()
	return web.Measured{Titles: m.Titles, Rows: m.Rows, Plots: m.Plots}, err
}

// warmRun says how far a warm run has come.
func (r *rooms) warmRun(ctx context.Context, run string) (web.WarmRun, error) {
	s, err := warm.Status(ctx, r.queue, r.keys, run)
	if err != nil {
		return web.WarmRun{}, err
	}
	w := web.WarmRun{Status: s.Status, Err: s.Error, Over: s.Over(), Done: s.Done, Total: s.Total}
	for _, src := range s.Sources {
		w.Sources = append(w.Sources, web.WarmSource{
			Name: src.Name, Kind: src.Kind, Total: src.Total,
			Planned: src.Planned, Stored: src.Stored, Invalidated: src.Invalidated, Failed: src.Failed,
		})
	}
	return w, nil
}

// edits counts the invalidations recorded since a moment; nil when the log does not reach back to it.
func (r *rooms) edits(ctx context.Context, since time.Time) (*int64, error) {
	status, err := r.log.Status(ctx)
	if err != nil || since.UnixMicro() < status.Floor {
		return nil, err
	}
	n, err := r.log.Since(ctx, since.UnixMicro())
	return &n, err
}

// MaySnapshot implements [web.Operator].
func (o consoleOperator) MaySnapshot(ctx context.Context, id string) error {
	if err := o.r.inRedis(ctx, id); err != nil {
		return err
	}
	return o.r.needStore(ctx)
}

// MayDrill implements [web.Operator].
func (o consoleOperator) MayDrill(ctx context.Context, id string) error { return o.r.mayDrill(ctx, id) }

// PlanExpiry implements [web.Operator].
func (o consoleOperator) PlanExpiry(ctx context.Context, id string) ([]web.Expiry, error) {
	steps, err := o.r.retirer.Plan(ctx, tasks.Expire{Release: id, By: tasks.By{Actor: "console"}})
	if err != nil {
		return nil, err
	}
	var all []web.Expiry
	for _, s := range steps {
		if s.To == release.Archived {
			if err := o.r.needStore(ctx); err != nil {
				return nil, err
			}
		}
		all = append(all, web.Expiry{Release: s.Release, From: s.From, To: s.To, Why: s.Why, Entries: s.Entries, Bytes: s.Bytes, Archive: s.Archive})
	}
	return all, nil
}

// Pin implements [web.Operator].
func (o consoleOperator) Pin(ctx context.Context, id string, pinned bool, by tasks.By) error {
	return o.r.ledger.Pin(ctx, id, pinned, by)
}

// SetNotes implements [web.Operator].
func (o consoleOperator) SetNotes(ctx context.Context, id string, notes release.Notes, by tasks.By) error {
	return o.r.ledger.SetNotes(ctx, id, notes, by)
}
