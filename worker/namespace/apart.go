package namespace

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// laterAtOnce is how many keys that did not fit their slice one pipeline reads: their values share
// a slice's bytes with few others.
const laterAtOnce = 8

// everywhere copies on a Cluster.
func (cp copying) everywhere(ctx context.Context, cursor string, fn func(CopySlice) error) error {
	c, at := cp.cache, parsePosition(cursor)
	script, args := copyScript, cp.args()
	inside := shareSlots(c.tmpl, cp.src, cp.dst)
	if !inside {
		script, args = listScript, nil
	}
	var mu sync.Mutex
	hand := func(id string, next uint64, out CopySlice) error {
		mu.Lock()
		defer mu.Unlock()
		at.reach(id, next)
		if out.empty() {
			return nil
		}
		out.Next = at.String()
		return end(fn(out))
	}
	err := c.walk(ctx, Work{Verb: verbCopy, Adds: true}, at, func(ctx context.Context, w *work, from uint64) error {
		one := cp
		one.work = w
		for s, err := range w.slices(ctx, script, nil, cp.src, "", from, args...) {
			if err != nil {
				return err
			}
			var out CopySlice
			if inside {
				err = one.slice(ctx, s.reply, &out)
			} else if keys, bad := texts(s.reply); bad != nil {
				err = bad
			} else {
				err = one.byValue(ctx, keys, &out)
			}
			if err != nil {
				return err
			}
			if err := hand(w.shard.id, s.next, out); err != nil {
				return err
			}
		}
		return nil
	})
	var own ended
	switch {
	case errors.As(err, &own):
		return cp.stop(ctx, false, own.error)
	case err != nil:
		return cp.refused(ctx, err)
	}
	if err := cp.tags(ctx); err != nil {
		return err
	}
	return fn(CopySlice{})
}

// readApart reads on a Cluster, from a pass and its position on.
func (c *Cache) readApart(ctx context.Context, release string, pass int, from string, fn func([]tasks.Entry, string) error) error {
	at := parsePosition(from)
	if at.before == nil && from != "0" {
		return fmt.Errorf("%w (position %q)", ErrRestarted, from)
	}
	for ; pass < len(readPasses); pass, at = pass+1, new(position) {
		if err := c.readPass(ctx, release, pass, at, fn); err != nil {
			return err
		}
	}
	return nil
}

// readPass does one pass of a reading on a Cluster.
func (c *Cache) readPass(ctx context.Context, release string, pass int, at *position, fn func([]tasks.Entry, string) error) error {
	var mu sync.Mutex
	err := c.walk(ctx, Work{Verb: verbRead}, at, func(ctx context.Context, w *work, from uint64) error {
		r := reading{list: w.beside(ctx, verbList), work: w, release: release}
		return r.read(ctx, pass, from, func(p parsed) error {
			mu.Lock()
			defer mu.Unlock()
			next := ""
			if p.whole {
				at.reach(w.shard.id, p.next)
				next = readCursor(pass, at.String())
			}
			if len(p.entries) == 0 {
				return nil
			}
			return end(fn(p.entries, next))
		})
	})
	var own ended
	if errors.As(err, &own) {
		return own.error
	}
	return err
}

// shareSlots reports whether an entry's key lies in the same hash slot in both releases, as a template
// with the key in braces brings about; but for some odd keys, such as one that begins with }.
func shareSlots(tmpl tasks.Template, a, b string) bool {
	for _, probe := range []string{"a", "b", "c"} {
		if tasks.SlotOf(tmpl.Key(a, probe)) != tasks.SlotOf(tmpl.Key(b, probe)) {
			return false
		}
	}
	return true
}

// apart copies keys that a slice on a Cluster left out: later ones one by one, and those elsewhere,
// which no single server can copy, by value.
func (cp copying) apart(ctx context.Context, later, elsewhere []string, out *CopySlice) error {
	for _, logical := range later {
		reply, err := cp.later(ctx, []string{logical})
		if err != nil {
			return err
		}
		if err := cp.slice(ctx, reply, out); err != nil {
			return err
		}
	}
	keys := make([]string, len(elsewhere))
	for i, logical := range elsewhere {
		keys[i] = cp.cache.tmpl.Key(cp.src, logical)
	}
	return cp.byValue(ctx, keys, out)
}

// byValue copies keys of the source, through this process.
func (cp copying) byValue(ctx context.Context, keys []string, out *CopySlice) error {
	keys = slices.DeleteFunc(keys, func(key string) bool {
		logical, ok := cp.cache.tmpl.Logical(cp.src, key)
		if ok && cp.wanted(logical) {
			return false
		}
		if ok && !strings.HasPrefix(logical, tasks.Reserved) {
			out.Skipped++
		}
		return true
	})
	entries, err := cp.entries(ctx, cp.src, keys)
	if err != nil {
		return err
	}
	return cp.store(ctx, entries, out)
}

