package namespace

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/alphanode/stoker/tasks"
)

// ErrRestarted: the server is not the process that gave the cursor, or this program is of another
// version than the one it was given to, so the reading cannot go on from there: begin again, with "".
var ErrRestarted = errors.New("the cache Redis restarted, or another took its place, while it was read")

// Read hands out the release's namespace slice by slice: first the entries, then the tag indexes;
// other reserved keys are left out. An entry may come twice, and all of them do when the server
// restarts. The namespace may change meanwhile, yet each value is one that the key held at one moment,
// however large it is. And because a writer lists an entry before it sets it, every entry handed out is
// in the indexes that follow.
func (c *Cache) Read(ctx context.Context, release string, fn func(entries []tasks.Entry) error) error {
	for {
		err := c.ReadFrom(ctx, release, "", func(entries []tasks.Entry, _ string) error { return fn(entries) })
		if !errors.Is(err, ErrRestarted) {
			return err
		}
	}
}

// ReadFrom reads like Read, from a cursor on: "" for the beginning. With each slice comes the cursor
// from which a later ReadFrom goes on behind it, by which no entry is missed that is there throughout.
// A server that restarts, before it or under way, is ErrRestarted.
func (c *Cache) ReadFrom(ctx context.Context, release, cursor string, fn func(entries []tasks.Entry, next string) error) (err error) {
	defer wrap(&err, "read", release)
	if err := c.whole(release); err != nil {
		return err
	}
	pass, at, err := parseReadCursor(cursor)
	if err != nil {
		return err
	}
	w := c.work(ctx, Work{Verb: verbRead})
	for ; pass < len(readPasses); pass, at = pass+1, 0 {
		if err := w.read(ctx, release, pass, at, fn); err != nil {
			return err
		}
	}
	return nil
}

// readPasses are the passes of a reading, one after the other.
var readPasses = [...]struct {
	prefix string // of logical keys
	kept   func(logical string) bool
}{
	{"", func(logical string) bool { return !strings.HasPrefix(logical, tasks.Reserved) }},
	{tasks.TagPrefix(), func(logical string) bool { _, ok := tasks.TagOf(logical); return ok }},
}

// readCursor writes where a reading goes on: the number of its pass, a dot, the cursor of the SCAN.
func readCursor(pass int, at uint64) string { return fmt.Sprintf("%d.%d", pass, at) }

func parseReadCursor(s string) (pass int, at uint64, err error) {
	if s == "" {
		return 0, 0, nil
	}
	before, after, _ := strings.Cut(s, ".")
	pass, passErr := strconv.Atoi(before)
	at, atErr := strconv.ParseUint(after, 10, 64)
	if passErr != nil || atErr != nil || pass < 0 || pass > len(readPasses) {
		return 0, 0, fmt.Errorf("%w (cursor %q)", ErrRestarted, s)
	}
	return pass, at, nil
}

// read does one pass of a reading, from a SCAN's cursor on: a slice is handed out while the next one is
// read.
func (w *work) read(ctx context.Context, release string, pass int, at uint64, fn func([]tasks.Entry, string) error) error {
	for s, err := range ahead(w.parsed(ctx, release, pass, at)) {
		if err != nil {
			return err
		}
		if len(s.entries) == 0 {
			continue
		}
		if err := fn(s.entries, s.next); err != nil {
			return err
		}
	}
	return nil
}

// parsed is what a slice of a reading holds.
type parsed struct {
	entries []tasks.Entry
	next    string // the cursor behind them
}

// parsed returns the entries of each slice of a pass.
func (w *work) parsed(ctx context.Context, release string, pass int, at uint64) iter.Seq2[parsed, error] {
	p := readPasses[pass]
	return func(yield func(parsed, error) bool) {
		for s, err := range w.slices(ctx, readScript, nil, release, p.prefix, at, bigValue, sliceBytes) {
			var out parsed
			if err == nil && s.restarted {
				err = ErrRestarted
			}
			if err == nil {
				out.entries, err = w.entries(ctx, release, s.reply, p.kept)
			}
			if out.next = readCursor(pass, s.next); s.next == 0 {
				out.next = readCursor(pass+1, 0)
			}
			if !yield(out, err) || err != nil {
				return
			}
		}
	}
}

// entries turns a reply of the read script into entries, and fetches those it left out.
func (w *work) entries(ctx context.Context, release string, reply []any, kept func(logical string) bool) ([]tasks.Entry, error) {
	var out []tasks.Entry
	for len(reply) > 0 {
		var big, later []string
		for _, raw := range reply {
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
		if reply, err = w.again(ctx, later); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// again reads keys that did not fit their slice. Each call reads at least one of them.
func (w *work) again(ctx context.Context, keys []string) ([]any, error) {
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
