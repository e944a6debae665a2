package demo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// PlainPrefix begins every Redis key of the plain deploy's cache.
const PlainPrefix = "demo-plain:"

// Plain is the cache of a site as it is usually deployed: one namespace for whatever release
// runs, values read through and set with an expiry, deletes on edit, and a flush on every
// deploy. It is the demo's comparison, not an app's cache: nothing stops a late fill from
// storing what an edit has just deleted.
type Plain struct {
	redis redis.UniversalClient

	mu   sync.Mutex
	keys map[string]struct{} // every key it may have set, so that a flush takes no other's
}

var _ Cache = (*Plain)(nil)

// NewPlain returns an empty cache in that Redis.
func NewPlain(client redis.UniversalClient) *Plain {
	return &Plain{redis: client, keys: map[string]struct{}{}}
}

// Fetch implements [Cache]; the tags are of no use to it.
func (p *Plain) Fetch(ctx context.Context, key string, _ []string, ttl time.Duration, load func(context.Context) ([]byte, error)) ([]byte, bool, error) {
	value, err := p.redis.Get(ctx, PlainPrefix+key).Bytes()
	if err == nil {
		return value, true, nil
	}
	if !errors.Is(err, redis.Nil) {
		return nil, false, fmt.Errorf("plain cache: %w", err)
	}
	if value, err = load(ctx); err != nil {
		return nil, false, err
	}
	p.mu.Lock()
	p.keys[key] = struct{}{}
	p.mu.Unlock()
	if err := p.redis.Set(ctx, PlainPrefix+key, value, ttl).Err(); err != nil {
		return nil, false, fmt.Errorf("plain cache: %w", err)
	}
	return value, false, nil
}

// Invalidate implements [Cache] with the deletes that a developer would write by hand.
func (p *Plain) Invalidate(ctx context.Context, tags []string, _ string) (func(context.Context) error, error) {
	var keys []string
	for _, tag := range tags {
		keys = append(keys, keysOf(tag)...)
	}
	return func(context.Context) error { return nil }, p.unlink(ctx, keys)
}

// Flush empties the cache and returns how many keys it may have held.
func (p *Plain) Flush(ctx context.Context) (int, error) {
	p.mu.Lock()
	keys := make([]string, 0, len(p.keys))
	for k := range p.keys {
		keys = append(keys, k)
	}
	clear(p.keys)
	p.mu.Unlock()
	return len(keys), p.unlink(ctx, keys)
}

// Count returns how many entries the cache holds.
func (p *Plain) Count(ctx context.Context) (int64, error) {
	p.mu.Lock()
	pipe := p.redis.Pipeline()
	var found []*redis.IntCmd
	for k := range p.keys {
		found = append(found, pipe.Exists(ctx, PlainPrefix+k))
	}
	p.mu.Unlock()
	if _, err := pipe.Exec(ctx); err != nil {
		return 0, fmt.Errorf("plain cache: %w", err)
	}
	var n int64
	for _, f := range found {
		n += f.Val()
	}
	return n, nil
}

func (p *Plain) unlink(ctx context.Context, keys []string) error {
	pipe := p.redis.Pipeline()
	for _, k := range keys {
		pipe.Unlink(ctx, PlainPrefix+k)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("plain cache: %w", err)
	}
	return nil
}

// plainDeploy is the plain site's way to switch releases: code first, then the flush.
type plainDeploy struct {
	cache   *Plain
	release atomic.Value // string
}

func (p *plainDeploy) active(context.Context) (string, error) {
	id, _ := p.release.Load().(string)
	if id == "" {
		return "", tasks.ErrNoRelease
	}
	return id, nil
}

// deploy switches to a release and returns how many entries the flush cost.
func (p *plainDeploy) deploy(ctx context.Context, id string) (int, error) {
	p.release.Store(id)
	return p.cache.Flush(ctx)
}
