package namespace

import (
	"context"
	"fmt"
	"iter"
	"math"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

const (
	// indexBatch is how many tag indexes one slice works on.
	indexBatch = 16
	// lastDate is how long a member without an expiry stays in an index after its entry
	// was first found missing. It is far above the time between the two halves of a put.
	lastDate = time.Hour
	// keepMarks is how long a member stays that an invalidation marked as gone: longer than
	// any copy takes that may hold its entry from before.
	keepMarks = 24 * time.Hour
)

var forever = math.Inf(1)

// PruneTags drops the dead members of the release's tag indexes and returns how many. A member
// is dead when its score, the entry's expiry, is past and the entry is gone, which the
// deleting script itself checks. A member without an expiry whose entry is gone gets
// a last date an hour after now, and is dropped by a prune after that: its writer may
// be between the index and the entry. Members that an invalidation marked as gone stay for a
// day (see tag.lua of package invalidation). Empty indexes disappear.
func (c *Cache) PruneTags(ctx context.Context, release string, now time.Time) (dropped int64, err error) {
	defer wrap(&err, "prune", release)
	if err := c.whole(release); err != nil {
		return 0, err
	}
	if c.sharded {
		return c.indexesApart(ctx, release, Work{Verb: verbPrune}, pruning{c, release, now}.members)
	}
	w := c.work(ctx, Work{Verb: verbPrune})
	return w.indexes(ctx, w.tagsOf(ctx, release, nil), func(p redis.Pipeliner, tag, cursor string, count int) *redis.Cmd {
		return pruneScript.EvalSha(ctx, p, []string{c.tmpl.Key(release, tasks.TagIndex(tag))},
			cursor, count, c.tmpl.Prefix(release), c.tmpl.Suffix(), milliseconds(now), milliseconds(now.Add(lastDate)), -now.Add(-keepMarks).UnixMilli(),
			tag, c.tmpl.Prefix(release)+tasks.CompanionKey(""))
	})
}

// CopyTags lists the entries that src and dst may share in dst's tag indexes, as src's list them. It
// completes a copy that died before its end: entries that no tag finds would outlive their
// invalidation. An entry that dst has from elsewhere may thereby get a tag too many.
func (c *Cache) CopyTags(ctx context.Context, src, dst string) (err error) {
	defer wrap(&err, "copy tags of", src)
	if err := c.whole(src, dst); err != nil {
		return err
	}
	return c.carryTags(ctx, src, dst, []string{""}, nil)
}

// carryTags carries the members that belong to the families to the destination's indexes. It is not
// among the works that must end before the server is full: without their tags, entries that were
// copied before that could not be invalidated. x, which may be nil, sees the indexes that a first call finds,
// and names them to the calls that follow.
func (c *Cache) carryTags(ctx context.Context, src, dst string, families []string, x *indexNames) error {
	if c.sharded {
		_, err := c.indexesApart(ctx, src, Work{Verb: verbTags}, carrying{c, src, dst, families}.members)
		return wrapTags(err)
	}
	tmpl := c.tmpl
	w := c.work(ctx, Work{Verb: verbTags})
	_, err := w.indexes(ctx, w.tagsOf(ctx, src, x), func(p redis.Pipeliner, tag, cursor string, count int) *redis.Cmd {
		args := []any{cursor, count, tmpl.Prefix(src), tmpl.Prefix(dst), tmpl.Suffix()}
		for _, f := range families {
			args = append(args, f)
		}
		keys := []string{tmpl.Key(src, tasks.TagIndex(tag)), tmpl.Key(dst, tasks.TagIndex(tag))}
		return carryScript.EvalSha(ctx, p, keys, args...)
	})
	return wrapTags(err)
}

func wrapTags(err error) error {
	if err != nil {
		return fmt.Errorf("carry tag indexes: %w", err)
	}
	return nil
}

// indexScript queues a script that works on part of a tag's index, from a ZSCAN cursor on, and
// returns the next such cursor and a count.
type indexScript func(p redis.Pipeliner, tag, cursor string, count int) *redis.Cmd

// part is a place in a tag's index.
type part struct{ tag, cursor string }

// tagsOf returns the release's tags in lists: those that x names, or those that a SCAN finds, which x
// then sees.
func (w *work) tagsOf(ctx context.Context, release string, x *indexNames) iter.Seq2[[]string, error] {
	tags := func(keys []string) (tags []string) {
		for _, key := range keys {
			logical, _ := w.cache.tmpl.Logical(release, key)
			if tag, ok := tasks.TagOf(logical); ok {
				tags = append(tags, tag)
			}
		}
		return tags
	}
	return func(yield func([]string, error) bool) {
		if keys, ok := x.named(ctx); ok {
			yield(tags(keys), nil)
			return
		}
		for s, err := range w.slices(ctx, listScript, nil, release, tasks.TagPrefix(), 0) {
			var keys []string
			if err == nil {
				keys, err = texts(s.reply)
			}
			x.saw(keys)
			if !yield(tags(keys), err) || err != nil {
				return
			}
		}
		x.scanned()
	}
}

// indexes runs a script over the indexes of tags and returns the sum of its counts.
func (w *work) indexes(ctx context.Context, tags iter.Seq2[[]string, error], script indexScript) (sum int64, err error) {
	for some, err := range tags {
		if err != nil {
			return sum, err
		}
		var todo []part
		for _, tag := range some {
			todo = append(todo, part{tag, "0"})
		}
		for len(todo) > 0 {
			n := min(indexBatch, len(todo))
			more, count, err := w.parts(ctx, todo[:n], script)
			sum += count
			if err != nil {
				return sum, err
			}
			todo = append(todo[n:], more...)
		}
	}
	return sum, nil
}

// parts runs a script over some parts as one slice, and returns where to go on.
func (w *work) parts(ctx context.Context, todo []part, script indexScript) (more []part, sum int64, err error) {
	each := max(w.count/len(todo), 10)
	cmds := make([]*redis.Cmd, len(todo))
	err = w.run(ctx, w.cache.client, each*len(todo), func(p redis.Pipeliner) {
		for i, t := range todo {
			cmds[i] = script(p, t.tag, t.cursor, each)
		}
	})
	if err != nil {
		return nil, 0, err
	}
	for i, t := range todo {
		reply, err := cmds[i].Slice()
		if err != nil || len(reply) != 2 {
			return nil, sum, fmt.Errorf("tag %s: unexpected reply %v: %v", tasks.Bytes(t.tag), reply, err)
		}
		next, _ := reply[0].(string)
		count, _ := reply[1].(int64)
		sum += count
		if _, err := strconv.ParseUint(next, 10, 64); err != nil {
			return nil, sum, fmt.Errorf("tag %s: cursor %q", tasks.Bytes(t.tag), next)
		}
		if next != "0" {
			more = append(more, part{t.tag, next})
		}
	}
	return more, sum, nil
}
