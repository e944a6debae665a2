package namespace

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

const (
	// weighOneIn is how many entries stand behind each one that Usage weighs.
	weighOneIn = 16
	// estimateKeys is how many keys of a server an Estimate looks at: of a namespace that has a quarter
	// of them it finds 25,000, and is off by half a percent or so.
	estimateKeys = 100_000
	// estimateStep is how many it looks at in one slice at least. SCAN tells not how many keys it has
	// passed, and passes a fraction of one more than it was asked for.
	estimateStep = 100
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
	About    bool     // the counts are estimates, too
}

// Usage counts the release's entries and estimates their memory. A key that SCAN returns twice
// counts twice, so on a server whose table is just growing the count may be a little high, and
// after a restart of the server in the middle much too high.
func (c *Cache) Usage(ctx context.Context, release string) (Usage, error) {
	return c.UsageOf(ctx, release, []string{""})
}

// UsageOf is [Cache.Usage] of the entries whose logical key begins with one of families, and of as
// large a part of the reserved keys.
func (c *Cache) UsageOf(ctx context.Context, release string, families []string) (Usage, error) {
	return c.measure(ctx, release, families, (*work).usage)
}

// EstimateOf is [Cache.UsageOf] in a time that does not grow with the server: of one with more than
// 100,000 keys, it looks at so many, from a random place on, and takes them for all.
func (c *Cache) EstimateOf(ctx context.Context, release string, families []string) (Usage, error) {
	return c.measure(ctx, release, families, (*work).estimate)
}

// measure adds up what count finds on each server.
func (c *Cache) measure(ctx context.Context, release string, families []string, measure func(w *work, ctx context.Context, release string, args []any) (*count, error)) (u Usage, err error) {
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
		n, err := measure(w, ctx, release, args)
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
		into := sum.sums()
		for i, figure := range n.sums() {
			*into[i] += *figure
		}
		sum.sample = append(sum.sample, n.sample...)
		sum.about = sum.about || n.about
	}
	return sum.usage(), nil
}

// count is what usage.lua counts of a namespace.
type count struct {
	entries, weighed, bytes, others, skipped, reserved int64
	sample                                             []string
	about                                              bool
}

// sums are the figures in the order in which the script returns them.
func (n *count) sums() [6]*int64 {
	return [...]*int64{&n.entries, &n.weighed, &n.bytes, &n.others, &n.skipped, &n.reserved}
}

// add adds a slice's.
func (n *count) add(c *Cache, release string, reply []any) (err error) {
	for i, sum := range n.sums() {
		figure, ok := reply[i].(int64)
		if !ok {
			return fmt.Errorf("usage: count is a %T", reply[i])
		}
		*sum += figure
	}
	n.sample, err = c.sample(n.sample, release, reply[len(n.sums()):])
	return err
}

// usage counts what one server has.
func (w *work) usage(ctx context.Context, release string, args []any) (*count, error) {
	var u count
	for s, err := range w.slices(ctx, usageScript, nil, release, "", 0, args...) {
		if err != nil {
			return &u, err
		}
		if err := u.add(w.cache, release, s.reply); err != nil {
			return &u, err
		}
	}
	return &u, nil
}

// estimate counts what a part of one server's keys has, and takes it for all of them.
func (w *work) estimate(ctx context.Context, release string, args []any) (*count, error) {
	keys, err := w.on.DBSize(ctx).Result()
	if err != nil || keys <= estimateKeys {
		return w.usage(ctx, release, args) // which tells the error, if there is one still
	}
	u, pattern := count{about: true}, w.cache.tmpl.Match(release, "")
	for at, looked := uint64(rand.Uint32()), 0; ; {
		n := max(w.count, estimateStep)
		s, next, err := w.step(ctx, usageScript, nil, append([]any{at, pattern, n}, args...))
		if err != nil {
			return &u, err
		}
		if err := u.add(w.cache, release, s.reply); err != nil {
			return &u, err
		}
		// A step that came to the table's end may have passed fewer; it is one in hundreds.
		if at, looked = next, looked+n; looked >= estimateKeys {
			u.scale(float64(keys) / float64(looked))
			return &u, nil
		}
	}
}

// scale makes the figures of a part those of the whole.
func (n *count) scale(by float64) {
	for _, sum := range n.sums() {
		*sum = int64(float64(*sum)*by + 0.5)
	}
}

// usage estimates the memory of what was counted.
func (n count) usage() Usage {
	u := Usage{Entries: n.entries, Reserved: n.reserved, Sample: n.sample[:min(usageSample, len(n.sample))], About: n.about}
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
