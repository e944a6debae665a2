package retire

import (
	"context"
	"errors"
	"fmt"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/snapshot"
)

// Snapshot writes a live release's namespace to an archive, verifies it and records it. The
// archive that was recorded before is deleted. A release that is not live, or is just being
// restored, is refused with tasks.ErrRefused.
func (r *Retirer) Snapshot(ctx context.Context, job tasks.Job, id string) (snapshot.Descriptor, error) {
	d, err := r.snapshot(ctx, job, id)
	if err != nil {
		return snapshot.Descriptor{}, fmt.Errorf("snapshot release %q: %w", id, err)
	}
	r.Logger.Info("snapshot taken", "release", id, "archive", d.Name, "entries", d.Entries, "bytes", d.Size, "mark", d.Mark)
	return d, nil
}

func (r *Retirer) snapshot(ctx context.Context, job tasks.Job, id string) (snapshot.Descriptor, error) {
	rec, err := r.Ledger.Get(ctx, id)
	if err != nil {
		return snapshot.Descriptor{}, err
	}
	if err := r.mayRead(rec); err != nil {
		return snapshot.Descriptor{}, err
	}
	mark, err := r.Log.OpenReader(ctx, id, reader(job, id))
	if err != nil {
		return snapshot.Descriptor{}, err
	}
	name := snapshot.Name(r.App, id, mark.Number, job.ID())
	d, err := described(rec)
	if err != nil {
		return snapshot.Descriptor{}, err
	}
	// An earlier try may have recorded its archive without learning of it.
	if d.Name != name || r.verify(ctx, &d) != nil {
		var kept bool
		if d, kept, err = r.write(ctx, job, rec, mark, name); err != nil && kept {
			return snapshot.Descriptor{}, err
		} else if err != nil {
			return snapshot.Descriptor{}, errors.Join(err, r.Log.CloseReader(context.WithoutCancel(ctx), reader(job, id)))
		}
		// An error may hide a success, so the archive and the reader stay: a retry has the
		// same mark and so the same name.
		if err := r.Ledger.SetDoc(ctx, id, release.DocSnapshot, d); err != nil {
			return snapshot.Descriptor{}, err
		}
	}
	return d, r.settle(ctx, job, d)
}

// errMoved: a switch moved the release while it was read. The task's retry reads it anew.
var errMoved = errors.New("overtaken by a switch")

// reader names the reader of a job that reads a release.
func reader(job tasks.Job, id string) string { return job.ID() + "/" + id }

// settle does what is left once an archive is recorded.
func (r *Retirer) settle(ctx context.Context, job tasks.Job, d snapshot.Descriptor) error {
	if d.Replaces != "" {
		if err := r.Store.Delete(ctx, d.Replaces); err != nil {
			return err
		}
	}
	return r.Log.CloseReader(ctx, reader(job, d.Release))
}

func (r *Retirer) mayRead(rec release.Record) error {
	switch {
	case rec.State == release.Restoring:
		return fmt.Errorf("%w: it is being restored; wait for that to end", tasks.ErrRefused)
	case !rec.State.Live():
		return fmt.Errorf("%w: it is %s, so its keys are not in Redis; `stoker rollback --to %s` brings back an archived release", tasks.ErrRefused, rec.State, rec.ID)
	}
	return r.sameTemplate(rec)
}

// write makes and verifies the archive. When it fails and kept is true, the reader must stay open.
func (r *Retirer) write(ctx context.Context, job tasks.Job, rec release.Record, mark invalidation.Mark, name string) (d snapshot.Descriptor, kept bool, err error) {
	w, err := r.writer(ctx, job, rec, mark, name)
	if err != nil {
		return snapshot.Descriptor{}, false, err
	}
	return w.archive(ctx)
}

// verify reads the archive back and holds every byte of it against its description: what the store has is
// what was written. Its entries are looked at only where the description lacks what they need; else that is
// left to drills, which bring them back.
func (r *Retirer) verify(ctx context.Context, d *snapshot.Descriptor) error {
	in, err := r.Store.Open(ctx, d.Name)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	var read snapshot.Summary
	if d.Needs.Memory > 0 {
		read, err = snapshot.Skim(ctx, in, nil)
	} else {
		read, err = snapshot.Verify(ctx, in)
		d.Needs = read.Needs
	}
	if err != nil {
		return fmt.Errorf("verify %q: %w", d.Name, err)
	}
	d.VerifiedAt = r.Now().UTC()
	return d.Matches(read)
}

// replaces returns the name of the archive that d takes the place of, "" for none. A release
// that has moved since before was read keeps what it has: d may have been read under a purge.
func (r *Retirer) replaces(ctx context.Context, before release.Record, d snapshot.Descriptor) (string, error) {
	now, err := r.Ledger.Get(ctx, before.ID)
	if err != nil {
		return "", err
	}
	if now.State != before.State || !now.ChangedAt.Equal(before.ChangedAt) {
		cause := errMoved
		if !now.State.Live() {
			cause = tasks.ErrRefused
		}
		return "", fmt.Errorf("%w: it moved from %s to %s meanwhile; it has to be read anew", cause, before.State, now.State)
	}
	old, err := described(now)
	if err != nil || old.Name == d.Name || old.Store != d.Store {
		return "", err
	}
	return old.Name, nil
}

// described returns the release's recorded archive, or the zero value where there is none.
func described(rec release.Record) (snapshot.Descriptor, error) {
	var d snapshot.Descriptor
	_, err := rec.Doc(release.DocSnapshot, &d)
	if err != nil || !d.DeletedAt.IsZero() {
		return snapshot.Descriptor{}, err
	}
	return d, nil
}
