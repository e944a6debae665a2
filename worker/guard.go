package worker

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// safePolicy is the only eviction policy under which a queue Redis loses nothing in silence.
const safePolicy = "noeviction"

// CheckQueueRedis refuses a queue Redis that may evict: it could lose invalidations, tasks and
// the ledger without a trace. allow lets it pass with a warning, and so does a server that does
// not tell its policy. A server that does not answer is an error.
func CheckQueueRedis(ctx context.Context, queue redis.UniversalClient, allow bool, log *slog.Logger) error {
	if err := queue.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("reach the queue Redis: %w", err)
	}
	policies, err := policies(ctx, queue)
	if err != nil {
		log.Warn("eviction policy of the queue Redis unknown: make sure it is noeviction", "error", err)
		return nil
	}
	for _, policy := range policies {
		switch {
		case policy == safePolicy:
		case policy == "":
			log.Warn("eviction policy of the queue Redis unknown: make sure it is noeviction")
		case allow:
			log.Warn("queue Redis may evict: invalidations and tasks can be lost without a trace", "policy", policy)
		default:
			return fmt.Errorf("%w: the queue Redis has maxmemory-policy %q and may evict invalidations and tasks: set it to %s, or use another Redis for STOKER_REDIS_URL (STOKER_ALLOW_QUEUE_EVICTION_AND_LOSE_INVALIDATIONS=true takes the risk)", tasks.ErrRefused, policy, safePolicy)
		}
	}
	return nil
}

// policies returns the eviction policy of every master, "" where it is not told. INFO tells it
// where hosted servers withhold CONFIG.
func policies(ctx context.Context, queue redis.UniversalClient) ([]string, error) {
	servers, err := tasks.Primaries(ctx, queue)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, c := range servers {
		p, err := policy(ctx, c)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

func policy(ctx context.Context, c redis.Cmdable) (string, error) {
	info, err := c.Info(ctx, "memory").Result()
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(info) {
		if p, ok := strings.CutPrefix(strings.TrimSpace(line), "maxmemory_policy:"); ok {
			return p, nil
		}
	}
	return "", nil
}
