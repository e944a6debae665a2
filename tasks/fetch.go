package tasks

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed lease.lua
	leaseLua string
	//go:embed settle.lua
	settleLua string
	//go:embed release.lua
	releaseLua string

	leaseScript   = redis.NewScript(leaseLua)
	settleScript  = redis.NewScript(settleLua)
	releaseScript = redis.NewScript(releaseLua)
)

// Fetched is what Fetch found.
type Fetched struct {
	Value   []byte
	Hit     bool   // it came from the cache
	Stored  bool   // it was loaded and is now in the cache
	Release string // whose namespace was read
}

const (
	// leaseWait is how long a reader waits for another one's load before it loads by itself.
	leaseWait = 300 * time.Millisecond
	// fillJitter makes the probation expiry of a put its own: settle.lua knows a value by it.
	fillJitter = 500 * time.Millisecond
)

// Fetch reads an entry through the cache: from the release's namespace, or from load, whose
// value is then stored under key for ttl (0: without expiry) and listed under tags. One reader
// at a time loads a missing entry; the others wait briefly, then load without storing.
//
// A load that an invalidation of the key, a tag or a prefix overtakes is returned but not kept,
// however late its put arrives. Only load's errors are returned: when a Redis cannot be reached
// the page is still served, without its cache.
func (c *Client) Fetch(ctx context.Context, key string, tags []string, ttl time.Duration, load func(context.Context) ([]byte, error)) (Fetched, error) {
	if err := validateTags(tags); err != nil {
		return Fetched{}, fmt.Errorf("fetch: %w", err)
	}
	return c.FetchTagged(ctx, key, ttl, func(ctx context.Context) ([]byte, []string, error) {
		value, err := load(ctx)
		return value, tags, err
	})
}

// loader reads an entry's value and its tags from the origin.
type loader = func(ctx context.Context) (value []byte, tags []string, err error)

// FetchTagged is [Client.Fetch] for an entry whose tags are known only when it is loaded, because
// they depend on what it holds: the authors of an article, the posts in a list. From
// then on the entry answers to these tags and no longer to those it had before.
func (c *Client) FetchTagged(ctx context.Context, key string, ttl time.Duration, load loader) (Fetched, error) {
	if err := validateFill(key, ttl); err != nil {
		return Fetched{}, fmt.Errorf("fetch: %w", err)
	}
	release, err := c.Release(ctx)
	if err != nil {
		return c.bypass(ctx, Fetched{}, load)
	}
	out := Fetched{Release: release}
	if hit, err := c.get(ctx, &out, key); hit || err != nil {
		if err != nil {
			return c.bypass(ctx, out, load)
		}
		return out, nil
	}
	f := &fill{c: c, release: release, key: key, ttl: ttl, token: rand.Text()}
	leased, err := f.begin(ctx)
	if err == nil && !leased {
		if c.awaitOther(ctx, &out, f) {
			return out, nil
		}
		leased, err = f.begin(ctx) // the other may have ended without storing
	}
	if err != nil || !leased {
		return c.bypass(ctx, out, load)
	}
	defer f.end(ctx)
	if out.Value, f.tags, err = load(ctx); err != nil {
		return Fetched{Release: release}, err
	}
	if err := validateTags(f.tags); err != nil {
		return out, fmt.Errorf("fetch: %w", err)
	}
	out.Stored = f.store(ctx, out.Value)
	return out, nil
}

func validateTags(tags []string) error {
	for _, t := range tags {
		if err := (Target{KindTag, Bytes(t)}).Validate(); err != nil {
			return err
		}
	}
	return nil
}

func validateFill(key string, ttl time.Duration) error {
	if err := (Target{KindKey, Bytes(key)}).Validate(); err != nil {
		return err
	}
	if ttl < 0 || ttl > 0 && ttl < time.Second {
		return fmt.Errorf("%w: ttl %v of key %s: use 0 (none) or at least 1s", ErrInvalid, ttl, Bytes(key))
	}
	return nil
}

// bypass loads without storing.
func (c *Client) bypass(ctx context.Context, out Fetched, load loader) (Fetched, error) {
	var err error
	out.Value, _, err = load(ctx)
	return out, err
}

func (c *Client) get(ctx context.Context, out *Fetched, key string) (hit bool, err error) {
	value, err := c.cache.Get(ctx, c.tmpl.Key(out.Release, key)).Bytes()
	switch {
	case err == nil:
		out.Value, out.Hit = value, true
		return true, nil
	case errors.Is(err, redis.Nil):
		return false, nil
	default:
		return false, err
	}
}

// awaitOther waits until the lease's holder has stored the entry, which it returns in out, or has
// ended, or for [leaseWait].
func (c *Client) awaitOther(ctx context.Context, out *Fetched, f *fill) (hit bool) {
	deadline := time.Now().Add(leaseWait)
	for pause := 2 * time.Millisecond; time.Now().Before(deadline); pause = min(2*pause, 20*time.Millisecond) {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
		}
		// The lease first: when it is gone and the entry is missing, nobody is about to store it.
		held, err := c.cache.Exists(ctx, f.leaseKey()).Result()
		if err != nil {
			return false
		}
		if hit, err := c.get(ctx, out, f.key); hit || err != nil || held == 0 {
			return hit
		}
	}
	return false
}

