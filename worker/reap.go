package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/release"
)

// Marks closes the open marks of writers and readers whose task is gone for good; what a writer
// left is replayed first. Both sign with their task's ID. It is safe in many workers at once:
// replaying and closing twice is harmless.
type Marks struct {
	Ledger  *release.Ledger
	Log     *invalidation.Log
	Applier *invalidation.Applier
	Tags    TagCopier
	// Gone reports whether a task has come to its end; [Queues.Gone] does.
	Gone func(ctx context.Context, id string) (bool, error)
	// Forsake drops what a reader wrote that will never be finished, before the reader is closed; nil
	// drops nothing. retire.Retirer.Forsake does.
	Forsake func(ctx context.Context, reader string, mark invalidation.Mark) error
}

var _ Reaper = Marks{}

// TagCopier lists the entries of dst that src's tag indexes name in dst's. It is idempotent.
// namespace.Cache is one.
type TagCopier interface {
	CopyTags(ctx context.Context, src, dst string) error
}

// Reap implements [Reaper].
func (m Marks) Reap(ctx context.Context) (int, error) {
	live, err := m.Ledger.Live(ctx)
	if err != nil {
		return 0, err
	}
	closed := 0
	var failed []error
	for _, id := range live {
		n, err := m.reap(ctx, id, live)
		closed += n
		if err != nil {
			failed = append(failed, fmt.Errorf("release %q: %w", id, err))
		}
	}
	n, err := m.reapReaders(ctx)
	return closed + n, errors.Join(append(failed, err)...)
}

// reapReaders ends readers that would hold the log back for ever. They have written to no namespace.
func (m Marks) reapReaders(ctx context.Context) (int, error) {
	readers, err := m.Log.OpenReaders(ctx)
	if err != nil {
		return 0, err
	}
	closed := 0
	var failed []error
	for reader, mark := range readers {
		task := reader
		if at := strings.LastIndexByte(reader, '/'); at >= 0 {
			task = reader[:at] // behind the slash stands the release that is read
		}
		gone, err := m.Gone(ctx, task)
		if err != nil {
			return closed, err
		}
		if !gone {
			continue
		}
		// A store that does not answer must not hold the log back.
		if m.Forsake != nil {
			if err := m.Forsake(ctx, reader, mark); err != nil {
				failed = append(failed, fmt.Errorf("reader %q: %w", reader, err))
			}
		}
		if err := m.Log.CloseReader(ctx, reader); err != nil {
			return closed, err
		}
		closed++
	}
	return closed, errors.Join(failed...)
}

func (m Marks) reap(ctx context.Context, id string, live []string) (int, error) {
	marks, err := m.Log.OpenMarks(ctx, id)
	if err != nil {
		return 0, err
	}
	closed := 0
	for writer, mark := range marks {
		gone, err := m.Gone(ctx, writer)
		if err != nil {
			return closed, err
		}
		if !gone {
			continue
		}
		if err := m.replay(ctx, id, mark, live); err != nil {
			return closed, fmt.Errorf("writer %q: %w", writer, err)
		}
		if err := m.Log.CloseMark(ctx, id, writer); err != nil {
			return closed, err
		}
		closed++
	}
	return closed, nil
}

// replay does what the end of a dead writer's work would have done. A carry that died before it had
// copied the tag indexes left entries that only its source's indexes name; which of the live
// namespaces that was is not known here.
func (m Marks) replay(ctx context.Context, id string, mark invalidation.Mark, live []string) error {
	for _, other := range live {
		if other == id {
			continue
		}
		if err := m.Tags.CopyTags(ctx, other, id); err != nil {
			return err
		}
	}
	_, err := m.Applier.ReplayRest(ctx, id, mark)
	return err
}
