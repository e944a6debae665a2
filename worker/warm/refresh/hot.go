package refresh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

const (
	slice = 500 // keys a pipeline: about 1 ms of the server
	// lookFactor is how many keys are looked at for each that may be refreshed, to find the hottest.
	lookFactor = 10
)

// collector finds the keys of a release that targets are about to remove, the hottest of them where
// they are more than limit. It looks at ten times the limit at most, and holds no more.
type collector struct {
	cache   redis.UniversalClient
	tmpl    tasks.Template
	release string
	limit   int
	dirty   dirtySet

	heat   heat
	found  []removed
	seen   map[string]bool // of what is in found, or was
	looked int             // keys
	beyond bool            // more were removed than were looked at, or than the limit
}

// collect looks at the targets' keys.
func (c *collector) collect(ctx context.Context, targets []tasks.Target) error {
	c.seen = map[string]bool{}
	var named []string
	for _, t := range targets {
		if t.Kind == tasks.KindKey {
			named = append(named, string(t.Name))
		}
	}
	// A key that is named is loaded whether it was there or not: it may be a new article's.
	if err := c.look(ctx, named, true); err != nil {
		return err
	}
	for _, t := range targets {
		var err error
		switch t.Kind {
		case tasks.KindTag:
			err = c.tag(ctx, string(t.Name))
		case tasks.KindPrefix:
			err = c.prefix(ctx, string(t.Name))
		}
		if err != nil {
			return fmt.Errorf("find keys of %s: %w", t, err)
		}
	}
	c.cut()
	return nil
}

// full reports whether as many keys were looked at as may be.
func (c *collector) full() bool {
	if c.looked < c.limit*lookFactor {
		return false
	}
	c.beyond = true
	return true
}

// tag looks at the members of a tag's index.
func (c *collector) tag(ctx context.Context, tag string) error {
	index := c.tmpl.Key(c.release, tasks.TagIndex(tag))
	for cursor := uint64(0); !c.full(); {
		page, next, err := c.cache.ZScan(ctx, index, cursor, "", slice).Result()
		if err != nil {
			return err
		}
		keys := make([]string, 0, len(page)/2)
		for i := 0; i < len(page); i += 2 {
			keys = append(keys, page[i])
		}
		if err := c.look(ctx, keys, false); err != nil || next == 0 {
			return err
		}
		cursor = next
	}
	return nil
}

// prefix looks at the keys under a prefix: those that are there, and those that are dirty already.
func (c *collector) prefix(ctx context.Context, prefix string) error {
	servers, err := tasks.Primaries(ctx, c.cache)
	if err != nil {
		return err
	}
	for _, server := range servers {
		if err := c.scan(ctx, server, prefix); err != nil {
			return err
		}
	}
	return c.dirty.under(ctx, prefix, func(key string) { c.add(removed{key: key, only: true}) })
}

// scan looks at the keys under a prefix that one server has.
func (c *collector) scan(ctx context.Context, server redis.UniversalClient, prefix string) error {
	for cursor := uint64(0); !c.full(); {
		page, next, err := server.Scan(ctx, cursor, c.tmpl.Match(c.release, prefix), slice).Result()
		if err != nil {
			return err
		}
		var keys []string
		for _, key := range page {
			if logical, ok := c.tmpl.Logical(c.release, key); ok && !strings.HasPrefix(logical, tasks.Reserved) {
				keys = append(keys, logical)
			}
		}
		if err := c.look(ctx, keys, false); err != nil || next == 0 {
			return err
		}
		cursor = next
	}
	return nil
}

// look ranks keys by how hot they are. Those that are not in the cache count where they are named, or
// dirty already.
func (c *collector) look(ctx context.Context, keys []string, named bool) error {
	for len(keys) > 0 && !c.full() {
		part := keys[:min(slice, len(keys))]
		keys = keys[len(part):]
		c.looked += len(part)
		ranks, err := c.heat.ranks(ctx, c.cache, c.tmpl, c.release, part)
		if err != nil {
			return fmt.Errorf("rank %d keys: %w", len(part), err)
		}
		for i, key := range part {
			c.add(removed{key, ranks[i], ranks[i] == absent && !named})
		}
	}
	return nil
}

// add notes a key.
func (c *collector) add(r removed) {
	if c.seen[r.key] {
		return
	}
	c.seen[r.key] = true
	if c.found = append(c.found, r); len(c.found) > 2*c.limit {
		c.cut()
	}
}

// cut keeps the hottest keys up to the limit.
func (c *collector) cut() {
	slices.SortStableFunc(c.found, func(a, b removed) int { return cmp.Compare(a.rank, b.rank) })
	if len(c.found) > c.limit {
		c.beyond = true
		c.found = c.found[:c.limit]
	}
}

// absent is the rank of a key that is not in the cache: behind all that are.
const absent = 1 << 40

// heat asks how hot keys are, in the way that the server's eviction policy allows.
type heat struct{ lfu, blind bool }

// ranks returns a rank for each key, the hottest lowest: less the frequency of use under an LFU policy,
// else the seconds since the last use. On a server that tells neither all keys that exist have one.
func (h *heat) ranks(ctx context.Context, cache redis.UniversalClient, tmpl tasks.Template, release string, keys []string) ([]int64, error) {
	if h.blind {
		return h.exist(ctx, cache, tmpl, release, keys)
	}
	ask := "IDLETIME"
	if h.lfu {
		ask = "FREQ"
	}
	cmds, err := cache.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, key := range keys {
			p.Do(ctx, "OBJECT", ask, tmpl.Key(release, key))
		}
		return nil
	})
	ranks := make([]int64, len(keys))
	for i, cmd := range cmds {
		n, e := cmd.(*redis.Cmd).Int64()
		switch {
		case e == redis.Nil:
			ranks[i] = absent
		case e == nil && h.lfu:
			ranks[i] = -n
		case e == nil:
			ranks[i] = n
		case !errors.As(e, new(redis.Error)): // not the server's answer
			return nil, err
		default:
			// The policy was the other one, or the server knows no such thing.
			h.blind, h.lfu = h.lfu || !strings.Contains(e.Error(), "LFU"), true
			return h.ranks(ctx, cache, tmpl, release, keys)
		}
	}
	return ranks, nil
}

func (h *heat) exist(ctx context.Context, cache redis.UniversalClient, tmpl tasks.Template, release string, keys []string) ([]int64, error) {
	cmds, err := cache.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, key := range keys {
			p.Exists(ctx, tmpl.Key(release, key))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	ranks := make([]int64, len(keys))
	for i, cmd := range cmds {
		if cmd.(*redis.IntCmd).Val() == 0 {
			ranks[i] = absent
		}
	}
	return ranks, nil
}
