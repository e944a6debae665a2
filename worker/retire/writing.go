package retire

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/snapshot"
)

// cursor is what a job of this room keeps for its retry.
type cursor struct {
	Release string        `json:"release,omitempty"` // of an expiry by name,
	To      release.State `json:"to,omitempty"`      // and what it was to reach when it was asked for
	Writing *writing      `json:"writing,omitempty"`
}

// writing is how far an archive has come.
type writing struct {
	Name    string               `json:"name"`              // of the archive
	Since   time.Time            `json:"since"`             // of the release's state when the reading began
	Servers string               `json:"servers,omitempty"` // of the cache Redis, that it is read from
	Read    string               `json:"read,omitempty"`    // where the reading goes on
	Archive *snapshot.Checkpoint `json:"archive,omitempty"` // what is written of it up to there
	Done    *snapshot.Summary    `json:"done,omitempty"`    // it is published, though not recorded
}

// begunAnew is how often a snapshot begins anew in one try because the cache Redis restarted under it.
const begunAnew = 3

// writer makes the archive of one release, in one try of its job.
type writer struct {
	*Retirer
	job     tasks.Job
	rec     release.Record
	name    string
	header  snapshot.Header
	servers string // of the cache Redis, that it is read from
	cursor  cursor
}

// writer returns what goes on with an archive of that name, or begins it.
func (r *Retirer) writer(ctx context.Context, job tasks.Job, rec release.Record, mark invalidation.Mark, name string) (*writer, error) {
	w := &writer{Retirer: r, job: job, rec: rec, name: name}
	if _, err := job.Load(ctx, &w.cursor); err != nil {
		return nil, err
	}
	server, err := r.Server(ctx)
	if err != nil {
		return nil, err
	}
	fields, err := r.Cache.FieldExpiries(ctx)
	if err != nil {
		return nil, err
	}
	w.header = snapshot.Header{
		App: r.App, Release: rec.ID, Prefix: tasks.Bytes(r.Template.Prefix(rec.ID)),
		Mark: mark.Number, Epoch: mark.Epoch, Server: server, Created: r.Now().UTC(), Fields: fields,
	}
	if at := w.cursor.Writing; at != nil && !w.fits(*at) {
		w.discard(ctx, at.Name)
		w.cursor.Writing = nil
	}
	return w, nil
}

// fits reports whether what an earlier try wrote is a part of this archive: read since the same mark,
// from the release in the same state, for the same kind of server.
func (w *writer) fits(at writing) bool {
	return at.Name == w.name && at.Since.Equal(w.rec.ChangedAt) &&
		(at.Archive == nil || at.Archive.Header.Epoch == w.header.Epoch && at.Archive.Fields == w.header.Fields)
}

// discard drops drafts that are of no more use. What it cannot drop, the store does in time.
func (w *writer) discard(ctx context.Context, name string) {
	if err := w.Store.Discard(ctx, name); err != nil {
		w.Logger.Warn("draft of an archive not dropped", "archive", name, "error", err)
	}
}

// archive makes, verifies and describes the archive. kept says of one that failed that what is there
// of it is kept for a retry, which needs the same mark; else it is dropped.
func (w *writer) archive(ctx context.Context) (d snapshot.Descriptor, kept bool, err error) {
	d, err = w.verified(ctx)
	if err == nil {
		d.Replaces, err = w.replaces(ctx, w.rec, d)
	}
	switch {
	case err == nil:
		return d, false, nil
	case w.keeps(err):
		return d, true, err
	}
	w.cursor.Writing = nil
	tidy := context.WithoutCancel(ctx)
	return d, false, errors.Join(err, w.Store.Delete(tidy, w.name), w.job.Save(tidy, w.cursor))
}

// verified publishes the archive, unless an earlier try did, and reads it back.
func (w *writer) verified(ctx context.Context) (snapshot.Descriptor, error) {
	if at := w.cursor.Writing; at == nil || at.Done == nil {
		if err := w.publish(ctx); err != nil {
			return snapshot.Descriptor{}, err
		}
	}
	d := snapshot.Describe(*w.cursor.Writing.Done, w.name, w.Store.String(), w.Now().UTC())
	err := w.verify(ctx, &d)
	return d, err
}

// keeps reports whether a try that failed so leaves something that its retry can go on with.
func (w *writer) keeps(err error) bool {
	for _, final := range []error{tasks.ErrInvalid, tasks.ErrRefused, tasks.ErrNotFound, tasks.ErrNotFresh, snapshot.ErrDamaged, namespace.ErrRestarted, errMoved} {
		if errors.Is(err, final) {
			return false
		}
	}
	return w.cursor.Writing != nil
}