// fill is one read-through of one entry: lease, mark, load, put, check, settle. Nothing that is
// not checked outlives the fill limit: the put carries an absolute expiry at the limit, so that
// a put that arrives later stores nothing, and one whose filler dies vanishes by itself.
type fill struct {
	c            *Client
	release, key string
	tags         []string
	ttl          time.Duration
	token        string // of the lease

	began    time.Time // this process's clock when the server's was serverMS
	serverMS int64
	mark     Mark
}

// begin takes the lease, then the mark; false when another loader holds the lease.
func (f *fill) begin(ctx context.Context) (bool, error) {
	limit := f.c.cfg.FillLimit.Milliseconds()
	f.began = time.Now()
	reply, err := leaseScript.Run(ctx, f.c.cache, []string{f.leaseKey()}, f.token, limit).Int64Slice()
	if err != nil {
		return false, fmt.Errorf("lease %s: %w", Bytes(f.key), err)
	}
	f.serverMS = reply[1]
	if reply[0] == 0 {
		return false, nil
	}
	if f.mark, err = f.c.journal.Mark(ctx); err != nil {
		f.end(ctx)
		return false, err
	}
	return true, nil
}

// store puts the value on probation, checks it against the log, and settles it for good or
// drops it. It reports whether the value stays. Errors leave it to its probation.
func (f *fill) store(ctx context.Context, value []byte) bool {
	probation := f.serverMS + f.c.cfg.FillLimit.Milliseconds() - mathrand.Int64N(fillJitter.Milliseconds())
	if time.Since(f.began) >= f.c.cfg.FillLimit-fillJitter {
		return false
	}
	final, score := int64(0), "+inf"
	if f.ttl > 0 {
		final = f.serverMS + (time.Since(f.began) + f.ttl).Milliseconds()
		score = strconv.FormatInt(final, 10)
	}
	key := f.c.tmpl.Key(f.release, f.key)
	list := func(p redis.Pipeliner) {
		for _, t := range f.tags {
			p.Do(ctx, "ZADD", f.c.tmpl.Key(f.release, TagIndex(t)), score, f.key)
		}
	}
	set := func(p redis.Pipeliner) { p.Do(ctx, "SET", key, value, "PXAT", probation) }
	entry := Tagged{f.key, f.tags}
	note := func(p redis.Pipeliner) { f.c.lister.note(ctx, p, f.c.tmpl, f.release, f.serverMS, entry) }
	if put(ctx, f.c.cache, note, list, set) != nil {
		return false
	}
	stale, err := f.c.journal.Check(ctx, f.release, f.mark, []Tagged{entry})
	if err != nil {
		return false
	}
	if stale[0] {
		final = -1
	}
	keys, args := settleArgs(f.c.cache, f.c.tmpl, f.release, f.key, string(value), f.tags, probation, final)
	settled, err := settleScript.Run(ctx, f.c.cache, keys, args...).Int()
	return err == nil && settled == 1 && !stale[0]
}

// put sends what lists entries in the indexes of their tags, then what sets them: in one go, but on a
// Cluster, whose servers work through a pipeline side by side, and where what is to be listed is noted first.
func put(ctx context.Context, cache redis.UniversalClient, note, list, set func(redis.Pipeliner)) error {
	steps := []func(redis.Pipeliner){func(p redis.Pipeliner) { list(p); set(p) }}
	if Sharded(cache) {
		steps = []func(redis.Pipeliner){note, list, set}
	}
	for _, step := range steps {
		if _, err := cache.Pipelined(ctx, func(p redis.Pipeliner) error { step(p); return nil }); err != nil {
			return err
		}
	}
	return nil
}

// settleArgs are settle.lua's: the entry goes from its probation to its final expiry, -1 for one that
// is to be dropped, and gets a companion where it can have one.
func settleArgs(cache redis.UniversalClient, tmpl Template, release, key, value string, tags []string, probation, final int64) (keys []string, args []any) {
	keys, args = []string{tmpl.Key(release, key)}, []any{probation, final}
	if note := Companion(value, final, tags); note != "" && !Sharded(cache) {
		keys = append(keys, tmpl.Key(release, CompanionKey(key)))
		args = append(args, note)
	}
	return keys, args
}

// end gives the lease back, even when the request was cancelled.
func (f *fill) end(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	// On an error the lease ends by itself at the fill limit.
	_ = releaseScript.Run(ctx, f.c.cache, []string{f.leaseKey()}, f.token).Err()
}

func (f *fill) leaseKey() string { return f.c.tmpl.Key(f.release, LeaseKey(f.key)) }

// FillScripts returns, by file name, the scripts of a fill, for clients in other languages: the very
// ones that [Client.Fetch] runs. deploy/fill.md says what each is for.
func FillScripts() map[string]string {
	return map[string]string{
		"lease.lua": leaseLua, "mark.lua": markLua, "check.lua": checkLua, "settle.lua": settleLua, "release.lua": releaseLua,
	}
}
