package warm

import (
	"context"
	"errors"
	"fmt"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/carry"
)

// sampleKeys is how many keys of each source a dry run shows.
const sampleKeys = 10

// Survey is what a dry run found in one source.
type Survey struct {
	Name  string        `json:"name"`
	Kind  string        `json:"kind"`
	From  string        `json:"from,omitempty"`  // of a carry: the release
	Count int64         `json:"count"`           // keys of a query or carry, addresses of a crawl
	Keys  []tasks.Bytes `json:"keys"`            // the first few
	Bytes int64         `json:"bytes,omitempty"` // of a carry: of memory that its copies will take, about

	Refused string `json:"refused,omitempty"` // of a carry: why it would be
}

// DryRun reads the plan's sources for a release and counts what a run would warm. It writes
// nothing. Its use of the database, the site's sitemap and the carried namespace is real.
func (r *Runner) DryRun(ctx context.Context, plan *Plan, release string, sources []string) ([]Survey, error) {
	if err := tasks.ValidateRelease(release); err != nil {
		return nil, err
	}
	picked, err := plan.pick(sources)
	if err != nil {
		return nil, err
	}
	var all []Survey
	for _, s := range picked {
		one, err := r.survey(ctx, s, release)
		if err != nil {
			return all, fmt.Errorf("dry run of source %q: %w", s.Name, err)
		}
		all = append(all, one)
	}
	return all, nil
}

func (r *Runner) survey(ctx context.Context, s Source, release string) (Survey, error) {
	found := Survey{Name: s.Name, Kind: s.Kind()}
	var err error
	if found.From, err = r.carryFrom(ctx, s, release); err != nil {
		return found, err
	}
	if s.Carry != nil {
		return r.surveyCarry(ctx, s, release, found)
	}
	src, closeSource, err := r.open(s, release, found.From)
	if err != nil {
		return found, err
	}
	defer closeSource()
	err = src.Keys(ctx, func(key string) error {
		if found.Count++; found.Count <= sampleKeys {
			found.Keys = append(found.Keys, tasks.Bytes(key))
		}
		return nil
	})
	return found, err
}

// surveyCarry counts what a carry would copy, and predicts the memory for it.
func (r *Runner) surveyCarry(ctx context.Context, s Source, release string, found Survey) (Survey, error) {
	src, err := r.carry(ctx, s, release)
	if err != nil {
		return found, err
	}
	e, err := src.Estimate(ctx)
	if err != nil {
		return found, err
	}
	found.Count, found.Bytes = e.Entries, e.Bytes
	for _, key := range e.Sample {
		found.Keys = append(found.Keys, tasks.Bytes(key))
	}
	if r.deps.Room == nil {
		return found, nil
	}
	if err := r.fit(ctx, []*carry.Source{src}); errors.Is(err, tasks.ErrRefused) {
		found.Refused = err.Error()
	} else if err != nil {
		return found, err
	}
	return found, nil
}
