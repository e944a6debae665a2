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
	if err := c.whole(release); err != nil {
		return 0, err
	}
	if token == "" {
		return 0, fmt.Errorf("%w: an empty fence token", tasks.ErrInvalid)
	}
	w, fence := c.work(ctx, Work{Verb: verbDelete}), []string{c.keys.Fence(release)}
	for range purgePasses {
		n, err := w.sweep(ctx, release, "", fence, func(n int64) {
			if progress != nil {
				progress(deleted + n)
			}
		}, "", token)
		deleted += n
		if err != nil || n == 0 {
			return deleted, err
		}
	}
	return deleted, fmt.Errorf("%w: after %d passes keys still appear: stop what writes to the release, then purge again", tasks.ErrRefused, purgePasses)
}

// Unlink deletes the release's entries whose logical key begins with prefix ("" for all) and
// returns how many went. Reserved keys stay.
func (c *Cache) Unlink(ctx context.Context, release, prefix string) (deleted int64, err error) {
	defer wrap(&err, "unlink in", release)
	if err := c.whole(release); err != nil {
		return 0, err
	}
	if err := unreserved(prefix); err != nil {
		return 0, err
	}
	return c.work(ctx, Work{Verb: verbDelete}).sweep(ctx, release, prefix, nil, func(int64) {}, c.tmpl.Prefix(release)+tasks.Reserved)
}

// sweep runs the delete script over the release's keys under a logical prefix.
func (w *work) sweep(ctx context.Context, release, prefix string, fence []string, progress func(int64), args ...any) (deleted int64, err error) {
	for s, err := range w.slices(ctx, deleteScript, fence, release, prefix, 0, args...) {
		if err != nil {
			return deleted, err
		}
		n, ok := s.reply[0].(int64)
		if !ok {
			return deleted, fmt.Errorf("delete: count is a %T", s.reply[0])
		}
		if n < 0 {
			return deleted, fmt.Errorf("%w: the fence %q no longer lets this work delete: the release has been taken back, or another purge of it runs", tasks.ErrRefused, fence[0])
		}
		if n > 0 {
			deleted += n
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
