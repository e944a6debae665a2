package health

import (
	"context"
	"errors"
	"fmt"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
)

// Baseline measures how the site answers under a release and stores the result as the release's
// baseline, over an earlier one. It may be run again at any time.
func (m *Monitor) Baseline(ctx context.Context, job tasks.Job, p tasks.Baseline) (Baseline, error) {
	if _, err := m.d.Ledger.Get(ctx, p.Release); err != nil {
		return Baseline{}, fmt.Errorf("baseline of release %q: %w", p.Release, err)
	}
	probes, err := m.probes(ctx, p.Release)
	if err != nil {
		return Baseline{}, fmt.Errorf("baseline of release %q: %w", p.Release, err)
	}
	b, err := m.measure(ctx, job, probes, p.Release)
	if err != nil {
		return Baseline{}, fmt.Errorf("baseline of release %q: %w", p.Release, err)
	}
	if err := m.d.Ledger.SetDoc(ctx, p.Release, release.DocBaseline, b); err != nil {
		return Baseline{}, fmt.Errorf("baseline of release %q: %w", p.Release, err)
	}
	return b, nil
}

// Watch measures the active release after its switch, compares with the baseline of the release
// before (or, without one, with its own earlier one), and stores the verdict. Without probes, without
// anything to compare with, or when the release is not the active one throughout, the verdict
// is inconclusive; that is not an error.
func (m *Monitor) Watch(ctx context.Context, job tasks.Job, p tasks.Watch) (Verdict, error) {
	v, err := m.watch(ctx, job, p)
	if err == nil {
		err = m.d.Ledger.SetDoc(ctx, p.Release, release.DocVerdict, v)
	}
	if err != nil {
		return Verdict{}, fmt.Errorf("watch release %q: %w", p.Release, err)
	}
	return v, nil
}

func (m *Monitor) watch(ctx context.Context, job tasks.Job, p tasks.Watch) (Verdict, error) {
	before, found, err := m.baselineBefore(ctx, p)
	if err != nil {
		return Verdict{}, err
	}
	activeThen, err := m.d.Ledger.Active(ctx)
	if err != nil {
		return Verdict{}, err
	}
	if activeThen != p.Release {
		return inconclusive("%q was the active release, not %q: what the site serves says nothing of it", activeThen, p.Release), nil
	}
	probes, err := m.probes(ctx, p.Release)
	if errors.Is(err, tasks.ErrInvalid) || errors.Is(err, tasks.ErrNotFound) {
		// Every switch is watched; a site without probes must not end each with a failed task.
		return inconclusive("not measured: %v", err), nil
	}
	if err != nil {
		return Verdict{}, err
	}
	after, err := m.measure(ctx, job, probes, p.Release)
	if err != nil {
		return Verdict{}, err
	}
	activeNow, err := m.d.Ledger.Active(ctx)
	if err != nil {
		return Verdict{}, err
	}
	switch {
	case activeNow != p.Release:
		return inconclusive("the active release changed from %q to %q while it was measured", p.Release, activeNow), nil
	case !found:
		v := inconclusive("no baseline to compare with: take one before the next switch (stoker baseline ID)")
		v.After = after.Summary()
		return v, nil
	}
	return Compare(before, after), nil
}

func inconclusive(format string, args ...any) Verdict {
	return Verdict{Verdict: Inconclusive, Reasons: []string{fmt.Sprintf(format, args...)}}
}

// baselineBefore returns the baseline to compare with: of the release before, else the
// release's own.
func (m *Monitor) baselineBefore(ctx context.Context, p tasks.Watch) (b Baseline, found bool, err error) {
	own, err := m.d.Ledger.Get(ctx, p.Release)
	if err != nil {
		return b, false, err
	}
	if p.Before != "" {
		r, err := m.d.Ledger.Get(ctx, p.Before)
		if err != nil && !errors.Is(err, tasks.ErrNotFound) {
			return b, false, err
		}
		if err == nil {
			if found, err := r.Doc(release.DocBaseline, &b); found || err != nil {
				return b, found, err
			}
		}
	}
	found, err = own.Doc(release.DocBaseline, &b)
	return b, found, err
}

// probes returns the pages to measure under a release.
func (m *Monitor) probes(ctx context.Context, id string) (Probes, error) {
	if m.d.Probes == nil {
		return Probes{}, fmt.Errorf("%w: no pages to measure: name those that stand for the site in the plan's probes (STOKER_PLAN)", tasks.ErrInvalid)
	}
	return m.d.Probes(ctx, id)
}
