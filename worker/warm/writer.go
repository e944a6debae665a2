package warm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/warm/source"
)

// writer takes the chunks of one batch.
type writer struct {
	r      *Runner
	job    tasks.Job
	rec    runRecord
	batch  tasks.WarmBatch
	mark   tasks.Mark
	total  int64
	listed bool
	keep   int   // sampled entries to keep
	since  int64 // of the run that this one goes on from, Unix µs; 0 when there is none
	began  time.Time
	took   time.Duration // of earlier tries, as far as they were kept
	tally  tally

	carries bool   // from another release's namespace
	servers string // of the cache Redis, where all of it is written
}

// walk takes what the source reads. A batch that is to stop does not wait for its origin: what was not
// taken is read again.
func (w *writer) walk(ctx context.Context, src source.Source, part source.Part, from string) error {
	reading, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-w.job.Draining():
			cancel(tasks.ErrDraining)
		case <-reading.Done():
		}
	}()
	err := src.Walk(reading, part, from, func(c source.Chunk) error { return w.take(ctx, c) })
	if err != nil && ctx.Err() == nil && errors.Is(context.Cause(reading), tasks.ErrDraining) {
		return tasks.ErrDraining
	}
	return err
}

// take stores a chunk, counts it and keeps the position after it.
func (w *writer) take(ctx context.Context, c source.Chunk) error {
	invalidated := w.tally.Invalidated
	warm, err := w.settle(ctx, c)
	if err != nil {
		return err
	}
	if n := int64(len(c.Entries)); n > 0 && w.tally.Invalidated-invalidated == n {
		// Everything counts as invalidated in a namespace that has left the live ones.
		if err := w.stillLive(ctx); err != nil {
			return err
		}
	}
	w.tally.Stored += int64(len(warm)) + c.Kept
	w.tally.Planned += int64(len(c.Entries)+len(c.Failed)) + c.Kept
	for _, f := range c.Failed {
		w.fail(f)
	}
	w.tally.Sample = pick(w.tally.Sample, warm, w.keep)
	w.tally.Took = w.took + w.r.now().Sub(w.began)
	w.job.Progress("warm "+w.batch.Source, w.tally.Planned, w.total)
	if c.Next != "" {
		if err := w.job.Save(ctx, cursor{c.Next, w.tally, w.servers}); err != nil {
			return err
		}
	}
	if err := w.touch(ctx); err != nil {
		return err
	}
	if isDraining(w.job) {
		return tasks.ErrDraining
	}
	return nil
}

// stillLive ends a batch whose release was archived or expired meanwhile. A put that was under way may
// have come after the last key was deleted, and left its tags behind: the next expiry purges again.
func (w *writer) stillLive(ctx context.Context) error {
	id := w.batch.Release
	rec, err := w.r.deps.Ledger.Get(ctx, id)
	if err != nil || rec.State.Live() {
		return err
	}
	if err := w.r.deps.Ledger.SetDoc(ctx, id, release.DocPurge, struct{}{}); err != nil {
		return err
	}
	if err := w.r.deps.Log.CloseMark(ctx, id, BatchTaskID(w.batch)); err != nil {
		return err
	}
	return fmt.Errorf("%w: release %q is %s now, so nothing more is stored", tasks.ErrRefused, id, rec.State)
}

func (w *writer) touch(ctx context.Context) error {
	if w.listed {
		return w.rec.touch(ctx, w.batch.Source, nil)
	}
	return w.rec.touch(ctx, w.batch.Source, &w.tally.Figures)
}

// settle brings a chunk into the namespace, or what others brought there in order, and returns
// the entries that are warm and fresh. What was invalidated since the mark is left to the site.
func (w *writer) settle(ctx context.Context, c source.Chunk) ([]source.Entry, error) {
	entries := c.Entries
	var kept []source.Entry
	if c.Written == source.ByRunner {
		var err error
		if kept, entries, err = w.warmAlready(ctx, entries); err != nil {
			return nil, err
		}
		fresh, _, err := w.split(ctx, entries)
		if err != nil {
			return nil, err
		}
		if err := w.put(ctx, fresh); err != nil {
			return nil, err
		}
		entries = fresh
	}
	if len(c.Unfit) > 0 {
		if _, err := w.r.deps.Cache.Remove(ctx, w.batch.Release, c.Unfit); err != nil {
			return nil, err
		}
	}
	fresh, stale, err := w.split(ctx, entries)
	if err != nil {
		return nil, err
	}
	if len(stale) > 0 {
		if _, err := w.r.deps.Cache.Remove(ctx, w.batch.Release, keysOf(stale)); err != nil {
			return nil, err
		}
	}
	if c.Written == source.BySite {
		return w.find(ctx, c, fresh)
	}
	return append(kept, fresh...), nil
}

