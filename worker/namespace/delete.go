package namespace

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

const (
	// purgePasses is how often a purge goes over the server before it concludes that someone
	// keeps writing to the namespace.
	purgePasses = 10
	// removeBatch is how many named keys one pipeline holds.
	removeBatch = 500
)

// SetFence says that only the holder of token may purge the release; "" lets nobody. It ends
// another holder's purge: its next slice deletes nothing.
func (c *Cache) SetFence(ctx context.Context, release, token string) (err error) {
	defer wrap(&err, "fence", release)
	if err := c.named(release); err != nil {
		return err
	}
	if c.sharded {
		return c.fenceSlots(ctx, release, token)
	}
	if token == "" {
		return c.client.Del(ctx, c.keys.Fence(release)).Err()
	}
	return c.client.Set(ctx, c.keys.Fence(release), token, 0).Err()
}

// Purge deletes the release's whole namespace, reserved keys included, and returns how many
// keys went. Every deleting step checks that the release's fence holds token and else deletes
// nothing more and returns ErrRefused. It returns nil only after a pass over the whole server
// that found nothing left. progress, which may be nil, gets the number deleted so far.
func (c *Cache) Purge(ctx context.Context, release, token string, progress func(deleted int64)) (deleted int64, err error) {
	defer wrap(&err, "purge", release)
	if err := c.named(release); err != nil {
		return 0, err
	}
	if token == "" {
		return 0, fmt.Errorf("%w: an empty fence token", tasks.ErrInvalid)
	}
	w := c.work(ctx, Work{Verb: verbDelete})
	for range purgePasses {
		n, err := w.sweep(ctx, release, "", c.fenced(release, token), func(n int64) {
			if progress != nil {
				progress(deleted + n)
			}
		})
		deleted += n
		if err != nil {
			return deleted, err
		}
		if n == 0 {
			return deleted, c.liftFence(ctx, release, token)
		}
	}
	return deleted, fmt.Errorf("%w: after %d passes keys still appear: stop what writes to the release, then purge again", tasks.ErrRefused, purgePasses)
}

// Unlink deletes the release's entries whose logical key begins with prefix ("" for all) and
// returns how many went. Reserved keys stay.
func (c *Cache) Unlink(ctx context.Context, release, prefix string) (deleted int64, err error) {
	defer wrap(&err, "unlink in", release)
	if err := c.named(release); err != nil {
		return 0, err
	}
	if err := unreserved(prefix); err != nil {
		return 0, err
	}
	return c.work(ctx, Work{Verb: verbDelete}).sweep(ctx, release, prefix, c.unfenced(c.tmpl.Prefix(release)+tasks.Reserved), func(int64) {})
}

// fenced is the job of deleting all keys of a release whose fence holds the token.
func (c *Cache) fenced(release, token string) job {
	return job{script: deleteScript, keys: []string{c.keys.Fence(release)}, args: []any{"", token}, one: func(ctx context.Context, p redis.Pipeliner, key string) *redis.Cmd {
		return unlinkScript.EvalSha(ctx, p, []string{key, c.keys.FenceIn(release, tasks.Slot(key))}, token)
	}}
}

// unfenced is the job of deleting all keys but those that begin with stay.
func (c *Cache) unfenced(stay string) job {
	return job{script: deleteScript, args: []any{stay}, one: func(ctx context.Context, p redis.Pipeliner, key string) *redis.Cmd {
		if strings.HasPrefix(key, stay) {
			return nil
		}
		return unlinkScript.EvalSha(ctx, p, []string{key})
	}}
}

// sweep does a job of deleting on the release's keys under a logical prefix.
func (w *work) sweep(ctx context.Context, release, prefix string, j job, progress func(int64)) (deleted int64, err error) {
	for s, err := range w.slices(ctx, j, release, prefix, 0) {
		if err != nil {
			return deleted, err
		}
		var gone int64
		for _, r := range s.replies {
			n, ok := r.values[0].(int64)
			if !ok {
				return deleted, fmt.Errorf("delete: count is a %T", r.values[0])
			}
			if n < 0 {
				return deleted + gone, fmt.Errorf("%w: the fence no longer lets this work delete: the release has been taken back, or another purge of it runs", tasks.ErrRefused)
			}
			gone += n
		}
		if gone > 0 {
			deleted += gone
			progress(deleted)
		}
	}
	return deleted, nil
}

// Remove deletes the named entries, logical keys, and returns how many there were.
func (c *Cache) Remove(ctx context.Context, release string, keys []string) (removed int64, err error) {
	defer wrap(&err, "remove from", release)
	if err := c.named(release); err != nil {
		return 0, err
	}
	for _, key := range keys {
		if err := unreserved(key); err != nil {
			return 0, err
		}
	}
	for batch := range slices.Chunk(keys, removeBatch) {
		// One command a key: in a cluster they may live on different nodes.
		cmds, err := c.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, key := range batch {
				p.Unlink(ctx, c.tmpl.Key(release, key))
			}
			return nil
		})
		if err != nil {
			return removed, err
		}
		for _, cmd := range cmds {
			if n, ok := cmd.(*redis.IntCmd); ok {
				removed += n.Val()
			}
		}
	}
	return removed, nil
}

// unreserved refuses what begins like a reserved key.
func unreserved(logical string) error {
	if strings.HasPrefix(logical, tasks.Reserved) {
		return fmt.Errorf("%w: %s: keys that begin with %s are stoker's own", tasks.ErrInvalid, tasks.Bytes(logical), tasks.Reserved)
	}
	return nil
}
