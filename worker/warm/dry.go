package warm

import (
	"context"
	"fmt"

	"github.com/alphanode/stoker/tasks"
)

// sampleKeys is how many keys of each source a dry run shows.
const sampleKeys = 10

// Survey is what a dry run found in one source.
type Survey struct {
	Name  string        `json:"name"`
	Kind  string        `json:"kind"`
	From  string        `json:"from,omitempty"` // of a carry: the release
	Count int64         `json:"count"`          // keys of a query or carry, addresses of a crawl
	Keys  []tasks.Bytes `json:"keys"`           // the first few
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
