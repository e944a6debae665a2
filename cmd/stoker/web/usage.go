package web

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// Limits of counting. A count scans a whole namespace, so however often the page is looked at,
// at most one count runs at a time, and a release's next count waits ten times as long as its
// last one took.
const (
	countEvery = 15 * time.Second
	countRest  = 10 // times what the last count took
	countLimit = 30 * time.Second
	countWait  = 400 * time.Millisecond // what a page waits for a first count
)

// Usage is the size of a namespace.
type Usage struct {
	Entries, Bytes int64 // Bytes is an estimate
}

// count is a release's last count.
type count struct {
	Usage
	at    time.Time // of its end; zero: never counted
	next  time.Time // not counted again before
	Known bool      // false: no count has succeeded yet
}

// counts remembers how large namespaces are. It is safe for concurrent use.
type counts struct {
	usage func(ctx context.Context, release string) (Usage, error)
	now   func() time.Time
	wait  time.Duration

	flight singleflight.Group
	one    chan struct{} // held while a count runs

	mu   sync.Mutex
	last map[string]count
}

func newCounts(usage func(context.Context, string) (Usage, error), now func() time.Time) *counts {
	return &counts{usage: usage, now: now, wait: countWait, one: make(chan struct{}, 1), last: map[string]count{}}
}

// of returns the release's last count, and starts another when it is old. It waits, briefly,
// only where there is no count yet.
func (c *counts) of(ctx context.Context, release string) count {
	have := c.have(release)
	if c.now().Before(have.next) {
		return have
	}
	done := c.flight.DoChan(release, func() (any, error) { return c.count(release), nil })
	if have.Known {
		return have
	}
	limit := time.NewTimer(c.wait)
	defer limit.Stop()
	select {
	case r := <-done:
		return r.Val.(count)
	case <-limit.C:
	case <-ctx.Done():
	}
	return have
}

// count counts on its own time: who asked for it may be gone before it ends.
func (c *counts) count(release string) count {
	c.one <- struct{}{}
	defer func() { <-c.one }()
	started := c.now()
	if have := c.have(release); started.Before(have.next) { // counted since the caller looked
		return have
	}
	ctx, cancel := context.WithTimeout(context.Background(), countLimit)
	defer cancel()
	usage, err := c.usage(ctx, release)
	ended := c.now()

	got := c.have(release) // a count that failed leaves the one before it
	got.next = ended.Add(max(countEvery, countRest*ended.Sub(started)))
	if err == nil {
		got.Usage, got.at, got.Known = usage, ended, true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last[release] = got
	return got
}

func (c *counts) have(release string) count {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last[release]
}
