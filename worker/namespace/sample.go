package namespace

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// sampleKeys is how many keys of the server a Sample looks through at most: on a server where few
// keys are the release's, it ends with fewer than were asked for.
const sampleKeys = 500_000

// Sample returns the logical keys of up to n different entries of the release, each with
// about the same chance. It scans from a random place on: the server's table is in the order of the
// keys' hashes, so neighbours there have nothing in common. Reserved keys are left out.
func (c *Cache) Sample(ctx context.Context, release string, n int) (keys []string, err error) {
	defer wrap(&err, "sample", release)
	if err := c.whole(release); err != nil {
		return nil, err
	}
	if c.sharded {
		keys, err = c.sampleApart(ctx, release, n)
	} else {
		keys, err = c.work(ctx, Work{Verb: verbCount}).sample(ctx, release, n)
	}
	if err != nil {
		return nil, err
	}
	// A slot of the table that holds several keys (Valkey from 8 on) has them in one order always.
	rand.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	return keys[:min(n, len(keys))], nil
}

// sample returns n keys of one server or some more, fewer only when it finds no more.
func (w *work) sample(ctx context.Context, release string, n int) (keys []string, err error) {
	c := w.cache
	pattern := c.tmpl.Match(release, "")
	seen := make(map[string]bool, n)
	// From the random place to the table's end, then from its beginning: at the latest what came
	// first comes again. The end is never where it stops, or what follows it would come too rarely.
	at, wrapped := uint64(rand.Uint32()), false
	for looked := 0; looked < sampleKeys; {
		count := w.count
		s, next, err := w.step(ctx, listScript, nil, []any{at, pattern, count})
		if err != nil {
			return nil, err
		}
		found, err := texts(s.reply)
		if err != nil {
			return nil, err
		}
		again := false
		for _, key := range found {
			logical, ok := c.tmpl.Logical(release, key)
			switch {
			case !ok || strings.HasPrefix(logical, tasks.Reserved):
			case seen[logical]:
				again = again || wrapped
			default:
				seen[logical] = true
				keys = append(keys, logical)
			}
		}
		looked += count
		if len(keys) >= n && next != 0 || again || wrapped && next == 0 {
			break
		}
		wrapped = wrapped || next == 0
		at = next
	}
	return keys, nil
}

// Get reads the release's entries under logical keys. Those that there are none of are left out;
// the others come in no particular order.
func (c *Cache) Get(ctx context.Context, release string, logical []string) (entries []tasks.Entry, err error) {
	defer wrap(&err, "read from", release)
	if err := c.whole(release); err != nil {
		return nil, err
	}
	if len(logical) == 0 {
		return nil, nil
	}
	keys := make([]string, len(logical))
	for i, l := range logical {
		keys[i] = c.tmpl.Key(release, l)
	}
	return c.work(ctx, Work{Verb: verbRead}).entries(ctx, release, keys)
}

// TagSize is a tag with how many entries of a namespace its index lists.
type TagSize struct {
	Tag     string
	Entries int64
}

// TagsOf returns which tags list the release's entries under logical keys. It goes through all tag
// indexes of the release, once, whatever the number of keys.
func (c *Cache) TagsOf(ctx context.Context, release string, logical []string, now time.Time) (tags map[string][]TagSize, err error) {
	defer wrap(&err, "find tags in", release)
	if err := c.whole(release); err != nil {
		return nil, err
	}
	tags = make(map[string][]TagSize, len(logical))
	if len(logical) == 0 {
		return tags, nil
	}
	seen := map[string]bool{} // SCAN may return a key twice
	var mu sync.Mutex
	err = c.everywhere(ctx, Work{Verb: verbTags}, func(ctx context.Context, w *work) error {
		for s, err := range w.slices(ctx, listScript, nil, release, tasks.TagPrefix(), 0) {
			if err != nil {
				return err
			}
			indexes, err := texts(s.reply)
			if err != nil {
				return err
			}
			for batch := range slices.Chunk(indexes, indexBatch) {
				if err := w.listed(ctx, release, batch, logical, now, &mu, seen, tags); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return tags, err
}

// listed adds to tags what some indexes list of the logical keys, also members that are marked as
// gone. Its sizes are those of the members whose entries have not expired.
func (w *work) listed(ctx context.Context, release string, indexes, logical []string, now time.Time, mu *sync.Mutex, seen map[string]bool, tags map[string][]TagSize) error {
	scores, sizes := make([]*redis.Cmd, len(indexes)), make([]*redis.IntCmd, len(indexes))
	err := w.run(ctx, w.cache.client, len(indexes)*len(logical), func(p redis.Pipeliner) {
		for i, index := range indexes {
			args := []any{"ZMSCORE", index}
			for _, l := range logical {
				args = append(args, l)
			}
			scores[i] = p.Do(ctx, args...) // the client's own ZMScore makes a zero of what is not listed
			sizes[i] = p.ZCount(ctx, index, strconv.FormatInt(now.UnixMilli(), 10), "+inf")
		}
	})
	if err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	for i, index := range indexes {
		own, _ := w.cache.tmpl.Logical(release, index)
		tag, ok := tasks.TagOf(own)
		if !ok || seen[tag] {
			continue
		}
		seen[tag] = true
		replies, err := scores[i].Slice()
		if err != nil || len(replies) != len(logical) {
			return fmt.Errorf("tag %s: %d scores for %d keys: %v", tasks.Bytes(tag), len(replies), len(logical), err)
		}
		for j, l := range logical {
			if replies[j] != nil {
				tags[l] = append(tags[l], TagSize{tag, sizes[i].Val()})
			}
		}
	}
	return nil
}
