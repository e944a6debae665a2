package retire

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/snapshot"
)

// lookEvery is how often a purge looks whether the release is still given up. Every slice checks
// the fence; this ends a purge whose fence nobody took.
const lookEvery = 20 * time.Millisecond

// purged reports whether nothing is left to delete of an archived or expired release.
func purged(rec release.Record) (bool, error) {
	p, err := rec.Purged()
	return !p.FinishedAt.IsZero(), err
}

// purgeTries is how often a purge begins again because the cache Redis has failed over.
const purgeTries = 5

// purge deletes an archived or expired release's keys and proves that none is left.
func (r *Retirer) purge(ctx context.Context, job tasks.Job, id string) (deleted int64, err error) {
	for range purgeTries {
		var n int64
		n, err = r.purgeOnce(ctx, job, id)
		deleted += n
		if !errors.Is(err, namespace.ErrFenceLost) {
			break
		}
	}
	return deleted, err
}

func (r *Retirer) purgeOnce(ctx context.Context, job tasks.Job, id string) (int64, error) {
	// The token is this try's own: an earlier try that still runs must stop as well.
	token := "expire:" + job.ID() + ":" + rand.Text()
	if err := r.Cache.SetFence(ctx, id, token); err != nil {
		return 0, err
	}
	// Read after taking the fence: a restore moves the release before it takes the fence, so
	// either its move is seen here or its token stops the deleting.
	if err := r.mayPurge(ctx, id); err != nil {
		return 0, err
	}
	// Before the purge notes its own: what it proves, it proves of no others than those.
	servers, err := r.Cache.Servers(ctx)
	if err != nil {
		return 0, err
	}
	guarded, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var looked time.Time
	deleted, err := r.Cache.Purge(guarded, id, token, func(deleted int64) {
		job.Progress("purge "+id, deleted, 0)
		if err := interrupted(ctx, job); err != nil {
			stop(err)
		} else if time.Since(looked) > lookEvery {
			looked = time.Now()
			if err := r.mayPurge(ctx, id); err != nil {
				stop(err)
			}
		}
	})
	if guarded.Err() != nil {
		return deleted, context.Cause(guarded)
	}
	if err != nil {
		return deleted, err
	}
	if err := r.mayPurge(ctx, id); err != nil {
		return deleted, err
	}
	r.Logger.Info("namespace purged", "release", id, "deleted", deleted)
	return deleted, r.Ledger.SetDoc(ctx, id, release.DocPurge, release.Purge{
		Task: job.ID(), Deleted: deleted, FinishedAt: r.Now().UTC(), Servers: servers,
	})
}

// mayPurge refuses to delete what may be served.
func (r *Retirer) mayPurge(ctx context.Context, id string) error {
	rec, err := r.Ledger.Get(ctx, id)
	if err != nil {
		return err
	}
	if rec.State != release.Archived && rec.State != release.Expired {
		return fmt.Errorf("purge release %q: %w: it is %s now, so its keys stay", id, tasks.ErrRefused, rec.State)
	}
	return r.sameTemplate(rec)
}

// finish does what is left to do for an archived or expired release: purge its keys, delete
// its archive when it has expired.
func (r *Retirer) finish(ctx context.Context, job tasks.Job, id string) (deleted int64, err error) {
	rec, err := r.Ledger.Get(ctx, id)
	if err != nil {
		return 0, err
	}
	done, err := purged(rec)
	if err != nil {
		return 0, err
	}
	if !done {
		if deleted, err = r.purge(ctx, job, id); err != nil {
			return deleted, err
		}
	}
	if rec.State == release.Expired {
		err = r.dropArchive(ctx, rec)
	}
	return deleted, err
}

func (r *Retirer) dropArchive(ctx context.Context, rec release.Record) error {
	d, err := described(rec)
	if err != nil || d.Name == "" {
		return err
	}
	if d.Store != r.Store.String() {
		return fmt.Errorf("delete archive %q: %w: it is in %s, this worker's snapshots are in %q", d.Name, tasks.ErrRefused, d.Store, r.Store)
	}
	if err := r.Store.Delete(ctx, d.Name); err != nil {
		return err
	}
	d.DeletedAt = r.Now().UTC()
	return r.Ledger.SetDoc(ctx, rec.ID, release.DocSnapshot, d)
}

// unfinished reports whether finish has anything to do.
func unfinished(rec release.Record) (bool, error) {
	if rec.State != release.Archived && rec.State != release.Expired {
		return false, nil
	}
	done, err := purged(rec)
	if err != nil || !done {
		return !done, err
	}
	d, err := described(rec)
	return rec.State == release.Expired && d != (snapshot.Descriptor{}), err
}
