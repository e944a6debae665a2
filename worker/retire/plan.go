package retire

import (
	"context"
	"fmt"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/release"
)

// Step is one release that an expiry takes further, or would.
type Step struct {
	Release string        `json:"release"`
	From    release.State `json:"from"`
	To      release.State `json:"to"`
	Why     string        `json:"why"`
	Entries int64         `json:"entries"`           // that would leave Redis
	Keys    int64         `json:"keys"`              // with them: entries, tag indexes and their like
	Bytes   int64         `json:"bytes"`             // of them, an estimate
	Sample  []tasks.Bytes `json:"sample,omitempty"`  // some of their logical keys
	Archive string        `json:"archive,omitempty"` // that would be deleted
}

// Plan returns what Expire would do now, and changes nothing.
func (r *Retirer) Plan(ctx context.Context, p tasks.Expire) ([]Step, error) {
	measured := map[string]namespace.Usage{}
	steps, err := r.steps(ctx, p, measured)
	if err != nil {
		return nil, err
	}
	for i := range steps {
		s := &steps[i]
		rec, err := r.Ledger.Get(ctx, s.Release)
		if err != nil {
			return nil, err
		}
		usage, err := r.usage(ctx, s.Release, measured)
		if err != nil {
			return nil, err
		}
		s.Entries, s.Keys, s.Bytes = usage.Entries, usage.Entries+usage.Reserved, usage.Bytes
		for _, key := range usage.Sample {
			s.Sample = append(s.Sample, tasks.Bytes(key))
		}
		if s.To == release.Expired {
			d, err := described(rec)
			if err != nil {
				return nil, err
			}
			s.Archive = d.Name
		}
	}
	return steps, nil
}

// usage measures a release, once.
func (r *Retirer) usage(ctx context.Context, id string, measured map[string]namespace.Usage) (namespace.Usage, error) {
	if u, ok := measured[id]; ok {
		return u, nil
	}
	u, err := r.Cache.Usage(ctx, id)
	if err == nil {
		measured[id] = u
	}
	return u, err
}

// steps decides what an expiry is to do. What had to be measured for it is in measured.
func (r *Retirer) steps(ctx context.Context, p tasks.Expire, measured map[string]namespace.Usage) ([]Step, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if p.Release != "" {
		rec, err := r.Ledger.Get(ctx, p.Release)
		if err != nil {
			return nil, err
		}
		step, err := r.named(rec, p.NoSnapshot)
		return []Step{step}, err
	}
	records, err := r.Ledger.List(ctx)
	if err != nil {
		return nil, err
	}
	return r.byRule(ctx, records, measured)
}

// byRule lists what earlier expiries left undone, then what the retention rule gives up.
func (r *Retirer) byRule(ctx context.Context, records []release.Record, measured map[string]namespace.Usage) ([]Step, error) {
	var steps []Step
	for _, rec := range records {
		left, err := unfinished(rec)
		if err != nil {
			return nil, err
		}
		if left {
			steps = append(steps, Step{Release: rec.ID, From: rec.State, To: rec.State, Why: "an earlier expiry did not finish"})
		}
	}
	now, sizes := r.Now(), map[string]int64{}
	for _, id := range r.Rule.Weighs(records, now) {
		u, err := r.usage(ctx, id, measured)
		if err != nil {
			return nil, err
		}
		sizes[id] = u.Bytes
	}
	for _, l := range r.Rule.Plan(records, sizes, now) {
		steps = append(steps, Step{Release: l.ID, From: l.State, To: l.To, Why: l.Why})
	}
	return steps, nil
}

// named decides how far a release that was asked for by name goes, or refuses with the way out.
func (r *Retirer) named(rec release.Record, noSnapshot bool) (Step, error) {
	step := Step{Release: rec.ID, From: rec.State, To: release.Expired, Why: "asked for by name"}
	refuse := func(format string, args ...any) (Step, error) {
		return Step{}, fmt.Errorf("expire release %q: %w: %s", rec.ID, tasks.ErrRefused, fmt.Sprintf(format, args...))
	}
	if rec.Pinned {
		return refuse("it is pinned; `stoker release unpin %s` lets it go", rec.ID)
	}
	switch rec.State {
	case release.Active:
		return refuse("it is served; activate another release or roll back first")
	case release.Warming:
		return refuse("it is being warmed; wait for the run to end")
	case release.Restoring:
		return refuse("it is being restored; wait for that to end")
	case release.New, release.Ready:
		if !noSnapshot {
			return refuse("it is %s and was never served, so no snapshot of it is kept: add --no-snapshot to drop it for good", rec.State)
		}
	case release.Standby:
		if !noSnapshot {
			step.To = release.Archived
		}
	case release.Archived, release.Expired:
	}
	return step, nil
}
