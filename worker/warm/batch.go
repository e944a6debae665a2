package warm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/warm/source"
)

// Limits of what a batch keeps to show.
const (
	maxExamples = 5
	maxExample  = 300 // bytes
)

// Batched is the result of a batch's task.
type Batched struct {
	Run      string   `json:"run"`
	Batch    string   `json:"batch"`
	Status   string   `json:"status,omitempty"` // of the run, when it was over before the batch began
	Examples []string `json:"examples,omitempty"`
	Figures
}

// tally is what a batch found out so far: part of its cursor, and its line in the run's record.
type tally struct {
	Figures
	Examples []string   `json:"examples,omitempty"`
	Failures failures   `json:"failures,omitempty"`
	Mark     tasks.Mark `json:"mark"`
	Sample   []sampled  `json:"sample,omitempty"`
	Cost
}

// Cost is what a part of a run took.
type Cost struct {
	Took  time.Duration `json:"took_ns,omitempty"` // of work: batches that ran side by side count each
	Bytes int64         `json:"bytes,omitempty"`   // keys, tags and values that the runner put
}

// cursor is how far a batch has come.
type cursor struct {
	Next    string `json:"next"`
	Tally   tally  `json:"tally"`
	Servers string `json:"servers,omitempty"` // of the cache Redis, where all of it was written
}

// Batch warms one batch of a run. The last one to finish ends the run. A retry goes on where the
// last try ended, where the source can, and repeats it otherwise.
func (r *Runner) Batch(ctx context.Context, job tasks.Job, p tasks.WarmBatch) (Batched, error) {
	result, err := r.batch(ctx, job, p)
	if givesUp(ctx, err) {
		err = errors.Join(err, r.giveUp(ctx, p.Run, p.Release, fmt.Errorf("batch %s: %w", p.ID(), err)))
	}
	return result, err
}

func (r *Runner) batch(ctx context.Context, job tasks.Job, p tasks.WarmBatch) (Batched, error) {
	result := Batched{Run: p.Run, Batch: p.ID()}
	rec := r.record(p.Run)
	st, err := rec.load(ctx, p.ID())
	if err != nil {
		return result, err
	}
	if st.status != statusRunning {
		result.Status = st.status
		return result, nil
	}
	var t tally
	if !st.done {
		if t, err = r.warm(ctx, job, rec, st, p); err != nil {
			return result, fmt.Errorf("warm batch %s: %w", p.ID(), err)
		}
		result.Figures, result.Examples = t.Figures, t.Examples
	}
	left, err := rec.finishBatch(ctx, p, t)
	if err != nil {
		return result, err
	}
	if left > 0 {
		return result, nil
	}
	return result, r.finish(ctx, p.Run, p.Release, nil)
}

// warm is the protocol of a writer: mark, read and write, replay.
func (r *Runner) warm(ctx context.Context, job tasks.Job, rec runRecord, st state, p tasks.WarmBatch) (tally, error) {
	s, cut, err := st.source(p.Source)
	if err != nil {
		return tally{}, err
	}
	w := &writer{r: r, job: job, rec: rec, batch: p, total: cut.Total, listed: p.To > 0, since: cut.Since, began: r.now()}
	if w.listed {
		w.total = int64(p.To - p.From)
	}
	// A retry that has written something already keeps the mark it wrote under.
	if w.mark, err = r.openMark(ctx, p, cut); err != nil {
		return tally{}, err
	}
	w.keep, w.carries = cut.keep(s.demand.sample()), s.Carry != nil
	part, err := r.part(ctx, rec, st, p, cut)
	if err != nil {
		return tally{}, err
	}
	src, closeSource, err := r.open(s.Source, p.Release, cut.From)
	if err != nil {
		return tally{}, err
	}
	defer closeSource()
	if err := w.write(ctx, src, part); err != nil {
		return w.tally, err
	}
	return w.tally, r.deps.Log.CloseMark(ctx, p.Release, BatchTaskID(p))
}

// part returns what the batch walks: some of a list, which is a sample already, or all that is not
// in one.
func (r *Runner) part(ctx context.Context, rec runRecord, st state, p tasks.WarmBatch, cut cutSource) (source.Part, error) {
	if p.To > 0 {
		items, err := rec.items(ctx, p)
		return source.Part{Items: items}, err
	}
	part := source.Part{Share: st.share}
	if st.cut.Rest > 0 {
		part.Share = st.cut.Rest
	}
	if cut.Hot == 0 {
		return part, nil
	}
	p.To = int(cut.Hot)
	items, err := rec.items(ctx, p)
	part.Except = make(map[string]bool, len(items))
	for _, item := range items {
		part.Except[item] = true
	}
	return part, err
}

func (r *Runner) openMark(ctx context.Context, p tasks.WarmBatch, cut cutSource) (tasks.Mark, error) {
	if cut.From != "" {
		return r.deps.Log.OpenMarkFrom(ctx, p.Release, BatchTaskID(p), cut.From)
	}
	return r.deps.Log.OpenMark(ctx, p.Release, BatchTaskID(p))
}

// planned is a source of a run with what the run's plan demands.
type planned struct {
	Source
	demand Demand
}

// source returns the run's source of that name, and how it was cut.
func (st state) source(name string) (planned, cutSource, error) {
	if st.cut == nil {
		return planned{}, cutSource{}, fmt.Errorf("%w: its run has not been cut", tasks.ErrInvalid)
	}
	plan, err := ParsePlan([]byte(st.plan))
	if err != nil {
		return planned{}, cutSource{}, err
	}
	i := slices.IndexFunc(st.cut.Sources, func(s cutSource) bool { return s.Name == name })
	j := slices.IndexFunc(plan.Sources, func(s Source) bool { return s.Name == name })
	if i < 0 || j < 0 {
		return planned{}, cutSource{}, fmt.Errorf("%w: its run has no source %q", tasks.ErrInvalid, name)
	}
	return planned{plan.Sources[j], plan.Certificate}, st.cut.Sources[i], nil
}

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
	warm, err := w.settle(ctx, c)
	if err != nil {
		return err
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
