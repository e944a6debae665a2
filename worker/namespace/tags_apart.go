package namespace

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// On a Cluster a tag's index and the entries that it lists are on different servers, so no script sees
// both. What prune.lua and carry.lua do in one step is done here in several, which go wrong in no way
// that matters: prune changes a member only while it has the score by which it was judged, and
// whoever lists an entry gives its member another one.

// memberWork works on some members of a tag's index, each with its score as the server writes it, and
// returns how many it counts.
type memberWork func(ctx context.Context, w *work, tag string, members, scores []string) (int64, error)

// indexesApart works on all members of all of the release's tag indexes and returns the sum of the
// counts. An index that moves to another server while it is gone through is gone through again
// there: a ZSCAN cursor is of use to one process only, as a SCAN's is.
func (c *Cache) indexesApart(ctx context.Context, release string, what Work, do memberWork) (sum int64, err error) {
	var mu sync.Mutex
	err = c.everywhere(ctx, what, func(ctx context.Context, w *work) error {
		for s, err := range w.slices(ctx, listScript, nil, release, tasks.TagPrefix(), 0) {
			if err != nil {
				return err
			}
			keys, err := texts(s.reply)
			if err != nil {
				return err
			}
			for _, key := range keys {
				n, err := w.index(ctx, release, key, do)
				mu.Lock()
				sum += n
				mu.Unlock()
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
	return sum, err
}

// index works on the members of one index that the server has.
func (w *work) index(ctx context.Context, release, key string, do memberWork) (sum int64, err error) {
	logical, _ := w.cache.tmpl.Logical(release, key)
	tag, ok := tasks.TagOf(logical)
	if !ok {
		return 0, nil
	}
	for cursor := "0"; ; {
		var step *redis.Cmd
		err := w.run(ctx, w.on, w.count, func(p redis.Pipeliner) {
			p.Do(ctx, "ASKING")
			step = p.Do(ctx, "ZSCAN", key, cursor, "COUNT", w.count)
		})
		if err != nil {
			return sum, err
		}
		reply, err := step.Slice()
		if err != nil || len(reply) != 2 {
			return sum, fmt.Errorf("tag %s: unexpected reply %v: %v", tasks.Bytes(tag), reply, err)
		}
		flat, err := texts(reply[1])
		if err != nil {
			return sum, fmt.Errorf("tag %s: %w", tasks.Bytes(tag), err)
		}
		var members, scores []string
		for pair := range slices.Chunk(flat, 2) {
			members, scores = append(members, pair[0]), append(scores, pair[1])
		}
		n, err := do(ctx, w, tag, members, scores)
		sum += n
		if err != nil {
			return sum, fmt.Errorf("tag %s: %w", tasks.Bytes(tag), err)
		}
		if cursor, _ = reply[0].(string); cursor == "0" {
			return sum, nil
		}
	}
}

// carrying is what carry.lua does.
type carrying struct {
	cache    *Cache
	src, dst string
	families []string
}

func (k carrying) members(ctx context.Context, w *work, tag string, members, scores []string) (int64, error) {
	c := k.cache
	var listed []redis.Z
	for i, m := range members {
		if slices.ContainsFunc(k.families, func(f string) bool { return strings.HasPrefix(m, f) }) {
			listed = append(listed, redis.Z{Score: parseScore(scores[i]), Member: m})
		}
	}
	if len(listed) == 0 {
		return 0, nil
	}
	there := make([][2]*redis.IntCmd, len(listed))
	err := w.run(ctx, c.client, len(listed), func(p redis.Pipeliner) {
		for i, z := range listed {
			// The source's entry may be gone since it was copied, so either entry counts.
			there[i][0] = p.Exists(ctx, c.tmpl.Key(k.src, z.Member.(string)))
			there[i][1] = p.Exists(ctx, c.tmpl.Key(k.dst, z.Member.(string)))
		}
	})
	if err != nil {
		return 0, err
	}
	kept := listed[:0]
	for i, z := range listed {
		if there[i][0].Val()+there[i][1].Val() > 0 {
			kept = append(kept, z)
		}
	}
	if len(kept) == 0 {
		return 0, nil
	}
	return int64(len(kept)), w.run(ctx, c.client, len(kept), func(p redis.Pipeliner) {
		p.ZAddGT(ctx, c.tmpl.Key(k.dst, tasks.TagIndex(tag)), kept...) // a score never falls
	})
}

// pruning is what prune.lua does, but for the companions, which a Cluster has none of.
type pruning struct {
	cache   *Cache
	release string
	now     time.Time
}

func (k pruning) members(ctx context.Context, w *work, tag string, members, scores []string) (int64, error) {
	c, old := k.cache, -float64(k.now.Add(-keepMarks).UnixMilli())
	var at []int
	for i, text := range scores {
		score := parseScore(text)
		marked := score < 0
		if math.IsInf(score, 1) || marked && score > old || !marked && score <= float64(k.now.UnixMilli()) {
			at = append(at, i)
		}
	}
	if len(at) == 0 {
		return 0, nil
	}
	expiries := make([]*redis.Cmd, len(at))
	err := w.run(ctx, c.client, len(at), func(p redis.Pipeliner) {
		for j, i := range at {
			expiries[j] = p.Do(ctx, "PEXPIRETIME", c.tmpl.Key(k.release, members[i]))
		}
	})
	if err != nil {
		return 0, err
	}
	var args []any
	for j, i := range at {
		expiry, err := expiries[j].Int64()
		if err != nil {
			return 0, err
		}
		score := "" // drop it
		switch forever := math.IsInf(parseScore(scores[i]), 1); {
		case forever && expiry == -2:
			score = milliseconds(k.now.Add(lastDate))
		case expiry == -2:
		case forever:
			continue
		case expiry == -1:
			score = "+inf"
		default:
			score = strconv.FormatInt(expiry, 10)
		}
		args = append(args, members[i], scores[i], score)
	}
	if len(args) == 0 {
		return 0, nil
	}
	reply, err := w.evalNamed(ctx, len(at), rescoreScript, []string{c.tmpl.Key(k.release, tasks.TagIndex(tag))}, args...)
	if err != nil {
		return 0, err
	}
	dropped, _ := reply[0].(int64)
	return dropped, nil
}

// parseScore reads a score as the server writes it.
func parseScore(text string) float64 {
	f, _ := strconv.ParseFloat(text, 64)
	return f
}

// sampleApart takes a sample of each server of a Cluster, as large a part of n as it has of all keys.
func (c *Cache) sampleApart(ctx context.Context, release string, n int) ([]string, error) {
	var mu sync.Mutex
	have, sizes := map[string][]string{}, map[string]int64{}
	err := c.everywhere(ctx, Work{Verb: verbCount}, func(ctx context.Context, w *work) error {
		size, err := w.on.DBSize(ctx).Result()
		if err != nil {
			return err
		}
		keys, err := w.sample(ctx, release, n)
		mu.Lock()
		defer mu.Unlock()
		have[w.name()], sizes[w.name()] = keys, size
		return err
	})
	if err != nil {
		return nil, err
	}
	var all int64
	for _, size := range sizes {
		all += size
	}
	var keys, rest []string
	seen := map[string]bool{} // a key that was moved meanwhile is in two
	for name, some := range have {
		rand.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
		part := int(math.Ceil(float64(n) * float64(sizes[name]) / float64(max(all, 1))))
		for i, key := range some {
			switch {
			case seen[key]:
			case i < part:
				keys = append(keys, key)
			default:
				rest = append(rest, key)
			}
			seen[key] = true
		}
	}
	if short := n - len(keys); short > 0 {
		keys = append(keys, rest[:min(short, len(rest))]...)
	}
	return keys, nil
}
