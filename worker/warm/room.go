package warm

import (
	"context"
	"errors"
	"fmt"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/carry"
)

// A Room tells whether the cache Redis has room for what a run adds.
type Room interface {
	// Limited reports whether there is a limit at all.
	Limited(ctx context.Context) (bool, error)
	// Fits refuses with tasks.ErrRefused what takes so many bytes more than there is room for.
	Fits(ctx context.Context, bytes int64) error
}

// fits refuses a run whose carries the cache Redis has no room for. What queries and crawls will
// take is not known beforehand: they end when the room does.
func (r *Runner) fits(ctx context.Context, picked []Source, p tasks.WarmRun) error {
	if r.deps.Room == nil || p.Sample > 0 && p.Sample < 1 { // a sampled carry is one slice
		return nil
	}
	limited, err := r.deps.Room.Limited(ctx)
	if err != nil || !limited {
		return err
	}
	var carries []*carry.Source
	for _, s := range picked {
		if s.Carry == nil || s.Carry.Hot { // a hot list is short
			continue
		}
		src, err := r.carry(ctx, s, p.Release)
		if err != nil {
			return fmt.Errorf("plan source %q: %w", s.Name, err)
		}
		carries = append(carries, src)
	}
	return r.fit(ctx, carries)
}

// carry opens a source that is a carry.
func (r *Runner) carry(ctx context.Context, s Source, release string) (*carry.Source, error) {
	from, err := r.carryFrom(ctx, s, release)
	if err != nil {
		return nil, err
	}
	return carry.New(r.deps.Cache, from, release, s.Carry.Families)
}

// fit refuses carries that do not fit together. What is there already from an earlier run counts
// only when it matters.
func (r *Runner) fit(ctx context.Context, carries []*carry.Source) error {
	var sum carry.Estimate
	for _, src := range carries {
		e, err := src.Estimate(ctx)
		if err != nil {
			return err
		}
		sum.Entries, sum.Bytes = sum.Entries+e.Entries, sum.Bytes+e.Bytes
	}
	err := r.deps.Room.Fits(ctx, sum.Bytes)
	if !errors.Is(err, tasks.ErrRefused) {
		return err
	}
	for _, src := range carries {
		there, err := src.Carried(ctx)
		if err != nil {
			return err
		}
		sum.Entries, sum.Bytes = sum.Entries-there.Entries, sum.Bytes-there.Bytes
	}
	if err = r.deps.Room.Fits(ctx, max(sum.Bytes, 0)); err != nil {
		return fmt.Errorf("carry %d entries: %w", max(sum.Entries, 0), err)
	}
	return nil
}
