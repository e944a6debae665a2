package namespace

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

const (
	// removeBatch is how many named keys one pipeline holds.
	removeBatch = 500
	// keysTogether is how many keys one command of a sweep deletes: it costs as much as some keys do.
	keysTogether = 1000
)

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
	var mu sync.Mutex
	err = c.everywhere(ctx, Work{Verb: verbDelete}, func(ctx context.Context, w *work) error {
		return w.sweep(ctx, release, prefix, nil, func(n int64) {
			mu.Lock()
			defer mu.Unlock()
			deleted += n
		}, c.tmpl.Prefix(release)+tasks.Reserved, c.together())
	})
	return deleted, err
}

// together is how many keys one command may name: on a Cluster they would have to share a slot.
func (c *Cache) together() int {
	if c.sharded {
		return 1
	}
	return keysTogether
}

// sweep runs the delete script over the release's keys under a logical prefix, and hands the number of
// keys of each slice to count. A refusal of the script ends it, by an error that wraps errFence
// or errProcess.
func (w *work) sweep(ctx context.Context, release, prefix string, fence []string, count func(int64), args ...any) error {
	for s, err := range w.slices(ctx, deleteScript, fence, release, prefix, 0, args...) {
		if err != nil {
			return err
		}
		n, ok := s.reply[0].(int64)
		switch {
		case !ok:
			return fmt.Errorf("delete: count is a %T", s.reply[0])
		case n == otherToken:
			return errFence
		case n == otherProcess:
			return ErrFenceLost
		case n > 0:
			count(n)
		}
	}
	return nil
}

// What the delete script returns for a count when it deletes nothing.
const (
	otherToken   = -1
	otherProcess = -2
)

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
