package restore

import (
	"context"
	"errors"
	"fmt"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/snapshot"
)

// reading is a recorded archive about to be read.
type reading struct {
	*Restorer
	d       snapshot.Descriptor
	salvage bool // what is whole, where it is damaged
}

func (r *Restorer) reading(d snapshot.Descriptor, salvage bool) reading {
	return reading{r, d, salvage}
}

// blocks visits the archive's blocks in order, and returns early when asked to stop.
func (a reading) blocks(ctx context.Context, job tasks.Job, visit func(snapshot.Block) error) error {
	in, err := a.Store.Open(ctx, a.d.Name)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	if a.salvage {
		_, err := snapshot.Salvage(ctx, in, func(b snapshot.Block) error {
			return errors.Join(interrupted(ctx, job), visit(b))
		})
		return err
	}
	r, err := snapshot.NewReader(in)
	if err != nil {
		return err
	}
	for b, err := range r.Ahead() {
		if err := interrupted(ctx, job); err != nil {
			return err
		}
		if err != nil {
			return err
		}
		if err := visit(b); err != nil {
			return err
		}
	}
	return a.d.Matches(r.Summary())
}

// survey is what a restore needs to know before it begins: what the entries need that are not expired.
type survey struct {
	snapshot.Needs
	firstDump   tasks.Bytes
	firstFields tasks.Bytes
}

// sound makes sure that the archive is whole and that the cache Redis can take it. Of one whose description
// says what its entries need, the checksums tell that nothing has changed since it was written.
// Only when the server has no room for all that needed then is it read for what is needed now.
func (a reading) sound(ctx context.Context, job tasks.Job) error {
	if a.d.Needs.Memory > 0 {
		if err := a.blame(a.skim(ctx, job)); err != nil {
			return err
		}
		err := a.fits(ctx, a.d, survey{Needs: a.d.Needs})
		if !errors.Is(err, tasks.ErrRefused) {
			return err
		}
	}
	found, err := a.survey(ctx, job)
	if err != nil {
		return err
	}
	return a.fits(ctx, a.d, found)
}

// skim holds the archive against its checksums and its description.
func (a reading) skim(ctx context.Context, job tasks.Job) error {
	in, err := a.Store.Open(ctx, a.d.Name)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	read, err := snapshot.Skim(ctx, in, func(entries int64) { job.Progress("verify "+a.d.Release, entries, a.d.Entries) })
	if err != nil {
		return err
	}
	return a.d.Matches(read)
}

// steadfast is a job that does not stop for a worker that drains: a retry would have to read
// everything again.
type steadfast struct{ tasks.Job }

// Draining implements [tasks.Job].
func (steadfast) Draining() <-chan struct{} { return nil }

// survey reads all that is to be restored.
func (a reading) survey(ctx context.Context, job tasks.Job) (survey, error) {
	var s survey
	var done int64
	prefix := len(a.Template.Prefix(a.d.Release))
	now := a.Now().UnixMilli()
	err := a.blocks(ctx, steadfast{job}, func(b snapshot.Block) error {
		for _, e := range b.Entries {
			s.add(e, prefix, now)
		}
		done += int64(len(b.Entries))
		job.Progress("verify "+a.d.Release, done, a.d.Entries)
		return nil
	})
	return s, a.blame(err)
}

// blame turns the archive's faults into refusals with the way out.
func (a reading) blame(err error) error {
	switch {
	case errors.Is(err, tasks.ErrNotFound):
		return fmt.Errorf("%w: its archive %q is missing in %s: put it back, or warm a new release of that build", tasks.ErrRefused, a.d.Name, a.Store)
	case errors.Is(err, snapshot.ErrDamaged):
		return fmt.Errorf("%w: %w: warm a new release of that build, or bring back what is whole with `stoker rollback --to %s --salvage`", tasks.ErrRefused, err, a.d.Release)
	}
	return err
}

func (s *survey) add(e tasks.Entry, prefix int, now int64) {
	e, ok := e.Left(now)
	if !ok {
		return
	}
	s.Add(e, prefix)
	if s.Fields == 1 && s.firstFields == "" && len(e.FieldsExpireAt) > 0 {
		s.firstFields = tasks.Bytes([]byte(e.Key))
	}
	if s.Dumps == 1 && s.firstDump == "" && e.Type == tasks.EntryDump {
		s.firstDump = tasks.Bytes([]byte(e.Key))
	}
}

// rescue finds out what of a damaged archive can come back. Without all of its tag indexes none
// can: an entry whose tags nobody knows would outlive their invalidation.
func (a reading) rescue(ctx context.Context) (*snapshot.Salvaged, error) {
	in, err := a.Store.Open(ctx, a.d.Name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }()
	found, err := snapshot.Salvage(ctx, in, func(snapshot.Block) error { return nil })
	switch {
	case err != nil:
		return nil, err
	case found.Tags < a.d.Tags:
		return nil, fmt.Errorf("%w: %d of its %d tag indexes are damaged, and entries without their tags could not be invalidated: warm a new release of that build", tasks.ErrRefused, a.d.Tags-found.Tags, a.d.Tags)
	case found.Blocks == 0 && a.d.Entries > 0:
		return nil, fmt.Errorf("%w: nothing in its archive %q is whole: warm a new release of that build", tasks.ErrRefused, a.d.Name)
	}
	return &found, nil
}
