package warm

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/source"
)

// sampled is a stored entry that the certificate looks up at the end.
type sampled struct {
	Key  tasks.Bytes   `json:"key"`
	Tags []tasks.Bytes `json:"tags,omitempty"`
	// blind: the site or the server wrote it, so its tags are known to the cache's index only.
	blind bool
}

func (s sampled) tagged() tasks.Tagged {
	t := tasks.Tagged{Key: string(s.Key)}
	for _, tag := range s.Tags {
		t.Tags = append(t.Tags, string(tag))
	}
	return t
}

// pick adds entries to a sample of which the n lowest by rank are kept.
func pick(sample []sampled, entries []source.Entry, n int) []sampled {
	if n == 0 {
		return nil
	}
	for _, e := range entries {
		if e.Key == "" || len(sample) >= n && source.Rank(e.Key) > source.Rank(string(sample[len(sample)-1].Key)) {
			continue
		}
		s := sampled{Key: tasks.Bytes(e.Key)}
		for _, tag := range e.Tags {
			s.Tags = append(s.Tags, tasks.Bytes(tag))
		}
		sample = lowest(append(sample, s), n)
	}
	return sample
}

// lowest returns the n lowest of a sample by rank, in order, each key once.
func lowest(sample []sampled, n int) []sampled {
	slices.SortStableFunc(sample, func(a, b sampled) int {
		return cmp.Or(cmp.Compare(source.Rank(string(a.Key)), source.Rank(string(b.Key))), strings.Compare(string(a.Key), string(b.Key)))
	})
	sample = slices.CompactFunc(sample, func(a, b sampled) bool { return a.Key == b.Key })
	return sample[:min(n, len(sample))]
}

// keep returns how many sampled entries each batch of a source keeps: all that the certificate
// wants where the source is one batch, a fair share and as much again where it is many.
func (c cutSource) keep(n int) int {
	if !c.Listed || c.Total <= int64(c.Size) {
		return n
	}
	batches := (int(c.Total) + c.Size - 1) / c.Size
	return min(n, (2*n+batches-1)/batches)
}

// looked is what looking up a sample showed.
type looked struct {
	sampled int             // entries whose fate is clear
	missing int             // of them, gone though nobody invalidated them
	first   time.Duration   // shortest lifetime left; 0 when none ends
	lives   []time.Duration // what is left of each that ends
}

// lookUp looks for sampled entries.
func (r *Runner) lookUp(ctx context.Context, release string, all gathered) (looked, error) {
	l := looked{sampled: len(all.sample)}
	if len(all.sample) == 0 {
		return l, nil
	}
	keys := make([]string, len(all.sample))
	for i, s := range all.sample {
		keys[i] = string(s.Key)
	}
	found, err := r.deps.Cache.Lookup(ctx, release, keys)
	if err != nil {
		return l, fmt.Errorf("look up sampled entries: %w", err)
	}
	var gone []sampled
	for i, f := range found {
		switch {
		case !f.Exists:
			gone = append(gone, all.sample[i])
		case f.TTL > 0:
			l.lives = append(l.lives, f.TTL)
			if l.first == 0 || f.TTL < l.first {
				l.first = f.TTL
			}
		}
	}
	err = r.explain(ctx, release, all.mark, gone, &l)
	return l, err
}

// explain decides about sampled entries that are gone. One that was invalidated since the run's
// oldest mark is no loss. One whose tags are not known may have been, where any tag was: its fate is
// unclear. Past a mark that the log no longer reaches back to, nothing is excused.
func (r *Runner) explain(ctx context.Context, release string, mark tasks.Mark, gone []sampled, l *looked) error {
	if len(gone) == 0 {
		return nil
	}
	if r.deps.Log.Fresh(ctx, mark) != nil {
		l.missing += len(gone)
		return ctx.Err()
	}
	entries := make([]tasks.Tagged, len(gone))
	for i, s := range gone {
		entries[i] = s.tagged()
	}
	stale, err := r.deps.Check.Check(ctx, release, mark, entries)
	if err != nil {
		return err
	}
	tags, err := r.tagsSince(ctx, mark)
	if err != nil {
		return err
	}
	for i, s := range gone {
		switch {
		case stale[i]:
		case s.blind && tags:
			l.sampled--
		default:
			l.missing++
		}
	}
	return nil
}

// tagsSince reports whether any tag was invalidated since a mark.
func (r *Runner) tagsSince(ctx context.Context, mark tasks.Mark) (bool, error) {
	const page = 1_000
	for offset := int64(0); ; offset += page {
		members, err := r.deps.Queue.ZRangeByScore(ctx, r.deps.Keys.Log(), &redis.ZRangeBy{
			Min: "(" + strconv.FormatInt(mark.Number, 10), Max: "+inf", Offset: offset, Count: page,
		}).Result()
		if err != nil {
			return false, fmt.Errorf("read log: %w", err)
		}
		for _, m := range members {
			if t, err := tasks.ParseMember(m); err == nil && t.Kind == tasks.KindTag {
				return true, nil
			}
		}
		if len(members) < page {
			return false, nil
		}
	}
}

// shorten cuts text to at most n bytes, at a character's edge.
func shorten(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n] + "…"
}
