package namespace

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// CopySlice tells of one slice of a copy.
type CopySlice struct {
	Next      string   // the cursor from which a later Copy goes on; "" at the end
	Copied    int64    // entries copied
	Skipped   int64    // entries outside the families
	Existed   int64    // entries that the destination has already, and keeps
	Referring []string // logical keys left out: their value holds the source's prefix, or cannot be looked into
	Keys      []string // logical keys of the entries copied
}

// Copy copies the entries whose logical key begins with one of families ("" for all) from src's
// namespace to dst's, inside the server, expiries kept to the millisecond. It never replaces
// what is there. Clients that keep full key names in values would read src's entries through a
// copy, so entries whose value holds src's prefix are left out and reported, and so are types
// that cannot be looked into (streams, modules). A prefix inside a value that the client
// compressed goes unnoticed.
//
// Tags come along: dst's indexes get the members before any entry is copied and again at the
// end, also when fn or the pacer ends the copy by an error. fn is called after each slice that found
// something, while the next one is copied, by one goroutine at a time, and exactly once with Next = "", at the end; it may be called
// again for slices done before when a server has restarted, failed over or been given slots. A
// cursor that cannot be understood is the beginning, as "" is.
func (c *Cache) Copy(ctx context.Context, src, dst string, families []string, cursor string, fn func(CopySlice) error) (err error) {
	defer wrap(&err, "copy", src)
	if err := c.whole(src, dst); err != nil {
		return err
	}
	if err := copyable(src, dst, families); err != nil {
		return err
	}
	cp := copying{work: c.work(ctx, Work{Verb: verbCopy, Adds: true}), src: src, dst: dst, families: families, names: c.indexNames(ctx, src)}
	defer cp.names.close()
	if err := cp.tags(ctx); err != nil {
		return err
	}
	if c.sharded {
		return cp.everywhere(ctx, cursor, fn)
	}
	from, err := strconv.ParseUint(cursor, 10, 64)
	if err != nil {
		from = 0
	}
	for out, err := range ahead(cp.copied(ctx, from), 0) {
		if err != nil {
			return cp.refused(ctx, err)
		}
		if out.Next == "" {
			if err := cp.tags(ctx); err != nil {
				return err
			}
		} else if out.empty() {
			continue
		}
		if err := fn(out); err != nil {
			return cp.stop(ctx, out.Next == "", err)
		}
	}
	return nil
}

// copied copies in slices, from a SCAN's cursor on.
func (cp copying) copied(ctx context.Context, from uint64) iter.Seq2[CopySlice, error] {
	return func(yield func(CopySlice, error) bool) {
		for s, err := range cp.slices(ctx, copyScript, nil, cp.src, "", from, cp.args()...) {
			var out CopySlice
			if s.next != 0 {
				out.Next = strconv.FormatUint(s.next, 10)
			}
			if err == nil {
				err = cp.slice(ctx, s.reply, &out)
			}
			if !yield(out, err) || err != nil {
				return
			}
		}
	}
}

// CopyKeys copies the entries under logical keys, a slice at a time, by the rules of [Cache.Copy]; of
// keys that the source has no entry of nothing is told. fn's slices have no cursor.
func (c *Cache) CopyKeys(ctx context.Context, src, dst string, logical []string, fn func(CopySlice) error) (err error) {
	defer wrap(&err, "copy from", src)
	if err := c.whole(src, dst); err != nil {
		return err
	}
	if err := copyable(src, dst, logical); err != nil {
		return err
	}
	cp := copying{work: c.work(ctx, Work{Verb: verbCopy, Adds: true}), src: src, dst: dst, families: []string{""}, names: c.indexNames(ctx, src)}
	defer cp.names.close()
	if err := cp.tags(ctx); err != nil {
		return err
	}
	for len(logical) > 0 {
		n := min(cp.count, len(logical))
		var out CopySlice
		if err := cp.named(ctx, logical[:n], &out); err != nil {
			return cp.refused(ctx, err)
		}
		logical = logical[n:]
		if err := fn(out); err != nil {
			return cp.stop(ctx, false, err)
		}
	}
	return cp.tags(ctx)
}

// named copies entries by their keys; by value on a Cluster, where they lie in any slot.
func (cp copying) named(ctx context.Context, logical []string, out *CopySlice) error {
	if cp.cache.sharded {
		entries, err := cp.cache.Get(ctx, cp.src, logical)
		if err != nil {
			return err
		}
		return cp.store(ctx, entries, out)
	}
	reply, err := cp.later(ctx, logical)
	if err != nil {
		return err
	}
	return cp.slice(ctx, reply, out)
}

// tags carries the indexes' members that belong to the copy.
func (cp copying) tags(ctx context.Context) error {
	return cp.cache.carryTags(ctx, cp.src, cp.dst, cp.families, cp.names)
}

// refused ends a copy after an error. One that the pacer refuses to go on with will hardly be taken
// up again.
func (cp copying) refused(ctx context.Context, err error) error {
	if !errors.Is(err, tasks.ErrRefused) {
		return err
	}
	return cp.stop(ctx, false, err)
}