// store writes what was read of the source, but for what would point back there.
func (cp copying) store(ctx context.Context, entries []tasks.Entry, out *CopySlice) error {
	var fit []tasks.Entry
	for _, e := range entries {
		switch {
		case e.Type == tasks.EntryDump || refers(e, cp.cache.tmpl.Prefix(cp.src)):
			out.Referring = append(out.Referring, e.Key)
		case isBig(e) || e.Size() > bigValue:
			if err := cp.writeOne(ctx, e, out); err != nil {
				return fmt.Errorf("key %s: %w", tasks.Bytes(e.Key), err)
			}
		default:
			fit = append(fit, e)
		}
	}
	for len(fit) > 0 {
		n := cp.batch(fit)
		if err := cp.together(ctx, fit[:n], out); err != nil {
			return err
		}
		fit = fit[n:]
	}
	return nil
}

func (cp copying) wanted(logical string) bool {
	if strings.HasPrefix(logical, tasks.Reserved) {
		return false
	}
	return slices.ContainsFunc(cp.families, func(f string) bool { return strings.HasPrefix(logical, f) })
}

// together writes entries that are not big, but for those that the destination has.
func (cp copying) together(ctx context.Context, entries []tasks.Entry, out *CopySlice) error {
	cmds := make([]*redis.Cmd, len(entries))
	tries := 0
	err := cp.cache.patiently(ctx, func() error {
		tries++
		return cp.run(ctx, cp.cache.client, len(entries), func(p redis.Pipeliner) {
			for i, e := range entries {
				cmds[i] = setNew(ctx, p, cp.cache.tmpl.Key(cp.dst, e.Key), e)
			}
		})
	})
	if err != nil {
		return err
	}
	for i, cmd := range cmds {
		written, err := cmd.Int()
		if err != nil {
			return err
		}
		if written == 1 || tries > 1 { // what is there may be what an earlier try wrote
			out.Copied++
			out.Keys = append(out.Keys, entries[i].Key)
		} else {
			out.Existed++
		}
	}
	return nil
}

// setNew queues the script that writes an entry which is not big, unless its key exists.
func setNew(ctx context.Context, p redis.Pipeliner, key string, e tasks.Entry) *redis.Cmd {
	switch {
	case e.Type == tasks.EntryString:
		return newScript.EvalSha(ctx, p, []string{key}, "SET", e.ExpiresAt, e.Value)
	case len(e.FieldsExpireAt) > 0:
		return newHashScript.EvalSha(ctx, p, []string{key}, append([]any{1, e.ExpiresAt}, fields(e.Items, e.FieldsExpireAt)...)...)
	}
	return newScript.EvalSha(ctx, p, []string{key}, append([]any{adders[e.Type], e.ExpiresAt}, operands(e.Type, e.Items)...)...)
}

// onebyone reads named keys of a Cluster, each by a script of its own.
func (w *work) onebyone(ctx context.Context, keys []string) ([]any, error) {
	var out []any
	for batch := range slices.Chunk(keys, laterAtOnce) {
		cmds := make([]*redis.Cmd, len(batch))
		err := w.run(ctx, w.cache.client, len(batch), func(p redis.Pipeliner) {
			for i, key := range batch {
				cmds[i] = readScript.EvalSha(ctx, p, []string{key}, bigValue, sliceBytes)
			}
		})
		if err != nil {
			return nil, err
		}
		for _, cmd := range cmds {
			reply, err := cmd.Slice()
			if err != nil {
				return nil, err
			}
			out = append(out, reply...)
		}
	}
	return out, nil
}

// putApart is put on a Cluster, where the servers work through a pipeline side by side: the tags'
// indexes have to know the entries before these are sent.
func (c *Cache) putApart(ctx context.Context, release string, w *work, list func(redis.Pipeliner), values, big []tasks.Entry) error {
	if err := c.patiently(ctx, func() error { return w.run(ctx, c.client, 1, list) }); err != nil {
		return fmt.Errorf("add to tag index: %w", err)
	}
	return w.write(ctx, release, append(values, big...))
}

// part returns the key under which a big value is put together: one that is in the entry's own slot, so
// that it can be renamed. Its name is the release's, so that a purge finds it; whatever the
// template, one in 16,384 names is in the slot.
func (c *Cache) part(release, logical string) string {
	name := partPrefix + rand.Text() + ":"
	if !c.sharded {
		return c.tmpl.Key(release, name+logical)
	}
	slot := tasks.SlotOf(c.tmpl.Key(release, logical))
	for i := 0; ; i++ {
		if key := c.tmpl.Key(release, name+strconv.Itoa(i)); tasks.SlotOf(key) == slot {
			return key
		}
	}
}
