package restore

import (
	"context"
	"fmt"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/snapshot"
)

// fill writes the archive from the cursor on, replays the log and proves the result.
func (t *run) fill(ctx context.Context, d snapshot.Descriptor) error {
	sampled, err := t.writeEntries(ctx, d)
	if err != nil {
		return err
	}
	if err := t.writeIndexes(ctx, d); err != nil {
		return err
	}
	if err := t.advance(ctx); err != nil {
		return err
	}
	replayed, err := t.Applier.Replay(ctx, d.Release, markOf(d))
	if err != nil {
		return err
	}
	t.Report.Replayed = replayed.Targets
	if err := t.prove(ctx, d, sampled); err != nil {
		return err
	}
	t.Phase = proved
	return t.advance(ctx)
}

// writeEntries writes the blocks behind the cursor, less their tag indexes, and returns a
// sample of the whole archive.
func (t *run) writeEntries(ctx context.Context, d snapshot.Descriptor) ([]tasks.Entry, error) {
	var sample sample
	var done int64
	err := t.blocks(ctx, d, func(b snapshot.Block) error {
		sample.add(b.Entries)
		done += int64(len(b.Entries))
		if b.Number <= t.Block {
			return nil
		}
		keep, expired := t.unexpired(b.Entries)
		if err := t.Cache.Write(ctx, d.Release, keep); err != nil {
			return fmt.Errorf("write block %d: %w", b.Number, err)
		}
		t.Block = b.Number
		t.Report.ExpiredLeftOut += expired
		t.job.Progress("restore "+d.Release, done, d.Entries)
		return t.advance(ctx)
	})
	return sample.entries(), err
}

// writeIndexes writes the tag indexes, every try all of them. They come after the entries: an
// invalidation of a tag that is applied while they are written empties the tag's index, and
// entries written later would be found by no replay. Between index and replay nothing is written.
func (t *run) writeIndexes(ctx context.Context, d snapshot.Descriptor) error {
	return t.blocks(ctx, d, func(b snapshot.Block) error {
		var indexes []tasks.Entry
		for _, e := range b.Entries {
			if _, ok := tasks.TagOf(e.Key); ok {
				indexes = append(indexes, e)
			}
		}
		if len(indexes) == 0 {
			return nil
		}
		if err := t.Cache.Write(ctx, d.Release, indexes); err != nil {
			return fmt.Errorf("write tag indexes of block %d: %w", b.Number, err)
		}
		return nil
	})
}

// blocks visits the archive's blocks in order: those that are whole, of one that is salvaged.
func (t *run) blocks(ctx context.Context, d snapshot.Descriptor, visit func(snapshot.Block) error) error {
	return t.reading(d, t.Report.Salvaged != nil).blocks(ctx, t.job, visit)
}

// unexpired returns the entries to write, tag indexes not among them, and how many others have
// expired.
func (t *run) unexpired(entries []tasks.Entry) (keep []tasks.Entry, expired int64) {
	now := t.Now().UnixMilli()
	for _, e := range entries {
		if _, index := tasks.TagOf(e.Key); index {
			continue
		}
		if left, ok := e.Left(now); ok {
			keep = append(keep, left)
		} else {
			expired++
		}
	}
	return keep, expired
}
