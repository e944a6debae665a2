package restore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/snapshot"
)

// Drill is what a drill found (release.DocDrill). The seconds are those that a rollback to the
// archive would take now, part by part: a drill's own are more, since it compares as well.
type Drill struct {
	Release        string        `json:"release,omitempty"`
	Archive        string        `json:"archive,omitempty"`
	Good           bool          `json:"good"`
	Why            string        `json:"why,omitempty"` // it is not good, or nothing was done
	At             time.Time     `json:"at"`
	LastGood       time.Time     `json:"last_good,omitzero"` // drill with an archive of this release
	Compared       int64         `json:"compared"`           // entries, by type, value and expiry
	Different      int64         `json:"different"`
	Examples       []tasks.Bytes `json:"examples,omitempty"` // keys of some of those
	ExpiredLeftOut int64         `json:"expired_left_out"`   // of the archive's, because their time was up
	Replayed       int64         `json:"replayed"`           // targets invalidated since the snapshot
	VerifySeconds  float64       `json:"verify_seconds"`     // to read the archive
	RestoreSeconds float64       `json:"restore_seconds"`    // to write it
	ReplaySeconds  float64       `json:"replay_seconds"`     // to apply the invalidations since
	Seconds        float64       `json:"rollback_seconds"`   // all of it, by the last good drill when this one is not good
}

// drilling is one try of one drill.
type drilling struct {
	*Restorer
	job     tasks.Job
	d       snapshot.Descriptor
	scratch string
	Drill
}

// Drill restores an archive, of p.Release or the newest there is, into a scratch namespace, which
// no visitor and no release ever sees; compares each entry by type, value and expiry with the
// archive; replays the log on it; and purges it. What is found is kept with the release. A drill
// that is not good is a result, not an error; an error means that it could not be carried out.
// Without any archive nothing is done.
func (r *Restorer) Drill(ctx context.Context, job tasks.Job, p tasks.Drill) (Drill, error) {
	if err := p.Validate(); err != nil {
		return Drill{}, err
	}
	if _, err := r.dropScratches(ctx, job.ID()); err != nil {
		return Drill{}, fmt.Errorf("drill: %w", err)
	}
	rec, found, err := r.toDrill(ctx, p.Release)
	if err != nil || !found {
		return Drill{Why: "there is no snapshot yet", At: r.Now().UTC()}, err
	}
	t := &drilling{Restorer: r, job: job, scratch: newScratchID()}
	if t.d, err = r.archive(rec); err != nil {
		return Drill{}, fmt.Errorf("drill %q: %w", rec.ID, err)
	}
	t.Drill = Drill{Release: rec.ID, Archive: t.d.Name}
	err = t.try(ctx)
	if errors.Is(err, tasks.ErrRefused) {
		t.Why, err = err.Error(), nil // what a rollback would be told
	}
	_, dropErr := r.dropScratch(context.WithoutCancel(ctx), t.scratch, func(deleted int64) {
		job.Progress("drill: remove the copy of "+rec.ID, deleted, t.d.Entries)
	})
	if err = errors.Join(err, dropErr); err != nil {
		return t.Drill, fmt.Errorf("drill %q: %w", rec.ID, err)
	}
	return t.Drill, t.keep(ctx, rec)
}

// toDrill finds the release to drill with; found is false when none has an archive.
func (r *Restorer) toDrill(ctx context.Context, id string) (rec release.Record, found bool, err error) {
	if id != "" {
		rec, err = r.Ledger.Get(ctx, id)
		return rec, true, err
	}
	records, err := r.Ledger.List(ctx)
	var newest time.Time
	for _, candidate := range records {
		d, err := r.archive(candidate)
		if err == nil && candidate.State != release.Expired && d.Created.After(newest) {
			rec, found, newest = candidate, true, d.Created
		}
	}
	return rec, found, err
}

// try does the drill's steps; what a rollback would be refused for is an ErrRefused.
func (t *drilling) try(ctx context.Context) error {
	begun := t.Now()
	step := func(seconds *float64) {
		now := t.Now()
		*seconds = now.Sub(begun).Seconds()
		begun = now
	}
	if err := t.fresh(ctx, t.d); err != nil {
		return err
	}
	if err := t.reading(t.d, false).sound(ctx, t.job); err != nil {
		return err
	}
	step(&t.VerifySeconds)
	if err := t.write(ctx); err != nil {
		return err
	}
	step(&t.RestoreSeconds)
	if err := t.compare(ctx); err != nil {
		return err
	}
	begun = t.Now()
	replayed, err := t.Applier.Replay(ctx, t.scratch, markOf(t.d))
	if err != nil {
		return err
	}
	step(&t.ReplaySeconds)
	t.Replayed = replayed.Targets
	t.Seconds = t.VerifySeconds + t.RestoreSeconds + t.ReplaySeconds
	return nil
}

// write fills the scratch namespace. Before each block it is noted that there is one to purge.
func (t *drilling) write(ctx context.Context) error {
	var done int64
	return t.reading(t.d, false).blocks(ctx, t.job, func(b snapshot.Block) error {
		if err := t.Scratches.put(ctx, t.scratch, scratch{t.job.ID(), t.Now().UTC()}); err != nil {
			return err
		}
		if err := t.Cache.Write(ctx, t.scratch, b.Entries); err != nil {
			return fmt.Errorf("write block %d: %w", b.Number, err)
		}
		done += int64(len(b.Entries))
		t.job.Progress("drill: write "+t.d.Release, done, t.d.Entries)
		return nil
	})
}

// compare holds the scratch namespace against the archive.
func (t *drilling) compare(ctx context.Context) error {
	c := comparison{scratch: t.scratch, cache: t.Cache, now: t.Now}
	err := t.reading(t.d, false).blocks(ctx, t.job, func(b snapshot.Block) error {
		if err := t.Scratches.put(ctx, t.scratch, scratch{t.job.ID(), t.Now().UTC()}); err != nil {
			return err
		}
		t.job.Progress("drill: compare "+t.d.Release, c.compared, t.d.Entries)
		return c.block(ctx, b.Entries)
	})
	t.Compared, t.ExpiredLeftOut, t.Different, t.Examples = c.compared, c.expired, c.different(), c.examples()
	return err
}

// keep records the drill with its release.
func (t *drilling) keep(ctx context.Context, rec release.Record) error {
	var before Drill
	if _, err := rec.Doc(release.DocDrill, &before); err != nil {
		return err
	}
	t.At, t.LastGood = t.Now().UTC(), before.LastGood
	if t.Different > 0 {
		t.Why = fmt.Sprintf("%d of %d entries came back different, %s for one", t.Different, t.Compared, t.Examples[0])
	}
	if t.Good = t.Why == ""; t.Good {
		t.LastGood = t.At
		t.Logger.Info("drill is good", "release", t.Release, "archive", t.Archive, "entries", t.Compared, "rollback_seconds", t.Seconds)
	} else {
		t.Seconds = before.Seconds
		t.Logger.Warn("drill is not good", "release", t.Release, "archive", t.Archive, "why", t.Why)
	}
	return t.Ledger.SetDoc(ctx, t.Release, release.DocDrill, t.Drill)
}
