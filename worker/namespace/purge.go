package namespace

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

const (
	// purgePasses is how often a purge goes over the server before it concludes that someone
	// keeps writing to the namespace.
	purgePasses = 10
	// fenceTries is how often a fence is set again because the cache Redis has failed over.
	fenceTries = 5
	// fenceBatch is how many slots' fences one pipeline sets.
	fenceBatch = 1024
	// unfenceLimit is the time in which a purge removes its fences from a Cluster.
	unfenceLimit = 10 * time.Second
)

var (
	// ErrFenceLost ends a purge when a server has begun anew, or another has taken its place, since
	// the purge began: it may have forgotten the last token that was set, so that an earlier one
	// counts again. Whoever purges sets the fence again and looks again whether it still may.
	ErrFenceLost = fmt.Errorf("%w: a server of the cache Redis has restarted or failed over, and may have forgotten who may delete: set the fence again, then purge again", tasks.ErrRefused)

	errFence   = fmt.Errorf("%w: its fence no longer lets this work delete: the release has been taken back, or another purge of it runs", tasks.ErrRefused)
	errNoSlots = errors.New("slots are being moved to it, and it has none yet")
)

// SetFence says that only the holder of token may purge the release; "" lets nobody. It ends
// another holder's purge: when it has returned, no later slice deletes anything. The replicas know of it
// then, so that a failover forgets no fence.
func (c *Cache) SetFence(ctx context.Context, release, token string) (err error) {
	defer wrap(&err, "fence", release)
	if err := c.named(release); err != nil {
		return err
	}
	for range fenceTries {
		servers, err := c.Servers(ctx)
		if err != nil {
			return err
		}
		if err := c.setFence(ctx, release, token); err != nil {
			return err
		}
		if now, err := c.Replicated(ctx); err != nil || now == servers {
			return err
		}
	}
	return fmt.Errorf("the cache Redis has restarted or failed over %d times meanwhile", fenceTries)
}

func (c *Cache) setFence(ctx context.Context, release, token string) error {
	switch {
	case c.sharded:
		return c.setFences(ctx, release, token)
	case token == "":
		return c.client.Del(ctx, c.keys.Fence(release)).Err()
	}
	return c.client.Set(ctx, c.keys.Fence(release), token, 0).Err()
}

// Purge deletes the release's whole namespace, reserved keys included, and returns how many
// keys went. Every deleting step checks that the release's fence holds token and else deletes
// nothing more and returns ErrRefused. It returns nil only after a pass over all servers that
// found nothing left, and when the replicas know (see [Cache.Replicated]), so that no failover brings keys
// back. A server that restarts or fails over meanwhile ends it with [ErrFenceLost].
//
// progress, which may be nil, gets the number deleted so far, by one goroutine at a time. It is called
// for the first time before the first deletion, when all that follows depends on the fence as it is
// now, so it is the place to look once more whether the release may be purged.
func (c *Cache) Purge(ctx context.Context, release, token string, progress func(deleted int64)) (deleted int64, err error) {
	defer wrap(&err, "purge", release)
	if err := c.whole(release); err != nil {
		return 0, err
	}
	if token == "" {
		return 0, fmt.Errorf("%w: an empty fence token", tasks.ErrInvalid)
	}
	p := &purge{cache: c, release: release, token: token, progress: progress, runs: map[string]bool{}}
	if c.sharded {
		defer p.unfence(ctx)
	}
	servers, err := c.Servers(ctx)
	if err != nil {
		return 0, err
	}
	for range purgePasses {
		before := p.deleted
		err := c.everywhere(ctx, Work{Verb: verbDelete}, p.visit)
		if err != nil {
			return p.deleted, p.why(ctx, servers, err)
		}
		if p.deleted == before {
			return p.deleted, p.kept(ctx, servers)
		}
		p.passed = true
	}
	return p.deleted, fmt.Errorf("%w: after %d passes keys still appear: stop what writes to the release, then purge again", tasks.ErrRefused, purgePasses)
}

