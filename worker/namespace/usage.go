package namespace

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
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
	Entries int64    // entries, without reserved keys
	Bytes   int64    // an estimate of the server's memory: reserved keys weighed, entries sampled
	Sample  []string // logical keys of some entries
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
	if err := c.named(release); err != nil {
		return Usage{}, err
	}
	args := []any{c.tmpl.Prefix(release) + tasks.Reserved, weighOneIn}
	for _, f := range families {
		args = append(args, c.tmpl.Prefix(release)+f)
	}
	var weighed, bytes, others, skipped int64
	w := c.work(ctx, Work{Verb: verbCount})
	for s, err := range w.slices(ctx, weighing(args), release, "", 0) {
		if err != nil {
			return Usage{}, err
		}
		for _, r := range s.replies {
			for i, sum := range []*int64{&u.Entries, &weighed, &bytes, &others, &skipped} {
				n, ok := r.values[i].(int64)
				if !ok {
					return Usage{}, fmt.Errorf("usage: count is a %T", r.values[i])
				}
				*sum += n
			}
			if u.Sample, err = c.sample(u.Sample, release, r.values[5:]); err != nil {
				return Usage{}, err
			}
		}
	}
	if weighed > 0 {
		u.Bytes = int64(float64(bytes) / float64(weighed) * float64(u.Entries))
	}
	if skipped > 0 {
		others = int64(float64(others) * float64(u.Entries) / float64(u.Entries+skipped))
	}
	u.Bytes += others
	return u, nil
}

// weighing is the job of counting and weighing. On a Cluster, where each key is alone with its script,
// the key's hash decides whether it is weighed.
func weighing(args []any) job {
	j := byKey(usageScript, args...)
	each := append([]any{args[0], 0}, args[2:]...)
	seldom := byKey(usageScript, each...).one
	always := j.one
	j.one = func(ctx context.Context, p redis.Pipeliner, key string) *redis.Cmd {
		if xxhash.Sum64String(key)%weighOneIn == 0 {
			return always(ctx, p, key)
		}
		return seldom(ctx, p, key)
	}
	return j
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
