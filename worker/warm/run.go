package warm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hibiken/asynq"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
)

// endLimit bounds the clean end of a run whose task failed for good.
const endLimit = 30 * time.Second

// Started is the result of a run's first task.
type Started struct {
	Run     string `json:"run"`
	Release string `json:"release"`
	Batches int    `json:"batches"` // of the whole run
}

// BatchTaskID names the task of a batch, in every try of its run, and the batch's mark.
func BatchTaskID(b tasks.WarmBatch) string { return "warm:" + b.Run + ":" + b.ID() }

// Run starts a warm run: it claims the release, cuts the plan and enqueues the batches. A retry
// goes on where the last try ended. A run that cannot begin ends with a failed certificate.
func (r *Runner) Run(ctx context.Context, job tasks.Job, p tasks.WarmRun) (Started, error) {
	started, err := r.run(ctx, job, p)
	if givesUp(ctx, err) {
		err = errors.Join(err, r.giveUp(ctx, p.Run, p.Release, err))
	}
	return started, err
}

func (r *Runner) run(ctx context.Context, job tasks.Job, p tasks.WarmRun) (Started, error) {
	started := Started{Run: p.Run, Release: p.Release}
	rec := r.record(p.Run)
	// What can be refused is refused before anything is claimed or moved.
	if err := r.mayWarm(ctx, p.Release); err != nil {
		return started, err
	}
	plan, err := r.planOf(ctx, rec)
	if err != nil {
		return started, err
	}
	picked, err := plan.pick(p.Sources)
	if err != nil {
		return started, err
	}
	if st, err := rec.load(ctx, ""); err != nil {
		return started, err
	} else if st.cut == nil { // else an earlier try has begun
		if err := r.fits(ctx, picked, p); err != nil {
			return started, fmt.Errorf("warm release %q: %w", p.Release, err)
		}
	}
	mine, err := rec.claim(ctx, p.Release, p.By)
	if err != nil || !mine {
		return started, err
	}
	if err := r.enterWarming(ctx, p); err != nil {
		return started, err
	}
	batches, err := r.cutOnce(ctx, job, rec, plan, p)
	if err != nil {
		return started, err
	}
	started.Batches = len(batches)
	open, err := rec.stillOpen(ctx, batches)
	if err != nil {
		return started, err
	}
	if len(open) == 0 {
		return started, r.finish(ctx, p.Run, p.Release, nil)
	}
	return started, r.enqueue(ctx, job, rec, open)
}

func (r *Runner) record(run string) runRecord { return runRecord{r.deps.Queue, r.deps.Keys, run} }

// warmable are the states in which a release may be warmed.
var warmable = map[release.State]bool{
	release.New: true, release.Warming: true, release.Ready: true, release.Active: true, release.Standby: true,
}

func (r *Runner) mayWarm(ctx context.Context, id string) error {
	rec, err := r.deps.Ledger.Get(ctx, id)
	if err != nil {
		return fmt.Errorf("warm release %q: %w", id, err)
	}
	if !warmable[rec.State] {
		return fmt.Errorf("warm release %q: %w: it is %s; roll back to it, or create another release", id, tasks.ErrRefused, rec.State)
	}
	return nil
}

// enterWarming moves the release to warming, unless it is served or kept for a rollback.
func (r *Runner) enterWarming(ctx context.Context, p tasks.WarmRun) error {
	rec, err := r.deps.Ledger.Get(ctx, p.Release)
	if err != nil {
		return err
	}
	if rec.State == release.New || rec.State == release.Ready {
		if err := r.deps.Ledger.Move(ctx, p.Release, rec.State, release.Warming, p.By); err != nil {
			return err
		}
	}
	return r.deps.Ledger.SetRun(ctx, p.Release, p.Run)
}

// planOf returns the run's plan. A run that brings none keeps a copy of the worker's: from then
// on the worker's file may change.
func (r *Runner) planOf(ctx context.Context, rec runRecord) (*Plan, error) {
	st, err := rec.load(ctx, "")
	if err != nil {
		return nil, err
	}
	if st.plan != "" {
		if err := newerPlan([]byte(st.plan)); err != nil {
			return nil, err
		}
		return ParsePlan([]byte(st.plan))
	}
	text, err := r.ownPlan()
	if err != nil {
		return nil, err
	}
	plan, err := ParsePlan(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.cfg.Plan, err)
	}
	return plan, rec.set(ctx, "plan", text)
}

// enqueue makes each open batch a task. A batch that has one already keeps it.
func (r *Runner) enqueue(ctx context.Context, job tasks.Job, rec runRecord, open []tasks.WarmBatch) error {
	for i, b := range open {
		if i%pushSize == 0 {
			if isDraining(job) {
				return tasks.ErrDraining
			}
			if err := rec.touch(ctx, b.Source, nil); err != nil {
				return err
			}
		}
		_, err := r.deps.Tasks.Enqueue(ctx, b, asynq.TaskID(BatchTaskID(b)))
		if err != nil && !errors.Is(err, asynq.ErrTaskIDConflict) {
			return fmt.Errorf("enqueue batch %s of run %q: %w", b.ID(), b.Run, err)
		}
		job.Progress("enqueue", int64(i+1), int64(len(open)))
	}
	return nil
}
