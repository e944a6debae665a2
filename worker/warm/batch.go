package warm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/alphanode/stoker/tasks"
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
	if err := w.stillLive(ctx); err != nil {
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
