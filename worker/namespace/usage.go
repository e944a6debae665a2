package namespace

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

const (
	// weighOneIn is how many entries stand behind each one that Usage weighs.
	weighOneIn = 16
	// usageSample is how many keys Usage shows at most.
	usageSample = 10
	// lookupBatch is how many keys one pipeline looks up.
	lookupBatch = 1000
)

// Usage is what a namespace takes.
type Usage struct {
	Entries  int64    // entries, without reserved keys
	Reserved int64    // reserved keys: tag indexes and their like
	Bytes    int64    // an estimate of the server's memory: reserved keys weighed, entries sampled
	Sample   []string // logical keys of some entries
}

// Usage counts the release's entries and estimates their memory. A key that SCAN returns twice
// counts twice, so on a server whose table is just growing the count may be a little high, and
// after a restart of the server in the middle much too high.
func (c *Cache) Usage(ctx context.Context, release string) (Usage, error) {
	return c.UsageOf(ctx, release, []string{""})
}

// UsageOf is [Cache.Usage] of the entries whose logical key begins with one of families, and of as
// large a part of the reserved keys.
func (c *Cache) UsageOf(ctx context.Context, release string, families []string) (u Usage, err error) {
	defer wrap(&err, "measure", release)
	if err := c.whole(release); err != nil {
		return Usage{}, err
	}
	args := []any{c.tmpl.Prefix(release) + tasks.Reserved, weighOneIn}
	for _, f := range families {
		args = append(args, c.tmpl.Prefix(release)+f)
	}
	var mu sync.Mutex
	parts := map[string]*count{} // by server: one that is gone through again counts once
	err = c.everywhere(ctx, Work{Verb: verbCount}, func(ctx context.Context, w *work) error {
		n, err := w.usage(ctx, release, args)
		mu.Lock()
		defer mu.Unlock()
		parts[w.name()] = n
		return err
	})
	if err != nil {
		return Usage{}, err
	}
	var sum count
	for _, n := range parts {
		sum.entries, sum.weighed, sum.bytes = sum.entries+n.entries, sum.weighed+n.weighed, sum.bytes+n.bytes
		sum.others, sum.skipped, sum.reserved = sum.others+n.others, sum.skipped+n.skipped, sum.reserved+n.reserved
		sum.sample = append(sum.sample, n.sample...)
	}
	return sum.usage(), nil
}

// count is what usage.lua counts of a namespace.
type count struct {
	entries, weighed, bytes, others, skipped, reserved int64
	sample                                             []string
}

// usage counts what one server has.
func (w *work) usage(ctx context.Context, release string, args []any) (*count, error) {
	var u count
	for s, err := range w.slices(ctx, usageScript, nil, release, "", 0, args...) {
		if err != nil {
			return &u, err
		}
		for i, sum := range []*int64{&u.entries, &u.weighed, &u.bytes, &u.others, &u.skipped, &u.reserved} {
			n, ok := s.reply[i].(int64)
			if !ok {
				return &u, fmt.Errorf("usage: count is a %T", s.reply[i])
			}
			*sum += n
		}
		if u.sample, err = w.cache.sample(u.sample, release, s.reply[6:]); err != nil {
			return &u, err
		}
	}
	return &u, nil
}

// usage estimates the memory of what was counted.
func (n count) usage() Usage {
	u := Usage{Entries: n.entries, Reserved: n.reserved, Sample: n.sample[:min(usageSample, len(n.sample))]}
	if n.weighed > 0 {
		u.Bytes = int64(float64(n.bytes) / float64(n.weighed) * float64(n.entries))
	}
	others := n.others
	if n.skipped > 0 {
		others = int64(float64(others) * float64(n.entries) / float64(n.entries+n.skipped))
	}
	u.Bytes += others
	return u
}

// sample adds keys to a sample that has room for them.
func (c *Cache) sample(have []string, release string, raw []any) ([]string, error) {
	keys, err := texts(raw)
	for _, key := range keys {
		if logical, ok := c.tmpl.Logical(release, key); ok && len(have) < usageSample {
			have = append(have, logical)
		}
	}
	return have, err
}

// FieldExpiries reports whether fields of a hash may expire by themselves on the cache Redis: Redis
// from 7.4 on, Valkey from 9 on. Elsewhere an entry with such fields cannot be written.
func (c *Cache) FieldExpiries(ctx context.Context) (bool, error) {
	n, err := knowsScript.Run(ctx, c.client, []string{c.keys.DumpProbe()}).Int()
	if err != nil {
		return false, fmt.Errorf("ask for expiries of fields: %w", err)
	}
	return n == 1, nil
}

// Found tells of a key that was looked up.
type Found struct {
	Exists bool
	TTL    time.Duration // what is left; -1 when the entry never expires, 0 when there is none
}

// Lookup tells of each logical key whether the release has an entry for it. The answers are in
// the order of keys.
func (c *Cache) Lookup(ctx context.Context, release string, keys []string) (found []Found, err error) {
	defer wrap(&err, "look up in", release)
	if err := c.named(release); err != nil {
		return nil, err
	}
	for batch := range slices.Chunk(keys, lookupBatch) {
		cmds := make([]*redis.DurationCmd, len(batch))
		_, err := c.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, key := range batch {
				cmds[i] = p.PTTL(ctx, c.tmpl.Key(release, key))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		for _, cmd := range cmds {
			found = append(found, foundOf(cmd.Val()))
		}
	}
	return found, nil
}

// foundOf reads the answer of PTTL: -2 without a key, -1 without an expiry.
func foundOf(ttl time.Duration) Found {
	switch {
	case ttl == -2:
		return Found{}
	case ttl < 0:
		return Found{Exists: true, TTL: -1}
	}
	return Found{Exists: true, TTL: ttl}
}