// stop ends a copy early. What is copied may be all that ever will be, so its tags must be
// complete; they are when it had ended already.
func (cp copying) stop(ctx context.Context, over bool, cause error) error {
	if over || ctx.Err() != nil {
		return cause
	}
	if err := cp.tags(ctx); err != nil {
		return fmt.Errorf("%w (and then: %v)", cause, err)
	}
	return cause
}

func copyable(src, dst string, families []string) error {
	if src == dst {
		return fmt.Errorf("%w: source and destination are both %q", tasks.ErrInvalid, src)
	}
	if len(families) == 0 {
		return fmt.Errorf("%w: no families: name the logical prefixes to copy, \"\" for all", tasks.ErrInvalid)
	}
	for _, f := range families {
		if strings.HasPrefix(f, tasks.Reserved) {
			return fmt.Errorf("%w: family %s: keys that begin with %s are stoker's own", tasks.ErrInvalid, tasks.Bytes(f), tasks.Reserved)
		}
	}
	return nil
}

func (s CopySlice) empty() bool {
	return s.Copied+s.Skipped+s.Existed == 0 && len(s.Referring) == 0
}

// copying is one run of Copy.
type copying struct {
	*work
	src, dst string
	families []string
	names    *indexNames // of the source's tag indexes
}

// args are the copy script's arguments after the SCAN's.
func (cp copying) args() []any {
	tmpl := cp.cache.tmpl
	args := []any{bigValue, sliceBytes, tmpl.Prefix(cp.src), tmpl.Prefix(cp.dst), tasks.Reserved}
	for _, f := range cp.families {
		args = append(args, f)
	}
	return args
}

// slice adds a reply of the copy script to out, and copies what the script left to others.
func (cp copying) slice(ctx context.Context, reply []any, out *CopySlice) error {
	for {
		var lists [5][]string // copied, referring, big, later, elsewhere
		for i := range lists {
			keys, err := texts(reply[2+i])
			if err != nil {
				return err
			}
			for _, key := range keys {
				if logical, ok := cp.cache.tmpl.Logical(cp.src, key); ok {
					lists[i] = append(lists[i], logical)
				}
			}
		}
		skipped, _ := reply[0].(int64)
		existed, _ := reply[1].(int64)
		out.Skipped += skipped
		out.Existed += existed
		out.Copied += int64(len(lists[0]))
		out.Keys = append(out.Keys, lists[0]...)
		out.Referring = append(out.Referring, lists[1]...)
		for _, logical := range lists[2] {
			if err := cp.big(ctx, logical, out); err != nil {
				return fmt.Errorf("key %s: %w", tasks.Bytes(logical), err)
			}
		}
		if cp.cache.sharded {
			return cp.apart(ctx, lists[3], lists[4], out)
		}
		if len(lists[3]) == 0 {
			return nil
		}
		var err error
		if reply, err = cp.later(ctx, lists[3]); err != nil {
			return err
		}
	}
}

// later copies keys that did not fit their slice. Each call deals with at least one.
func (cp copying) later(ctx context.Context, logical []string) ([]any, error) {
	keys := make([]string, len(logical))
	for i, l := range logical {
		keys[i] = cp.cache.tmpl.Key(cp.src, l)
	}
	reply, err := cp.evalNamed(ctx, len(keys), copyScript, keys, append([]any{0, "", 0}, cp.args()...)...)
	if err != nil {
		return nil, err
	}
	return reply[1:], nil
}

// big copies one value that is too large for a slice, by value.
func (cp copying) big(ctx context.Context, logical string, out *CopySlice) error {
	e, ok, err := cp.readBig(ctx, cp.cache.tmpl.Key(cp.src, logical))
	if err != nil || !ok {
		return err
	}
	e.Key = logical
	if e.Type == tasks.EntryDump || refers(e, cp.cache.tmpl.Prefix(cp.src)) {
		out.Referring = append(out.Referring, logical)
		return nil
	}
	return cp.writeOne(ctx, e, out)
}

// writeOne writes an entry by a command of its own, unless the destination has one.
func (cp copying) writeOne(ctx context.Context, e tasks.Entry, out *CopySlice) error {
	var written bool
	err := cp.cache.patiently(ctx, func() (err error) {
		written, err = cp.writeNew(ctx, e)
		return err
	})
	switch {
	case err != nil:
		return err
	case written:
		out.Copied++
		out.Keys = append(out.Keys, e.Key)
	default:
		out.Existed++
	}
	return nil
}

// writeNew writes an entry unless the destination has one.
func (cp copying) writeNew(ctx context.Context, e tasks.Entry) (bool, error) {
	if e.Type != tasks.EntryString {
		return cp.writeBig(ctx, cp.dst, e, false)
	}
	args := []any{"SET", cp.cache.tmpl.Key(cp.dst, e.Key), e.Value, "NX"}
	if e.ExpiresAt != 0 {
		args = append(args, "PXAT", e.ExpiresAt)
	}
	err := cp.cache.client.Do(ctx, args...).Err()
	if errors.Is(err, redis.Nil) {
		return false, nil
	}
	return err == nil, err
}

// refers reports whether an entry's value holds the prefix.
func refers(e tasks.Entry, prefix string) bool {
	if strings.Contains(e.Value, prefix) {
		return true
	}
	for _, item := range e.Items {
		if strings.Contains(item, prefix) {
			return true
		}
	}
	return false
}
