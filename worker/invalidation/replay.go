package invalidation

import (
	"context"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// Replayed says what a replay did.
type Replayed struct {
	Through int64 `json:"through"` // every invalidation up to this number is applied
	Targets int64 `json:"targets"`
	Removed int64 `json:"removed"` // entries
}

// Replay applies to one namespace every invalidation recorded after m. The release must be
// live, so that what is recorded from now on reaches it by itself. A mark the log cannot vouch
// for is refused with [tasks.ErrNotFresh]. Replaying again is harmless. What a failover of the cache
// Redis has undone so far is done again first.
func (a *Applier) Replay(ctx context.Context, release string, m Mark) (Replayed, error) {
	if _, err := a.Look(ctx); err != nil {
		return Replayed{}, fmt.Errorf("replay release %q: %w", release, err)
	}
	if err := a.log.Fresh(ctx, m); err != nil {
		return Replayed{}, fmt.Errorf("replay release %q: %w", release, err)
	}
	return a.ReplayRest(ctx, release, m)
}

// ReplayRest is Replay for the mark of a dead writer, which must be closed whatever became of the
// log: it applies what the log still holds. After a loss a namespace is then as fresh as the other
// live ones, which lack the lost records too, and not proved to be.
func (a *Applier) ReplayRest(ctx context.Context, release string, m Mark) (Replayed, error) {
	status, err := a.log.Status(ctx)
	if err != nil {
		return Replayed{}, fmt.Errorf("replay release %q: %w", release, err)
	}
	done := Replayed{Through: status.Last}
	for _, key := range []string{a.log.keys.Log(), a.log.keys.Prefixes()} {
		err := a.log.each(ctx, key, m.Number, status.Last, func(targets []tasks.Target) error {
			removed, _, err := a.remove(ctx, release, targets, nil, unlimited)
			if err != nil {
				return err
			}
			for _, n := range removed {
				done.Removed += n
			}
			done.Targets += int64(len(targets))
			n, err := a.removeCopies(ctx, release, targets)
			done.Removed += n
			return err
		})
		if err != nil {
			return done, fmt.Errorf("replay release %q: %w", release, err)
		}
	}
	return done, nil
}

// removeCopies removes what the other live namespaces list under the tags. A carry that died
// before it had copied the indexes left entries here that only its source can name.
func (a *Applier) removeCopies(ctx context.Context, release string, targets []tasks.Target) (removed int64, err error) {
	live, err := a.live(ctx)
	if err != nil {
		return 0, err
	}
	for _, t := range targets {
		if t.Kind != tasks.KindTag {
			continue
		}
		for _, other := range live {
			if other == release {
				continue
			}
			n, err := a.removeListed(ctx, release, other, string(t.Name))
			removed += n
			if err != nil {
				return removed, fmt.Errorf("remove copies of %s from %q: %w", t, other, err)
			}
		}
	}
	return removed, nil
}

// each visits the targets of one part of the log whose number lies in (after, through]. A
// target that is invalidated again meanwhile moves past through: it is pending, and so reaches
// every live namespace without us.
func (l *Log) each(ctx context.Context, key string, after, through int64, visit func([]tasks.Target) error) error {
	for after < through {
		page, err := l.queue.ZRangeByScoreWithScores(ctx, key, &redis.ZRangeBy{
			Min: "(" + strconv.FormatInt(after, 10), Max: strconv.FormatInt(through, 10), Count: slice,
		}).Result()
		if err != nil {
			return err
		}
		if len(page) == 0 {
			return nil
		}
		// The page may end between two targets of one number: take all of its last number.
		after = int64(page[len(page)-1].Score)
		last := strconv.FormatInt(after, 10)
		rest, err := l.queue.ZRangeByScore(ctx, key, &redis.ZRangeBy{Min: last, Max: last}).Result()
		if err != nil {
			return err
		}
		members := make([]string, 0, len(page)+len(rest))
		for _, z := range page {
			if int64(z.Score) != after {
				members = append(members, z.Member.(string))
			}
		}
		members = append(members, rest...)
		targets := make([]tasks.Target, len(members))
		for i, m := range members {
			if targets[i], err = tasks.ParseMember(m); err != nil {
				return err
			}
		}
		if err := visit(targets); err != nil {
			return err
		}
	}
	return nil
}
