package namespace

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/alphanode/stoker/tasks"
)

// Read hands out the release's namespace slice by slice: first the entries, then the tag indexes;
// other reserved keys are left out. An entry may come twice. The namespace may change meanwhile,
// yet each value is one that the key held at one moment, however large it is. And because a
// writer lists an entry before it sets it, every entry handed out is in the indexes that follow.
func (c *Cache) Read(ctx context.Context, release string, fn func(entries []tasks.Entry) error) (err error) {
	defer wrap(&err, "read", release)
	if err := c.named(release); err != nil {
		return err
	}
	w := c.work(ctx, Work{Verb: verbRead})
	isIndex := func(logical string) bool { _, ok := tasks.TagOf(logical); return ok }
	isEntry := func(logical string) bool { return !strings.HasPrefix(logical, tasks.Reserved) }
	if err := w.read(ctx, release, "", isEntry, fn); err != nil {
		return err
	}
	return w.read(ctx, release, tasks.TagPrefix(), isIndex, fn)
}

// read hands out what is kept of the keys under a logical prefix, while the next slice is read.
func (w *work) read(ctx context.Context, release, prefix string, kept func(logical string) bool, fn func([]tasks.Entry) error) error {
	for entries, err := range ahead(w.parsed(ctx, release, prefix, kept)) {
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			continue
		}
		if err := fn(entries); err != nil {
			return err
		}
	}
	return nil
}

// parsed returns the entries of each slice.
func (w *work) parsed(ctx context.Context, release, prefix string, kept func(logical string) bool) iter.Seq2[[]tasks.Entry, error] {
	return func(yield func([]tasks.Entry, error) bool) {
		for s, err := range w.slices(ctx, byKey(readScript, bigValue, sliceBytes), release, prefix, 0) {
			var entries []tasks.Entry
			if err == nil {
				entries, err = w.entries(ctx, release, items(s.replies), kept)
			}
			if !yield(entries, err) || err != nil {
				return
			}
		}
	}
}

// items joins replies that are lists.
func items(replies []reply) []any {
	if len(replies) == 1 {
		return replies[0].values
	}
	out := make([]any, 0, len(replies))
	for _, r := range replies {
		out = append(out, r.values...)
	}
	return out
}

// entries turns items of the read script into entries, and fetches those it left out.
func (w *work) entries(ctx context.Context, release string, found []any, kept func(logical string) bool) ([]tasks.Entry, error) {
	var out []tasks.Entry
	for len(found) > 0 {
		var big, later []string
		for _, raw := range found {
			item, err := parseItem(raw)
			if err != nil {
				return nil, err
			}
			logical, ok := w.cache.tmpl.Logical(release, item.key)
			switch {
			case !ok || !kept(logical):
			case item.left == leftBig:
				big = append(big, item.key)
			case item.left == leftLater:
				later = append(later, item.key)
			case item.gone():
			default:
				item.Key = logical
				out = append(out, item.Entry)
			}
		}
		for _, key := range big {
			e, ok, err := w.readBig(ctx, key)
			if err != nil {
				return nil, fmt.Errorf("key %s: %w", tasks.Bytes(key), err)
			}
			if ok {
				e.Key, _ = w.cache.tmpl.Logical(release, key)
				out = append(out, e)
			}
		}
		if len(later) == 0 {
			return out, nil
		}
		var err error
		if found, err = w.again(ctx, later); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// again reads keys that did not fit their slice. Each call reads at least one of them.
func (w *work) again(ctx context.Context, keys []string) ([]any, error) {
	if w.cache.sharded {
		replies, err := w.one(ctx, byKey(readScript, bigValue, sliceBytes), keys)
		return items(replies), err
	}
	reply, err := w.eval(ctx, len(keys), readScript, keys, 0, "", 0, bigValue, sliceBytes)
	if err != nil {
		return nil, err
	}
	return reply[1:], nil
}

// Why the read script left an item out.
const (
	leftBig   = "big"
	leftLater = "later"
)

// item is one item of the read script's reply: an entry, or why it was left out.
type item struct {
	key  string // as the server has it
	left string
	tasks.Entry
}

// gone reports a hash whose fields all expired while it was read.
func (it item) gone() bool { return it.Type == tasks.EntryHash && len(it.Items) == 0 }

func parseItem(raw any) (item, error) {
	fields, _ := raw.([]any)
	var it item
	var ok [2]bool
	switch len(fields) {
	case 2:
		it.key, ok[0] = fields[0].(string)
		it.left, ok[1] = fields[1].(string)
	case 4, 5:
		it.key, ok[0] = fields[0].(string)
		it.Type, ok[1] = fields[1].(string)
		expiry, isInt := fields[2].(int64)
		if !isInt {
			return it, fmt.Errorf("read: expiry is a %T", fields[2])
		}
		it.ExpiresAt = max(expiry, 0)
		var err error
		if it.Value, it.Items, err = parseValue(fields[3]); err != nil {
			return it, err
		}
		if len(fields) == 5 {
			times, err := numbers(fields[4])
			if err != nil {
				return it, err
			}
			setExpiries(&it.Entry, times)
		}
	}
	if !ok[0] || !ok[1] {
		return it, fmt.Errorf("read: item of %d fields", len(fields))
	}
	return it, nil
}

func parseValue(raw any) (string, []string, error) {
	switch v := raw.(type) {
	case string:
		return v, nil, nil
	case []any:
		items, err := texts(v)
		return "", items, err
	default:
		return "", nil, fmt.Errorf("read: value is a %T", raw)
	}
}

// setExpiries gives a hash the expiries of its fields as the server tells them: -1 for never, -2
// for a field that has gone since its value was read.
func setExpiries(e *tasks.Entry, times []int64) {
	items := e.Items
	e.Items = make([]string, 0, len(items))
	e.FieldsExpireAt = make([]int64, 0, len(times))
	expires := false
	for i, at := range times {
		if at == -2 {
			continue
		}
		e.Items = append(e.Items, items[2*i:2*i+2]...)
		e.FieldsExpireAt = append(e.FieldsExpireAt, max(at, 0))
		expires = expires || at > 0
	}
	if !expires {
		e.FieldsExpireAt = nil
	}
}

// numbers returns a reply's list as integers.
func numbers(raw any) ([]int64, error) {
	list, ok := raw.([]any)
	if !ok {
		return nil, fmt.Errorf("reply is a %T, want a list", raw)
	}
	out := make([]int64, len(list))
	for i, v := range list {
		if out[i], ok = v.(int64); !ok {
			return nil, fmt.Errorf("reply holds a %T, want a number", v)
		}
	}
	return out, nil
}

// texts returns a reply's list as strings.
func texts(raw any) ([]string, error) {
	list, ok := raw.([]any)
	if !ok {
		return nil, fmt.Errorf("reply is a %T, want a list", raw)
	}
	out := make([]string, len(list))
	for i, v := range list {
		if out[i], ok = v.(string); !ok {
			return nil, fmt.Errorf("reply holds a %T, want a string", v)
		}
	}
	return out, nil
}

// kept reports whether a logical key is an entry's or a tag index's.
func kept(logical string) bool {
	_, isTag := tasks.TagOf(logical)
	return isTag || !strings.HasPrefix(logical, tasks.Reserved)
}
