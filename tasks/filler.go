package tasks

import (
	"context"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// Filler fills many entries of a namespace at once, in the steps of [Client.Fetch]: lease, mark, load,
// put on probation, check, settle. It is for whoever loads for others, such as a worker that
// refreshes; an app server fills what its visitors ask for. It is safe for concurrent use.
type Filler struct {
	journal *Journal
	cache   redis.UniversalClient
	tmpl    Template
	limit   time.Duration // of probation
	lister  lister
}

// NewFiller returns a filler for the cache whose keys tmpl makes. limit is the app servers' own fill
// limit (STOKER_FILL_LIMIT).
func NewFiller(journal *Journal, cache redis.UniversalClient, tmpl Template, limit time.Duration) *Filler {
	return &Filler{journal: journal, cache: cache, tmpl: tmpl, limit: limit}
}

// Filling is one load of some entries of a release. It is used by one goroutine.
type Filling struct {
	// Mark was taken before anything was loaded.
	Mark Mark

	f       *Filler
	release string
	token   string // of its leases
	leased  map[string]bool
	server  time.Time // the cache server's clock when the process's was began
	began   time.Time
}

// Filled is a loaded entry to store. Its type must be [EntryString].
type Filled struct {
	Entry
	Tags []string
}

// Begin leases keys, so that nobody else loads them meanwhile, and takes the mark. A key that another
// loader holds is not leased (see [Filling.Leased]). End the filling.
func (f *Filler) Begin(ctx context.Context, release string, keys []string) (*Filling, error) {
	b := &Filling{f: f, release: release, token: rand.Text(), leased: map[string]bool{}, began: time.Now()}
	var err error
	if b.server, err = f.cache.Time(ctx).Result(); err != nil {
		return nil, fmt.Errorf("begin to fill: %w", err)
	}
	won := make([]*redis.BoolCmd, len(keys))
	if len(keys) > 0 {
		_, err = f.cache.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, key := range keys {
				won[i] = p.SetNX(ctx, f.tmpl.Key(release, LeaseKey(key)), b.token, f.limit)
			}
			return nil
		})
	}
	for i, key := range keys {
		b.leased[key] = won[i].Val()
	}
	if err == nil {
		b.Mark, err = f.journal.Mark(ctx)
	}
	if err != nil {
		b.End(ctx)
		return nil, fmt.Errorf("begin to fill %d keys: %w", len(keys), err)
	}
	return b, nil
}

// Leased reports whether the filling holds the key's lease.
func (b *Filling) Leased(key string) bool { return b.leased[key] }

// Store puts loaded entries into the namespace and reports which of them stay: not those that were
// invalidated since the mark, nor any when the fill limit is over. After an error what was put
// vanishes at the fill limit.
func (b *Filling) Store(ctx context.Context, entries []Filled) (stored []bool, err error) {
	stored = make([]bool, len(entries))
	if len(entries) == 0 || time.Since(b.began) >= b.f.limit-fillJitter {
		return stored, nil
	}
	fail := func(err error) ([]bool, error) {
		return make([]bool, len(entries)), fmt.Errorf("fill %d entries: %w", len(entries), err)
	}
	probations, err := b.put(ctx, entries)
	if err != nil {
		return fail(err)
	}
	stale, err := b.f.journal.Check(ctx, b.release, b.Mark, tagged(entries))
	if err != nil {
		return fail(err)
	}
	settled := make([]*redis.Cmd, len(entries))
	_, err = b.f.cache.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, e := range entries {
			final := e.ExpiresAt
			if stale[i] {
				final = -1
			}
			keys, args := settleArgs(b.f.cache, b.f.tmpl, b.release, e.Key, string(e.Value), e.Tags, probations[i], final)
			settled[i] = settleScript.Eval(ctx, p, keys, args...)
		}
		return nil
	})
	if err != nil {
		return fail(err)
	}
	for i, s := range settled {
		n, err := s.Int()
		stored[i] = err == nil && n == 1 && !stale[i]
	}
	return stored, nil
}

func tagged(entries []Filled) []Tagged {
	out := make([]Tagged, len(entries))
	for i, e := range entries {
		out[i] = Tagged{e.Key, e.Tags}
	}
	return out
}

// put lists and sets entries, each with a probation of its own, in Unix milliseconds.
func (b *Filling) put(ctx context.Context, entries []Filled) (probations []int64, err error) {
	list := func(p redis.Pipeliner) {
		for _, e := range entries {
			score := "+inf"
			if e.ExpiresAt != 0 {
				score = strconv.FormatInt(e.ExpiresAt, 10)
			}
			for _, t := range e.Tags {
				p.Do(ctx, "ZADD", b.f.tmpl.Key(b.release, TagIndex(t)), score, e.Key)
			}
		}
	}
	probations = make([]int64, len(entries))
	set := func(p redis.Pipeliner) {
		for i, e := range entries {
			probations[i] = b.server.Add(b.f.limit).UnixMilli() - mathrand.Int64N(fillJitter.Milliseconds())
			p.Do(ctx, "SET", b.f.tmpl.Key(b.release, e.Key), e.Value, "PXAT", probations[i])
		}
	}
	note := func(p redis.Pipeliner) {
		b.f.lister.note(ctx, p, b.f.tmpl, b.release, b.server.UnixMilli(), tagged(entries)...)
	}
	return probations, put(ctx, b.f.cache, note, list, set)
}

// End gives the leases back, even when ctx was cancelled. What it cannot give back ends by itself.
func (b *Filling) End(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_, _ = b.f.cache.Pipelined(ctx, func(p redis.Pipeliner) error {
		for key, leased := range b.leased {
			if leased {
				releaseScript.Eval(ctx, p, []string{b.f.tmpl.Key(b.release, LeaseKey(key))}, b.token)
			}
		}
		return nil
	})
}
