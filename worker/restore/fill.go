package restore

import (
	"context"
	"errors"
	"fmt"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/snapshot"
)

// fill writes the archive from the cursor on, replays the log and proves the result.
func (t *run) fill(ctx context.Context, d snapshot.Descriptor) error {
	sampled, found, err := t.writeEntries(ctx, d)
	if err != nil {
		return err
	}
	if found.tooMany {
		err = t.writeIndexes(ctx, d)
	} else {
		err = t.Cache.Write(ctx, d.Release, found.entries)
	}
	if err != nil {
		return fmt.Errorf("write tag indexes: %w", err)
	}
	if err := t.advance(ctx); err != nil {
		return err
	}
	replayed, err := t.Applier.Replay(ctx, d.Release, markOf(d))
	if err != nil {
		return err
	}
	t.Report.Replayed = replayed.Targets
	t.Report.Entries = max(t.Report.Entries-replayed.Removed, 0)
	return t.prove(ctx, d, sampled)
}

// writeEntries writes the blocks behind the cursor, less their tag indexes, and returns a
// sample of the whole archive, and those indexes. A block is being written while the one before it is: the
// server need not wait for the reply to be read. Of an entry that two blocks hold either may stay: each
// is one that the key held after the mark.
func (t *run) writeEntries(ctx context.Context, d snapshot.Descriptor) ([]tasks.Entry, indexes, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var sample sample
	var found indexes
	var last *written
	err := t.blocks(ctx, d, func(b snapshot.Block) error {
		sample.add(b.Entries)
		found.add(b.Entries)
		if b.Number <= t.Block {
			return nil
		}
		before := last
		last = t.write(ctx, d.Release, b)
		return t.count(ctx, d, before)
	})
	if err == nil || errors.Is(err, tasks.ErrDraining) {
		return sample.entries(), found, errors.Join(err, t.count(ctx, d, last))
	}
	// The last block may well be written, but the one before it is not.
	stop()
	if last != nil {
		<-last.err
	}
	return nil, indexes{}, err
}

// written is a block on its way to the server.
type written struct {
	block         int
	kept, expired int64
	err           chan error
}

// write begins to write a block.
func (t *run) write(ctx context.Context, release string, b snapshot.Block) *written {
	keep, expired := t.unexpired(b.Entries)
	w := &written{b.Number, int64(len(keep)), expired, make(chan error, 1)}
	go func() {
		err := t.Cache.Write(ctx, release, keep)
		if err != nil {
			err = fmt.Errorf("write block %d: %w", b.Number, err)
		}
		w.err <- err
	}()
	return w
}

// count waits until a block is written, and moves the cursor behind it.
func (t *run) count(ctx context.Context, d snapshot.Descriptor, w *written) error {
	if w == nil {
		return nil
	}
	if err := <-w.err; err != nil {
		return err
	}
	t.Block = w.block
	t.Report.Entries += w.kept
	t.Report.ExpiredLeftOut += w.expired
	t.job.Progress("restore "+d.Release, t.Report.Entries+t.Report.ExpiredLeftOut, d.Entries)
	return t.advance(ctx)
}

// maxIndexes is how many bytes of tag indexes are kept in memory until the entries are written.
const maxIndexes = 8 << 20

// indexes are an archive's tag indexes: all of them, or none when they are too many to be kept.
type indexes struct {
	entries []tasks.Entry
	bytes   int
	tooMany bool
}

func (x *indexes) add(entries []tasks.Entry) {
	for _, e := range indexesOf(entries) {
		x.bytes += e.Size()
		x.entries = append(x.entries, e)
	}
	if x.bytes > maxIndexes {
		x.entries, x.tooMany = nil, true
	}
}

func indexesOf(entries []tasks.Entry) (found []tasks.Entry) {
	for _, e := range entries {
		if _, ok := tasks.TagOf(e.Key); ok {
			found = append(found, e)
		}
	}
	return found
}

// writeIndexes reads the tag indexes and writes them, every try all of them. They come after the entries: an
// invalidation of a tag that is applied while they are written empties the tag's index, and
// entries written later would be found by no replay. Between index and replay nothing is written.
func (t *run) writeIndexes(ctx context.Context, d snapshot.Descriptor) error {
	return t.blocks(ctx, d, func(b snapshot.Block) error {
		if err := t.Cache.Write(ctx, d.Release, indexesOf(b.Entries)); err != nil {
			return fmt.Errorf("block %d: %w", b.Number, err)
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
