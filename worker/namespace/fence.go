package namespace

import (
	"context"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

const (
	// fenceLife is how long the fence in a Cluster's slots stays whose purge died. A purge that outlives
	// it is refused, and its retry puts up another.
	fenceLife = 24 * 60 * 60 * 1000 // ms
	// fenceBatch is how many slots one pipeline fences.
	fenceBatch = 1024
)

// fenceSlots puts a fence into every slot of a Cluster, or takes all down. One in each: the script that
// deletes a key sees its own slot only, and a slot that moves takes its fence along.
func (c *Cache) fenceSlots(ctx context.Context, release, token string) error {
	return c.eachSlot(ctx, func(p redis.Pipeliner, slot int) {
		if token == "" {
			p.Del(ctx, c.keys.FenceIn(release, slot))
		} else {
			p.Do(ctx, "SET", c.keys.FenceIn(release, slot), token, "PX", fenceLife)
		}
	})
}

// liftFence takes the many fences of a Cluster down when their purge has ended, but for those that
// another has put up meanwhile. On a single server the one fence stays.
func (c *Cache) liftFence(ctx context.Context, release, token string) error {
	if !c.sharded {
		return nil
	}
	return c.eachSlot(ctx, func(p redis.Pipeliner, slot int) {
		unfenceScript.EvalSha(ctx, p, []string{c.keys.FenceIn(release, slot)}, token)
	})
}

func (c *Cache) eachSlot(ctx context.Context, queue func(p redis.Pipeliner, slot int)) error {
	for from := 0; from < tasks.Slots; from += fenceBatch {
		err := patiently(ctx, func() error {
			_, err := c.timed(ctx, c.client, func(p redis.Pipeliner) {
				for slot := from; slot < from+fenceBatch; slot++ {
					queue(p, slot)
				}
			})
			return err
		}, passes)
		if err != nil {
			return err
		}
	}
	return nil
}
