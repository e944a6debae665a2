package namespace

import (
	"context"
	"errors"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// job is the copy of what is found: inside the server, or on a Cluster read to be written elsewhere.
func (cp copying) job() job {
	inside, read := byKey(copyScript, cp.args()...), byKey(readScript, bigValue, sliceBytes)
	return job{script: copyScript, args: inside.args, one: func(ctx context.Context, p redis.Pipeliner, key string) *redis.Cmd {
		if cp.across(key) {
			return read.one(ctx, p, key)
		}
		return inside.one(ctx, p, key)
	}}
}

// across reports whether an entry is to be copied to another slot, where no script reaches.
func (cp copying) across(key string) bool {
	logical, ok := cp.cache.tmpl.Logical(cp.src, key)
	return ok && cp.wanted(logical) && tasks.Slot(key) != tasks.Slot(cp.cache.tmpl.Key(cp.dst, logical))
}

// wanted reports whether a logical key is an entry's of the families.
func (cp copying) wanted(logical string) bool {
	if strings.HasPrefix(logical, tasks.Reserved) {
		return false
	}
	for _, f := range cp.families {
		if strings.HasPrefix(logical, f) {
			return true
		}
	}
	return false
}

// take adds what a slice's replies tell to out, and copies what is left to do.
func (cp copying) take(ctx context.Context, replies []reply, out *CopySlice) error {
	var read []any
	for _, r := range replies {
		if r.key != "" && cp.across(r.key) {
			read = append(read, r.values...)
		} else if err := cp.slice(ctx, r.values, out); err != nil {
			return err
		}
	}
	entries, err := cp.entries(ctx, cp.src, read, cp.wanted)
	if err != nil {
		return err
	}
	return cp.writeAll(ctx, entries, out)
}

// writeAll writes entries that were read, but for those that refer to the source and those that the
// destination has.
func (cp copying) writeAll(ctx context.Context, entries []tasks.Entry, out *CopySlice) error {
	var texts []tasks.Entry
	for _, e := range entries {
		switch {
		case e.Type == tasks.EntryDump || refers(e, cp.cache.tmpl.Prefix(cp.src)):
			out.Referring = append(out.Referring, e.Key)
		case e.Type == tasks.EntryString:
			texts = append(texts, e)
		default:
			written, err := cp.writeBig(ctx, cp.dst, e, false)
			if err != nil {
				return err
			}
			out.wrote(e.Key, written)
		}
	}
	if len(texts) == 0 {
		return nil
	}
	cmds := make([]*redis.Cmd, len(texts))
	err := cp.run(ctx, cp.on, len(texts), func(p redis.Pipeliner) {
		for i, e := range texts {
			cmds[i] = cp.setNew(ctx, p, e)
		}
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return err
	}
	for i, cmd := range cmds {
		if err := cmd.Err(); err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		out.wrote(texts[i].Key, cmd.Err() == nil)
	}
	return nil
}

// wrote counts an entry that was written, or was there already.
func (s *CopySlice) wrote(logical string, written bool) {
	if !written {
		s.Existed++
		return
	}
	s.Copied++
	s.Keys = append(s.Keys, logical)
}
