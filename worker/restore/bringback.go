package restore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/snapshot"
)

// errNotOurs: another task has the release. It is a refusal, but nothing must be undone.
var errNotOurs = fmt.Errorf("%w: another rollback is restoring it", tasks.ErrRefused)

// bringBack takes an archived release, or one that is being restored, to standby.
func (t *run) bringBack(ctx context.Context, rec release.Record) error {
	d, err := t.archive(rec)
	if err != nil {
		return err
	}
	if rec.State == release.Archived {
		err = t.begin(ctx, rec, d)
	} else {
		err = t.takeUp(ctx, rec)
	}
	if err != nil {
		return err
	}
	err = t.restore(ctx, d)
	switch {
	case err == nil || interrupted(ctx, t.job) != nil:
		return err
	case errors.Is(err, tasks.ErrNewer): // a newer worker goes on from here
		return err
	case errors.Is(err, errNotOurs):
		return t.undone(err, "hand over", t.handOver(ctx, d))
	}
	return t.undone(err, "give up", t.giveUp(ctx))
}

// undone adds to why a restore failed how cleaning up failed, if it did. The cause stays the
// restore's own.
func (t *run) undone(err error, verb string, cleanup error) error {
	if cleanup == nil {
		return err
	}
	return fmt.Errorf("%w (%s: %v)", err, verb, cleanup)
}

// archive returns the release's recorded archive.
func (r *Restorer) archive(rec release.Record) (snapshot.Descriptor, error) {
	var d snapshot.Descriptor
	found, err := rec.Doc(release.DocSnapshot, &d)
	switch {
	case err != nil:
		return d, err
	case !found || d.Name == "" || !d.DeletedAt.IsZero():
		return d, fmt.Errorf("%w: no archive of it is recorded: create and warm a release of that build", tasks.ErrRefused)
	case d.Store != r.Store.String():
		return d, fmt.Errorf("%w: its archive %q is in %s, this worker's snapshots are in %q: set STOKER_SNAPSHOT_URL", tasks.ErrRefused, d.Name, d.Store, r.Store)
	}
	return d, nil
}

func markOf(d snapshot.Descriptor) invalidation.Mark {
	return invalidation.Mark{Number: d.Mark, Epoch: d.Epoch}
}

// begin makes sure that the archive can come back, then moves the release to restoring.
func (t *run) begin(ctx context.Context, rec release.Record, d snapshot.Descriptor) error {
	if err := t.fresh(ctx, d); err != nil {
		return err
	}
	salvaged, err := t.verify(ctx, d)
	if err != nil {
		return err
	}
	purged, err := rec.Purged()
	if err != nil {
		return err
	}
	t.Phase, t.Block, t.Archive, t.Empty = chosen, 0, d.Name, purged.Servers
	t.Report = Report{From: t.Report.From, To: t.Report.To, Via: ViaArchive, Salvaged: salvaged}
	if salvaged != nil {
		t.Report.Lost = d.Entries - salvaged.Entries
	}
	if err := t.job.Save(ctx, t.cursor); err != nil {
		return err
	}
	// Before the move: should the restore be given up and die, the next expiry purges it.
	if err := t.Ledger.SetDoc(ctx, t.Report.To, release.DocPurge, release.Purge{}); err != nil {
		return err
	}
	err = t.Ledger.Move(ctx, t.Report.To, release.Archived, release.Restoring, t.by)
	if errors.Is(err, tasks.ErrRefused) {
		rec, getErr := t.Ledger.Get(ctx, t.Report.To)
		if getErr != nil {
			return errors.Join(err, getErr)
		}
		if rec.State != release.Restoring {
			return err
		}
		return t.takeUp(ctx, rec)
	}
	if err != nil {
		return err
	}
	return t.claim(ctx)
}

// fresh refuses an archive that the log cannot be replayed on.
func (r *Restorer) fresh(ctx context.Context, d snapshot.Descriptor) error {
	err := r.Log.Fresh(ctx, markOf(d))
	if errors.Is(err, tasks.ErrNotFresh) {
		return fmt.Errorf("%w: its archive %q of %s cannot be proved fresh: %w; expire it (`stoker expire --release %s`) and warm a new release of that build",
			tasks.ErrRefused, d.Name, d.Created.Format("2006-01-02 15:04"), err, d.Release)
	}
	return err
}

// verify makes sure that the archive is whole, before anything depends on it, and that the cache Redis can
// take it. Of a damaged one it returns what is whole, when that was asked for.
func (t *run) verify(ctx context.Context, d snapshot.Descriptor) (*snapshot.Salvaged, error) {
	err := t.reading(d, false).sound(ctx, t.job)
	if !t.salvage || !errors.Is(err, snapshot.ErrDamaged) {
		return nil, err
	}
	t.Logger.Warn("archive is damaged, salvaging what is whole", "release", d.Release, "archive", d.Name, "error", err)
	part := t.reading(d, true)
	whole, err := part.rescue(ctx)
	if err != nil {
		return nil, err
	}
	found, err := part.survey(ctx, t.job)
	if err != nil {
		return nil, err
	}
	return whole, t.fits(ctx, d, found)
}

