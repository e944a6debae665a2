package retire

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/release"
)

// Report says what an expiry did.
type Report struct {
	Archived []string  `json:"archived,omitempty"`
	Expired  []string  `json:"expired,omitempty"`
	Deleted  int64     `json:"deleted"` // keys, by this try
	Skipped  []Skipped `json:"skipped,omitempty"`
	Seconds  float64   `json:"seconds"`
}

// Skipped is a release that the rule gives up and a guard keeps.
type Skipped struct {
	Release string `json:"release"`
	Why     string `json:"why"`
}

// Expire takes one named release further (standby → archived, or → expired without a snapshot;
// archived → expired), or all that the retention rule gives up. By name, what a guard refuses
// is an error that wraps tasks.ErrRefused; by rule it is skipped, and one release's failure does
// not keep the others waiting.
func (r *Retirer) Expire(ctx context.Context, job tasks.Job, p tasks.Expire) (Report, error) {
	start := r.Now()
	steps, err := r.intended(ctx, job, p)
	if err != nil {
		return Report{}, err
	}
	var report Report
	var failed []error
	for _, s := range steps {
		if err := interrupted(ctx, job); err != nil {
			return report, errors.Join(append(failed, err)...)
		}
		deleted, err := r.bring(ctx, job, s, p.By)
		report.Deleted += deleted
		switch {
		case err == nil && s.To == release.Archived:
			report.Archived = append(report.Archived, s.Release)
		case err == nil:
			report.Expired = append(report.Expired, s.Release)
		case p.Release == "" && errors.Is(err, tasks.ErrRefused):
			r.Logger.Warn("release not retired", "release", s.Release, "why", err)
			report.Skipped = append(report.Skipped, Skipped{s.Release, err.Error()})
		default:
			failed = append(failed, err)
		}
	}
	report.Seconds = r.Now().Sub(start).Round(time.Millisecond).Seconds()
	return report, errors.Join(failed...)
}

// intended returns the steps; for a release by name those that the first try decided on.
func (r *Retirer) intended(ctx context.Context, job tasks.Job, p tasks.Expire) ([]Step, error) {
	if p.Release == "" {
		return r.steps(ctx, p, map[string]namespace.Usage{})
	}
	var c cursor
	if _, err := job.Load(ctx, &c); err != nil {
		return nil, err
	}
	if c.Release == p.Release {
		return []Step{{Release: c.Release, To: c.To}}, nil
	}
	steps, err := r.steps(ctx, p, map[string]namespace.Usage{})
	if err != nil {
		return nil, err
	}
	return steps, job.Save(ctx, cursor{Release: steps[0].Release, To: steps[0].To})
}

// bring takes a release to where a step wants it, from wherever an earlier try left it.
func (r *Retirer) bring(ctx context.Context, job tasks.Job, s Step, by tasks.By) (int64, error) {
	fail := func(err error) (int64, error) { return 0, fmt.Errorf("expire release %q: %w", s.Release, err) }
	rec, err := r.Ledger.Get(ctx, s.Release)
	if err != nil {
		return fail(err)
	}
	if rec.State != s.To && rec.State != release.Expired {
		if err := r.leave(ctx, job, rec, s, by); err != nil {
			return fail(err)
		}
	}
	deleted, err := r.finish(ctx, job, s.Release)
	if err != nil {
		return deleted, fmt.Errorf("expire release %q: %w", s.Release, err)
	}
	return deleted, nil
}

// leave makes sure of the snapshot and moves the release out of its state.
func (r *Retirer) leave(ctx context.Context, job tasks.Job, rec release.Record, s Step, by tasks.By) error {
	if rec.Pinned {
		return fmt.Errorf("%w: it is pinned; `stoker release unpin %s` lets it go", tasks.ErrRefused, rec.ID)
	}
	if !rec.State.May(s.To) {
		return fmt.Errorf("%w: it is %s now", tasks.ErrRefused, rec.State)
	}
	if err := r.sameTemplate(rec); err != nil {
		return err
	}
	if s.To == release.Archived {
		if err := r.ensureSnapshot(ctx, job, rec); err != nil {
			return err
		}
	}
	if rec.State != release.Archived { // whose purge may be finished already
		if err := r.Ledger.SetDoc(ctx, rec.ID, release.DocPurge, release.Purge{Task: job.ID()}); err != nil {
			return err
		}
	}
	err := r.Ledger.Move(ctx, rec.ID, rec.State, s.To, by)
	if errors.Is(err, tasks.ErrRefused) {
		// Another expiry was first, or this move's reply was lost: both are fine.
		if now, getErr := r.Ledger.Get(ctx, rec.ID); getErr == nil && now.State == s.To {
			return nil
		}
	}
	return err
}

// ensureSnapshot returns when a release on standby has an archive that holds all it was served
// with, checked just now.
func (r *Retirer) ensureSnapshot(ctx context.Context, job tasks.Job, rec release.Record) error {
	d, err := described(rec)
	if err != nil {
		return err
	}
	if d.Name != "" && d.Store == r.Store.String() && d.Created.After(rec.ChangedAt) {
		err := r.Log.Fresh(ctx, invalidation.Mark{Number: d.Mark, Epoch: d.Epoch})
		if err == nil {
			err = r.verify(ctx, &d)
		}
		if err == nil {
			return r.settle(ctx, job, d) // ours, perhaps, from an earlier try
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.Logger.Warn("recorded snapshot of no use, taking another", "release", rec.ID, "archive", d.Name, "why", err)
	}
	_, err = r.snapshot(ctx, job, rec.ID)
	return err
}
