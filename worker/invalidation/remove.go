package invalidation

import (
	"context"
	_ "embed"
	"fmt"
	"math"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

var (
	//go:embed tag.lua
	tagLua string

	tagScript = redis.NewScript(tasks.CompanionLua + tagLua)
)

const (
	slice     = 500 // keys a pipeline, members a script: about 1 ms of the server
	tagSlices = 20  // of a tag's index that a round looks at: what needs more is for the bulk lane
	unlimited = math.MaxInt
)

// remove takes targets out of one namespace. It returns how many entries were there for each, and
// the places of those that it has not finished: a prefix, which needs a walk over the whole
// namespace, or a tag whose index has more than so many slices. calls says which call each
// target is of (nil: all are of one): keys of one call are removed and counted together, at the
// place of the first of them.
func (a *Applier) remove(ctx context.Context, release string, targets []tasks.Target, calls []int, slices int) (removed []int64, unfinished []int, err error) {
	removed = make([]int64, len(targets))
	var keys, tags []string
	var ofKeys, ofTags []int // places in targets
	for i, t := range targets {
		switch t.Kind {
		case tasks.KindKey:
			keys, ofKeys = append(keys, a.tmpl.Key(release, string(t.Name))), append(ofKeys, i)
		case tasks.KindTag:
			tags, ofTags = append(tags, string(t.Name)), append(ofTags, i)
		case tasks.KindPrefix:
			if slices != unlimited {
				unfinished = append(unfinished, i)
				continue
			}
			if removed[i], err = a.ns.Unlink(ctx, release, string(t.Name)); err != nil {
				return nil, nil, fmt.Errorf("release %q: remove %s: %w", release, t, err)
			}
		}
	}
	together := func(i, j int) bool { return calls == nil || calls[ofKeys[i]] == calls[ofKeys[j]] }
	if err := a.removeKeys(ctx, keys, together, func(i int, n int64) { removed[ofKeys[i]] += n }); err != nil {
		return nil, nil, fmt.Errorf("release %q: %w", release, err)
	}
	long, err := a.removeTags(ctx, release, tags, slices, func(i int, n int64) { removed[ofTags[i]] += n })
	if err != nil {
		return nil, nil, fmt.Errorf("release %q: %w", release, err)
	}
	for _, i := range long {
		unfinished = append(unfinished, ofTags[i])
	}
	return removed, unfinished, nil
}

// removeKeys unlinks keys, a slice a pipeline, and counts which of them were there. Keys that may be
// counted together share a command: that is the least work for the server. A Cluster, which keeps
// them in different slots, takes one command each.
func (a *Applier) removeKeys(ctx context.Context, keys []string, together func(i, j int) bool, count func(first int, n int64)) error {
	sharded := tasks.Sharded(a.cache)
	for from := 0; from < len(keys); from += slice {
		to := min(from+slice, len(keys))
		var firsts []int
		replies, err := a.cache.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i := from; i < to; {
				next := i + 1
				for !sharded && next < to && together(i, next) {
					next++
				}
				firsts = append(firsts, i)
				p.Unlink(ctx, keys[i:next]...)
				i = next
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("remove %d keys: %w", to-from, err)
		}
		for i, r := range replies {
			count(firsts[i], r.(*redis.IntCmd).Val())
		}
	}
	return nil
}

// removeTags removes what the tags' indexes list, a slice of each in turn, and returns the places of
// those that have more than so many slices. It looks at all members, those that a removal has marked
// as well.
func (a *Applier) removeTags(ctx context.Context, release string, tags []string, slices int, count func(i int, n int64)) (unfinished []int, err error) {
	cursors := make([]string, len(tags))
	open := make([]int, len(tags))
	for i := range tags {
		cursors[i], open[i] = "0", i
	}
	for ; len(open) > 0 && slices > 0; slices-- {
		var next []int
		for from := 0; from < len(open); from += tagsAtOnce {
			part := open[from:min(from+tagsAtOnce, len(open))]
			replies, err := a.tagSlices(ctx, release, tags, cursors, part)
			if err != nil {
				return nil, fmt.Errorf("remove %d tags: %w", len(part), err)
			}
			for j, i := range part {
				count(i, replies[j].removed)
				if cursors[i] = replies[j].cursor; cursors[i] != "0" {
					next = append(next, i)
				}
			}
		}
		open = next
	}
	return open, nil
}

// tagsAtOnce is how many tags' slices share a pipeline: most tags have few members.
const tagsAtOnce = 100

type tagSlice struct {
	cursor  string
	removed int64
}

// tagSlices removes one slice of each of the tags at these places.
func (a *Applier) tagSlices(ctx context.Context, release string, tags, cursors []string, places []int) ([]tagSlice, error) {
	if tasks.Sharded(a.cache) {
		indexes, at := make([]string, len(places)), make([]string, len(places))
		for j, i := range places {
			indexes[j], at[j] = a.index(release, tags[i]), cursors[i]
		}
		return a.slicesApart(ctx, release, indexes, at, true)
	}
	replies := make([]*redis.Cmd, len(places))
	err := a.pipelined(ctx, tagScript, func(p redis.Pipeliner) {
		for j, i := range places {
			replies[j] = tagScript.EvalSha(ctx, p, []string{a.index(release, tags[i])}, a.tagArgs(release, tags[i], cursors[i], 1)...)
		}
	})
	if err != nil {
		return nil, err
	}
	found := make([]tagSlice, len(replies))
	for j, r := range replies {
		if found[j], err = readTagSlice(r); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func readTagSlice(r *redis.Cmd) (tagSlice, error) {
	reply, err := r.Slice()
	if err != nil {
		return tagSlice{}, err
	}
	var s tagSlice
	if len(reply) == 2 {
		var isText, isNumber bool
		s.cursor, isText = reply[0].(string)
		if s.removed, isNumber = reply[1].(int64); isText && isNumber {
			return s, nil
		}
	}
	return tagSlice{}, fmt.Errorf("want a cursor and a count, got %v", reply)
}

// tagArgs are the arguments of the tag script; mark is 1 when the members are the release's own.
func (a *Applier) tagArgs(release, tag, cursor string, mark int) []any {
	return []any{a.tmpl.Prefix(release), a.tmpl.Suffix(), cursor, slice, mark, tag, a.tmpl.Prefix(release) + tasks.CompanionKey("")}
}

// index returns the key of a tag's index.
func (a *Applier) index(release, tag string) string {
	return a.tmpl.Key(release, tasks.TagIndex(tag))
}

// removeListed takes the entries that another namespace's index of a tag lists out of this one.
func (a *Applier) removeListed(ctx context.Context, release, other, tag string) (int64, error) {
	var removed int64
	for cursor := "0"; ; {
		s, err := a.otherSlice(ctx, release, other, tag, cursor)
		if err != nil {
			return removed, err
		}
		cursor = s.cursor
		removed += s.removed
		if cursor == "0" {
			return removed, nil
		}
	}
}

// otherSlice does one slice of it.
func (a *Applier) otherSlice(ctx context.Context, release, other, tag, cursor string) (tagSlice, error) {
	index := a.index(other, tag)
	if !tasks.Sharded(a.cache) {
		return readTagSlice(tagScript.Run(ctx, a.cache, []string{index}, a.tagArgs(release, tag, cursor, 0)...))
	}
	one, err := a.slicesApart(ctx, release, []string{index}, []string{cursor}, false)
	if err != nil {
		return tagSlice{}, err
	}
	return one[0], nil
}
