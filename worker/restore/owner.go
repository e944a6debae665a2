package restore

import (
	"context"
	"errors"
	"fmt"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/snapshot"
)

// takeUp goes on with a restore under way: its own, or one that shows no sign of life.
func (t *run) takeUp(ctx context.Context, rec release.Record) error {
	var s State
	if _, err := rec.Doc(release.DocRestore, &s); err != nil {
		return err
	}
	switch ours, err := t.ours(ctx, rec, s); {
	case err != nil:
		return err
	case ours && t.Phase == chosen:
		return t.claim(ctx)
	case ours:
		return nil
	}
	alive := rec.ChangedAt
	if s.At.After(alive) {
		alive = s.At
	}
	if idle := t.Now().Sub(alive); idle < AbandonedAfter {
		return fmt.Errorf("%w (task %s, last seen %v ago): wait for it; after %v without a sign of life a rollback takes over",
			errNotOurs, s.Task, max(0, idle).Round(1e9), AbandonedAfter)
	}
	t.Logger.Warn("taking over an abandoned restore", "release", rec.ID, "task", s.Task)
	if s.Task != t.job.ID() {
		t.Prior = s.Task
	}
	if err := t.job.Save(ctx, t.cursor); err != nil {
		return err
	}
	return t.claim(ctx)
}

// ours reports whether this task has moved the release to restoring. When the reply to that
// move was lost, the ledger's history tells.
func (t *run) ours(ctx context.Context, rec release.Record, s State) (bool, error) {
	switch {
	case s.Task == t.job.ID() && (t.Phase != chosen || s.At.After(rec.ChangedAt)):
		return true, nil
	case s.Task != t.job.ID() && s.At.After(rec.ChangedAt):
		return false, nil
	}
	history, err := t.Ledger.History(ctx, rec.ID)
	if err != nil || len(history) == 0 {
		return false, err
	}
	last := history[len(history)-1]
	return last.To == release.Restoring && last.By == t.by && last.At.After(t.Started.Add(-clockSkew)), nil
}

// claim writes down that the restore is this task's, from its first step on.
func (t *run) claim(ctx context.Context) error {
	if err := t.Ledger.SetDoc(ctx, t.Report.To, release.DocRestore, State{Task: t.job.ID(), At: t.Now().UTC()}); err != nil {
		return err
	}
	t.Phase, t.Block = moved, 0
	return t.job.Save(ctx, t.cursor)
}

// advance saves the cursor and gives a sign of life, provided that the release is still ours.
func (t *run) advance(ctx context.Context) error {
	if err := t.held(ctx, release.Restoring); err != nil {
		return err
	}
	if err := t.Ledger.SetDoc(ctx, t.Report.To, release.DocRestore, State{Task: t.job.ID(), Block: t.Block, At: t.Now().UTC()}); err != nil {
		return err
	}
	return t.job.Save(ctx, t.cursor)
}

// held returns nil while the release is in that state by this task.
func (t *run) held(ctx context.Context, state release.State) error {
	rec, err := t.Ledger.Get(ctx, t.Report.To)
	if err != nil {
		return err
	}
	var s State
	if _, err := rec.Doc(release.DocRestore, &s); err != nil {
		return err
	}
	if rec.State != state || s.Task != t.job.ID() {
		return fmt.Errorf("%w (task %s, state %s)", errNotOurs, s.Task, rec.State)
	}
	return nil
}

// handOver leaves a release to another task that restores it now. What this one wrote last may
// be stale, and the other's replay may have been before it: it goes before the mark does.
func (t *run) handOver(ctx context.Context, d snapshot.Descriptor) error {
	rec, err := t.Ledger.Get(ctx, d.Release)
	if err != nil {
		return err
	}
	if !rec.State.Live() {
		return t.Log.CloseMark(ctx, d.Release, t.job.ID())
	}
	if err := t.writeIndexes(ctx, d); err != nil {
		return err
	}
	if _, err := t.Applier.Replay(ctx, d.Release, markOf(d)); err != nil {
		return err
	}
	return t.Log.CloseMark(ctx, d.Release, t.job.ID())
}

// giveUp takes a restore that failed back: archived, its keys purged, its mark closed.
func (t *run) giveUp(ctx context.Context) error {
	id := t.Report.To
	rec, err := t.Ledger.Get(ctx, id)
	if err != nil || rec.State != release.Restoring {
		return err
	}
	by := tasks.By{Actor: t.by.Actor, Reason: "the restore failed; the archive stays"}
	if err := t.Ledger.Move(ctx, id, release.Restoring, release.Archived, by); err != nil {
		return err
	}
	t.Phase, t.Block = chosen, 0
	t.Logger.Warn("restore given up", "release", id)
	return errors.Join(t.purge(ctx, release.Archived), t.Log.CloseMark(ctx, id, t.job.ID()), t.job.Save(ctx, t.cursor))
}