// publish reads the namespace into the store.
func (w *writer) publish(ctx context.Context) error {
	for again := 1; ; again++ {
		err := w.steady(ctx)
		if err == nil {
			err = w.read(ctx)
		}
		if !errors.Is(err, namespace.ErrRestarted) {
			return err
		}
		// What was read is whole, but all of it would come a second time.
		w.cursor.Writing = nil
		if again == begunAnew {
			return err
		}
		w.Logger.Warn("snapshot begins anew", "release", w.rec.ID, "why", err)
	}
}

// steady makes sure that the cache Redis lacks no removal from before the mark: a server that was promoted or
// started again does at first. What was read on other servers than those of now is read again.
func (w *writer) steady(ctx context.Context) (err error) {
	if w.servers, err = w.Cache.Servers(ctx); err != nil {
		return err
	}
	if at := w.cursor.Writing; at != nil && at.Servers != w.servers {
		w.cursor.Writing = nil
	}
	_, err = w.Applier.Look(ctx)
	return err
}

// still returns an error that wraps namespace.ErrRestarted when the servers have changed since.
func (w *writer) still(ctx context.Context) error {
	servers, err := w.Cache.Servers(ctx)
	if err == nil && servers != w.servers {
		return namespace.ErrRestarted
	}
	return err
}

// read writes the archive from where it stands to its end.
func (w *writer) read(ctx context.Context) error {
	a, from, err := w.open(ctx)
	if err != nil {
		return err
	}
	err = w.Cache.ReadFrom(ctx, w.rec.ID, from, func(entries []tasks.Entry, next string) error {
		if err := a.Write(entries...); err != nil {
			return err
		}
		w.job.Progress("snapshot "+w.rec.ID, a.Entries(), 0)
		if next == "" { // no place to go on from: the next slice is soon here
			return context.Cause(ctx)
		}
		stop := interrupted(ctx, w.job)
		if ctx.Err() == nil && (stop != nil || a.Due()) {
			return errors.Join(stop, w.checkpoint(ctx, a, next))
		}
		return stop
	})
	if err == nil {
		err = w.still(ctx)
	}
	var done snapshot.Summary
	if err == nil {
		done, err = a.Commit()
	}
	switch {
	case err == nil:
		w.cursor.Writing = &writing{Name: w.name, Since: w.rec.ChangedAt, Done: &done}
		return w.job.Save(ctx, w.cursor)
	case w.keeps(err):
		return errors.Join(err, a.Leave())
	}
	return errors.Join(err, a.Abort())
}

// open goes on with the archive where that is possible, and says from where to read.
func (w *writer) open(ctx context.Context) (a *snapshot.Archiving, from string, err error) {
	if at := w.cursor.Writing; at != nil {
		a, err = snapshot.Resume(ctx, w.Store, *at.Archive)
		if err == nil {
			w.Logger.Info("snapshot goes on", "release", w.rec.ID, "archive", w.name, "entries", a.Entries())
			return a, at.Read, nil
		}
		if !errors.Is(err, tasks.ErrNotFound) {
			return nil, "", err
		}
		w.Logger.Info("snapshot begins anew", "release", w.rec.ID, "archive", w.name, "why", err)
	}
	w.cursor.Writing = nil
	w.discard(ctx, w.name) // of a try that died without a checkpoint
	a, err = snapshot.Begin(ctx, w.Store, w.name, w.header)
	return a, "", err
}

// checkpoint keeps what is written so far for a retry.
func (w *writer) checkpoint(ctx context.Context, a *snapshot.Archiving, next string) error {
	at, ok, err := a.Checkpoint()
	if err != nil || !ok {
		return err
	}
	w.cursor.Writing = &writing{Name: w.name, Since: w.rec.ChangedAt, Servers: w.servers, Read: next, Archive: &at}
	return w.job.Save(ctx, w.cursor)
}

// Forsake drops what an unfinished snapshot wrote, whose task is gone for good: who read, with which
// mark, names the archive. The archive of a snapshot that was published is left alone.
func (r *Retirer) Forsake(ctx context.Context, reader string, mark invalidation.Mark) error {
	at := strings.LastIndexByte(reader, '/')
	if at < 0 {
		return nil
	}
	return r.Store.Discard(ctx, snapshot.Name(r.App, reader[at+1:], mark.Number, reader[:at]))
}