// warmAlready divides entries by whether the run that this one goes on from has stored them.
func (w *writer) warmAlready(ctx context.Context, entries []source.Entry) (kept, left []source.Entry, err error) {
	if w.since == 0 || len(entries) == 0 {
		return nil, entries, nil
	}
	warm, err := w.r.areWarm(ctx, w.batch.Release, keysOf(entries), w.since)
	if err != nil {
		return nil, nil, err
	}
	for i, e := range entries {
		if warm[i] {
			kept = append(kept, e)
		} else {
			left = append(left, e)
		}
	}
	return kept, left, nil
}

// split divides entries by whether they were invalidated since the mark, and counts those that
// were. An entry without a key cannot be known to have been.
func (w *writer) split(ctx context.Context, entries []source.Entry) (fresh, stale []source.Entry, err error) {
	verdicts, err := w.r.deps.Check.Check(ctx, w.batch.Release, w.mark, tagged(entries))
	if err != nil {
		return nil, nil, err
	}
	for i, e := range entries {
		if verdicts[i] && e.Key != "" {
			stale = append(stale, e)
		} else {
			fresh = append(fresh, e)
		}
	}
	w.tally.Invalidated += int64(len(stale))
	return fresh, stale, nil
}

func (w *writer) put(ctx context.Context, entries []source.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	puts := make([]namespace.Put, len(entries))
	for i, e := range entries {
		puts[i] = namespace.Put{Entry: e.Entry, Tags: e.Tags}
		w.tally.Bytes += int64(e.Size())
	}
	return w.r.deps.Cache.Put(ctx, w.batch.Release, puts)
}

// revisits is how often a page is visited again whose entry is not there: an edit that overtook
// the site's load makes it drop what it loaded.
const (
	revisits     = 2
	revisitPause = 50 * time.Millisecond // the edit's invalidation is applied by then
)

// find looks for the entries that the site's visits should have left behind.
func (w *writer) find(ctx context.Context, c source.Chunk, entries []source.Entry) ([]source.Entry, error) {
	var warm, missing []source.Entry
	for _, e := range entries {
		if e.Key == "" {
			warm = append(warm, e)
		} else {
			missing = append(missing, e)
		}
	}
	for try := 0; len(missing) > 0; try++ {
		found, err := w.r.deps.Cache.Lookup(ctx, w.batch.Release, keysOf(missing))
		if err != nil {
			return nil, err
		}
		var still []source.Entry
		for i, e := range missing {
			if found[i].Exists {
				warm = append(warm, e)
			} else {
				still = append(still, e)
			}
		}
		if missing = still; len(missing) == 0 || try == revisits || c.Again == nil {
			break
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(revisitPause):
		}
		c.Again(ctx, keysOf(missing))
	}
	for _, e := range missing {
		w.fail(source.Failure{Key: e.Key, Error: "the page answered, but its entry is not in the namespace", Kind: source.Missing})
	}
	return warm, nil
}

func (w *writer) fail(f source.Failure) {
	w.tally.Failed++
	text := f.Error
	if f.Key != "" {
		text = tasks.Bytes(f.Key).String() + ": " + f.Error
	}
	text = shorten(text, maxExample)
	w.tally.Failures.count(f.Kind, text)
	if len(w.tally.Examples) < maxExamples {
		w.tally.Examples = append(w.tally.Examples, text)
	}
}

func keysOf(entries []source.Entry) []string {
	keys := make([]string, len(entries))
	for i, e := range entries {
		keys[i] = e.Key
	}
	return keys
}

func tagged(entries []source.Entry) []tasks.Tagged {
	all := make([]tasks.Tagged, len(entries))
	for i, e := range entries {
		all[i] = tasks.Tagged{Key: e.Key, Tags: e.Tags}
	}
	return all
}