// purge is one run of Purge.
type purge struct {
	cache          *Cache
	release, token string
	passed         bool // a pass over all servers has ended

	mu       sync.Mutex
	progress func(int64)     // called with mu held
	runs     map[string]bool // the processes that were there at the beginning, by run ID
	deleted  int64
}

// visit deletes what one server has.
func (p *purge) visit(ctx context.Context, w *work) error {
	fence, err := p.fence(w)
	if err != nil || fence == "" {
		return err
	}
	run, err := w.runID(ctx)
	if err != nil {
		return err
	}
	if err := p.admit(ctx, run, p.passed || w.late); err != nil {
		return err
	}
	err = w.sweep(ctx, p.release, "", []string{fence}, p.count, "", p.cache.together(), p.token, run)
	if errors.Is(err, errFence) && w.shard != nil {
		return p.refused(ctx, fence)
	}
	return err
}

// fence returns the fence that the deletions on a server check. Any that the server has will do. It is
// "" for a primary that holds no keys, since it has no slots.
func (p *purge) fence(w *work) (string, error) {
	if w.shard == nil {
		return p.cache.keys.Fence(p.release), nil
	}
	slot := w.shard.fenceSlot()
	switch {
	case slot >= 0:
		return p.cache.slotFence(p.release, slot), nil
	case w.shard.importing:
		return "", errNoSlots
	}
	return "", nil
}

// admit lets a process be purged that was there when the purge began, and no other.
func (p *purge) admit(ctx context.Context, run string, late bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.runs[run]:
	case late:
		return ErrFenceLost
	default:
		p.runs[run] = true
		if p.progress != nil {
			p.progress(p.deleted)
		}
	}
	return ctx.Err()
}

func (p *purge) count(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deleted += n
	if p.progress != nil {
		p.progress(p.deleted)
	}
}

// refused tells a fence that holds another token from one that was not there yet because its slot was
// coming back to the server.
func (p *purge) refused(ctx context.Context, fence string) error {
	if token, err := p.cache.client.Get(ctx, fence).Result(); err == nil && token == p.token {
		return errNoSlots
	}
	return errFence
}

// kept returns nil when servers, as noted before all that was deleted, are those of now, and no failover to
// a replica can bring back what was deleted.
func (p *purge) kept(ctx context.Context, servers string) error {
	now, err := p.cache.Replicated(ctx)
	if err == nil && now != servers {
		return ErrFenceLost
	}
	return err
}

// why tells a fence that somebody else has taken from one that a server which restarted has forgotten.
func (p *purge) why(ctx context.Context, servers string, err error) error {
	if !errors.Is(err, errFence) {
		return err
	}
	if now, other := p.cache.Servers(ctx); other == nil && now != servers {
		return ErrFenceLost
	}
	return err
}

// slotFence is the release's fence in one slot of a Cluster.
func (c *Cache) slotFence(release string, slot int) string {
	return c.keys.SlotFence(release, slotTags()[slot])
}

// setFences sets the release's fence in every slot of a Cluster.
func (c *Cache) setFences(ctx context.Context, release, token string) error {
	return c.fences(ctx, func(p redis.Pipeliner, slot int) {
		key := c.slotFence(release, slot)
		if token == "" {
			p.Unlink(ctx, key)
		} else {
			p.Set(ctx, key, token, 0)
		}
	})
}

// unfence removes what fences still hold the purge's token: 16,384 keys are too many to leave. Without
// them nobody may delete, as with another's.
func (p *purge) unfence(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unfenceLimit)
	defer cancel()
	// What an error leaves goes with the next purge of the release.
	_ = p.cache.fences(ctx, func(pipe redis.Pipeliner, slot int) {
		unfenceScript.EvalSha(ctx, pipe, []string{p.cache.slotFence(p.release, slot)}, p.token)
	})
}

// fences sends a command for each slot of a Cluster.
func (c *Cache) fences(ctx context.Context, queue func(p redis.Pipeliner, slot int)) error {
	for from := 0; from < slotCount; from += fenceBatch {
		err := c.patiently(ctx, func() error {
			_, err := c.timed(ctx, c.client, func(p redis.Pipeliner) {
				for slot := from; slot < from+fenceBatch; slot++ {
					queue(p, slot)
				}
			})
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