// restore fills the namespace of a release that is restoring and makes it standby.
func (t *run) restore(ctx context.Context, d snapshot.Descriptor) error {
	id, writer := d.Release, t.job.ID()
	if t.Phase < proved {
		if err := t.Log.OpenMarkAt(ctx, id, writer, markOf(d)); err != nil {
			return err
		}
		if t.Prior != "" { // after opening ours: the release is never without an open mark
			if err := t.Log.CloseMark(ctx, id, t.Prior); err != nil {
				return err
			}
		}
		if err := t.bring(ctx, d); err != nil {
			return err
		}
	}
	if err := t.Log.CloseMark(ctx, id, writer); err != nil {
		return err
	}
	err := t.Ledger.Move(ctx, id, release.Restoring, release.Standby, t.restoredBy())
	if errors.Is(err, tasks.ErrRefused) {
		if rec, getErr := t.Ledger.Get(ctx, id); getErr == nil && rec.State == release.Standby {
			return nil // the reply was lost
		}
	}
	return err
}

// failovers is how often a restore begins anew in one try because the cache Redis has failed over.
const failovers = 5

// bring clears the namespace and fills it, all on the same servers of the cache Redis, and returns when the
// replicas have it. A server that was promoted or started again may lack what was written last, and have again
// what was cleared: then it begins anew.
func (t *run) bring(ctx context.Context, d snapshot.Descriptor) error {
	for range failovers {
		if err := t.sameServers(ctx); err != nil {
			return err
		}
		if err := t.clear(ctx); err != nil {
			return err
		}
		if err := t.fill(ctx, d); err != nil {
			return err
		}
		servers, err := t.Cache.Replicated(ctx)
		if err != nil {
			return err
		}
		if servers == t.Servers {
			t.Phase = proved
			return t.advance(ctx)
		}
		t.Logger.Warn("restore begins anew: the cache Redis has restarted or failed over", "release", d.Release)
	}
	return fmt.Errorf("the cache Redis has restarted or failed over %d times meanwhile: ask again when it is steady", failovers)
}

// sameServers begins anew when what was done so far was done on other servers of the cache Redis than those of now.
func (t *run) sameServers(ctx context.Context) error {
	servers, err := t.Cache.Servers(ctx)
	if err != nil || servers == t.Servers {
		return err
	}
	t.Servers = servers
	t.Phase, t.Block, t.Report.Entries, t.Report.ExpiredLeftOut = moved, 0, 0, 0
	return t.job.Save(ctx, t.cursor)
}

// restoredBy is who asked, and what the history is to say besides.
func (t *run) restoredBy() tasks.By {
	by := t.by
	if t.Report.Salvaged == nil {
		return by
	}
	note := fmt.Sprintf("salvaged from a damaged archive: %d entries came back, %d are lost", t.Report.Salvaged.Entries, t.Report.Lost)
	if by.Reason != "" {
		note = by.Reason + "; " + note
	}
	if len(note) <= tasks.MaxReasonLen {
		by.Reason = note
	}
	return by
}

// clear takes the fence from any purge and deletes what it has left. That is nothing on servers which an
// expiry has proved empty and which are still the same: what others have written to the namespace
// since is younger than the archive's mark, so that the replay reaches it as it does the archive's entries.
func (t *run) clear(ctx context.Context) error {
	if t.Phase >= cleared {
		return nil
	}
	var err error
	if t.Empty != "" && t.Empty == t.Servers {
		_, err = t.takeFence(ctx, release.Restoring)
	} else {
		err = t.purge(ctx, release.Restoring)
	}
	if err != nil {
		return err
	}
	t.Phase, t.Block = cleared, 0
	return t.advance(ctx)
}

// takeFence ends any purge of the release, provided that it is in that state by this task. The token is
// this try's alone, so that no other try's deleting outlives it.
func (t *run) takeFence(ctx context.Context, state release.State) (token string, err error) {
	token = "restore:" + t.job.ID() + ":" + rand.Text()
	if err := t.Cache.SetFence(ctx, t.Report.To, token); err != nil {
		return "", err
	}
	// After taking the fence: whoever takes the release over says so before it takes the
	// fence from us, so either that is seen here or our deleting stops.
	return token, t.held(ctx, state)
}

// purge deletes the namespace of a release that is in that state by this task.
func (t *run) purge(ctx context.Context, state release.State) (err error) {
	// An expiry that was late may take the fence once more before it sees that the release
	// has moved: ask again.
	for range 3 {
		var token string
		if token, err = t.takeFence(ctx, state); err != nil {
			return err
		}
		_, err = t.Cache.Purge(ctx, t.Report.To, token, func(deleted int64) {
			t.job.Progress("clear "+t.Report.To, deleted, 0)
		})
		if !errors.Is(err, tasks.ErrRefused) {
			return err
		}
	}
	return err
}
