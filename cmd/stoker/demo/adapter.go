package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alphanode/stoker/tasks"
)

// StokerCache is [tasks.Client] as the site's [Cache]: all that an app server needs of stoker.
type StokerCache struct{ Client *tasks.Client }

var _ Cache = StokerCache{}

// Fetch implements [Cache].
func (c StokerCache) Fetch(ctx context.Context, key string, tags []string, ttl time.Duration, load func(context.Context) ([]byte, error)) ([]byte, bool, error) {
	got, err := c.Client.Fetch(ctx, key, tags, ttl, load)
	return got.Value, got.Hit, err
}

// Invalidate implements [Cache].
func (c StokerCache) Invalidate(ctx context.Context, tags []string, reason string) (func(context.Context) error, error) {
	call := tasks.Invalidation{By: tasks.By{Actor: "demo", Reason: reason}}
	for _, t := range tags {
		call.Targets = append(call.Targets, tasks.Target{Kind: tasks.KindTag, Name: tasks.Bytes(t)})
	}
	receipt, err := c.Client.Invalidate(ctx, call)
	// What is recorded cannot be lost: without its task a worker's sweep applies it.
	if err != nil && !errors.Is(err, tasks.ErrNotEnqueued) {
		return nil, fmt.Errorf("invalidate: %w", err)
	}
	return func(ctx context.Context) error {
		_, err := c.Client.Wait(ctx, receipt)
		return err
	}, nil
}
