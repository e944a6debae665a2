package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
)

// run is one try of one rollback.
type run struct {
	*Restorer
	job     tasks.Job
	by      tasks.By
	salvage bool // of a damaged archive, what is whole
	cursor
}

// Rollback makes p.To active again, or without it the release on standby that was active last; where
// p.From is given, only while that one is active.
// What may not or cannot come back fresh is refused with tasks.ErrRefused, and with
// tasks.ErrNotFresh where the log does not reach back to the archive; then nothing was changed.
func (r *Restorer) Rollback(ctx context.Context, job tasks.Job, p tasks.Rollback) (Report, error) {
	if err := p.Validate(); err != nil {
		return Report{}, err
	}
	t := &run{Restorer: r, job: job, by: p.By, salvage: p.Salvage}
	resumed, err := job.Load(ctx, &t.cursor)
	if err != nil {
		return Report{}, err
	}
	if !resumed {
		if err := t.choose(ctx, p.From, p.To); err != nil {
			return Report{}, err
		}
	}
	if err := t.rollback(ctx); err != nil {
		return t.Report, fmt.Errorf("roll back to %q: %w", t.Report.To, err)
	}
	r.Logger.Info("rolled back", "from", t.Report.From, "to", t.Report.To, "via", t.Report.Via, "fresh_as_of", t.Report.FreshAsOf, "seconds", t.Report.Seconds)
	return t.Report, nil
}

// choose finds the release to go back to and writes it down before anything is changed.
func (t *run) choose(ctx context.Context, from, to string) error {
	active, err := t.Ledger.Active(ctx)
	if err != nil {
		return err
	}
	if from != "" && active != from {
		return fmt.Errorf("roll back from %q: %w: %q is active instead: look, and ask again", from, tasks.ErrRefused, active)
	}
	var rec release.Record
	if to != "" {
		rec, err = t.Ledger.Get(ctx, to)
	} else {
		rec, err = t.lastActive(ctx)
	}
	if err != nil {
		return err
	}
	if err := t.mayReturn(rec); err != nil {
		return fmt.Errorf("roll back to %q: %w", rec.ID, err)
	}
	t.cursor = cursor{
		Report:      Report{From: active, To: rec.ID, Via: ViaArchive},
		Started:     t.Now().UTC(),
		ActivatedAt: rec.ActivatedAt,
	}
	if rec.State == release.Standby {
		t.Report.Via = ViaStandby
	}
	return t.job.Save(ctx, t.cursor)
}

// lastActive returns the release on standby that was active last.
func (r *Restorer) lastActive(ctx context.Context) (release.Record, error) {
	records, err := r.Ledger.List(ctx)
	if err != nil {
		return release.Record{}, err
	}
	if rec, ok := newestStandby(records); ok {
		return rec, nil
	}
	return release.Record{}, fmt.Errorf("roll back: %w: %s", tasks.ErrRefused, noStandby(records))
}

func newestStandby(records []release.Record) (release.Record, bool) {
	standby := slices.DeleteFunc(slices.Clone(records), func(rec release.Record) bool { return rec.State != release.Standby })
	if len(standby) == 0 {
		return release.Record{}, false
	}
	return slices.MaxFunc(standby, func(a, b release.Record) int {
		return cmpTimes(a.ActivatedAt, b.ActivatedAt, a.CreatedAt, b.CreatedAt)
	}), true
}

// cmpTimes compares a with b and, where those are equal, x with y.
func cmpTimes(a, b, x, y time.Time) int {
	if c := a.Compare(b); c != 0 {
		return c
	}
	return x.Compare(y)
}

// noStandby says what can be done when there is no release to flip to.
func noStandby(records []release.Record) string {
	var archived []string
	for _, rec := range records {
		if rec.State == release.Archived {
			archived = append(archived, "`stoker rollback --to "+rec.ID+"`")
		}
	}
	if len(archived) == 0 {
		return "no release is on standby, and none is archived: warm and activate a new one"
	}
	return "no release is on standby; from its archive can be restored: " + strings.Join(archived, ", ")
}

// mayReturn refuses a release that a rollback cannot lead to.
func (r *Restorer) mayReturn(rec release.Record) error {
	refuse := func(why string) error { return fmt.Errorf("%w: %s", tasks.ErrRefused, why) }
	if rec.Template != "" && rec.Template != r.Template.String() {
		return refuse(fmt.Sprintf("it was made with the key template %q, this worker uses %q: set STOKER_KEY_TEMPLATE to the release's", rec.Template, r.Template))
	}
	switch rec.State {
	case release.Standby, release.Archived, release.Restoring:
		return nil
	case release.Active:
		return refuse("it is active already")
	case release.Expired:
		return refuse("it has expired, and its archive is gone: create and warm a release of that build")
	}
	return refuse(fmt.Sprintf("it is %s and was not served before: `stoker release activate %s` when it is ready", rec.State, rec.ID))
}

// rollback goes from wherever an earlier try left the release to its end.
func (t *run) rollback(ctx context.Context) error {
	rec, err := t.Ledger.Get(ctx, t.Report.To)
	if err != nil {
		return err
	}
	if t.flipped(rec) {
		return t.finish(ctx)
	}
	if err := t.mayReturn(rec); err != nil {
		return err
	}
	if rec.State != release.Standby {
		if err := t.bringBack(ctx, rec); err != nil {
			return err
		}
	}
	if err := t.settle(ctx); err != nil {
		return err
	}
	if err := t.flip(ctx); err != nil {
		return err
	}
	return t.finish(ctx)
}

// flipped reports whether the release has become active since it was chosen, by an earlier try
// or by somebody else.
func (t *run) flipped(rec release.Record) bool {
	return rec.State == release.Active || !rec.ActivatedAt.Equal(t.ActivatedAt)
}

// settle applies everything pending and notes up to which number that is known to hold.
func (t *run) settle(ctx context.Context) error {
	if _, err := t.Applier.Sweep(ctx, 0); err != nil {
		return err
	}
	mark, err := t.Log.Mark(ctx)
	if err != nil {
		return err
	}
	t.Report.FreshAsOf = mark.Number
	return t.job.Save(ctx, t.cursor)
}

func (t *run) flip(ctx context.Context) error {
	active, err := t.Ledger.Active(ctx)
	if err != nil {
		return err
	}
	if active != t.Report.From {
		return fmt.Errorf("%w: since the rollback was asked for, %q became active instead of %q; it stays on standby: look, and ask again", tasks.ErrRefused, active, t.Report.From)
	}
	_, err = t.Ledger.Flip(ctx, t.Report.To, release.Standby, t.by)
	if errors.Is(err, tasks.ErrRefused) {
		// The reply to a flip that succeeded may have been lost.
		if rec, getErr := t.Ledger.Get(ctx, t.Report.To); getErr == nil && t.flipped(rec) {
			return nil
		}
	}
	return err
}

// finish completes the report of a release that is active again.
func (t *run) finish(ctx context.Context) error {
	if t.Report.FreshAsOf == 0 { // it was activated by somebody else
		if err := t.settle(ctx); err != nil {
			return err
		}
	}
	if t.Report.Seconds == 0 {
		t.Report.Seconds = t.Now().Sub(t.Started).Round(time.Millisecond).Seconds()
	}
	if err := t.Ledger.SetDoc(ctx, t.Report.To, release.DocRestore, State{Task: t.job.ID(), At: t.Now().UTC(), Report: &t.Report}); err != nil {
		return err
	}
	return t.job.Save(ctx, t.cursor)
}
