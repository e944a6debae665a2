package namespace

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/alphanode/stoker/tasks"
)

// ErrRestarted: the server is not the process that gave the cursor, or this program is of another
// version than the one it was given to, so the reading cannot go on from there: begin again, with "".
var ErrRestarted = errors.New("the cache Redis restarted, or another took its place, while it was read")

// Read hands out the release's namespace slice by slice: first the entries, then the tag indexes;
// other reserved keys are left out. fn is called by one goroutine at a time. An entry may come twice, and
// all of them do when the server restarts. The namespace may change meanwhile, yet each value is one that the key held at one moment,
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
// from which a later ReadFrom goes on behind it, by which no entry is missed that is there throughout;
// "" where none can go on just there. A server that restarts, before it or under way, is
// [ErrRestarted]; on a Cluster what it holds is read again.
func (c *Cache) ReadFrom(ctx context.Context, release, cursor string, fn func(entries []tasks.Entry, next string) error) (err error) {
	defer wrap(&err, "read", release)
	if err := c.whole(release); err != nil {
		return err
	}
	pass, at, err := parseReadCursor(cursor)
	if err != nil {
		return err
	}
	if c.sharded {
		return c.readApart(ctx, release, pass, at, fn)
	}
	from, err := strconv.ParseUint(at, 10, 64)
	if err != nil {
		return fmt.Errorf("%w (cursor %q)", ErrRestarted, cursor)
	}
	r := reading{list: c.work(ctx, Work{Verb: verbList}), work: c.work(ctx, Work{Verb: verbRead}), release: release}
	if cursor == "" {
		r.names = c.indexNames(ctx, release)
		defer r.names.close()
	}
	for ; pass < len(readPasses); pass, from = pass+1, 0 {
		if pass == tagPass {
			r.names.scanned()
			if keys, ok := r.names.named(ctx); ok {
				return r.named(ctx, keys, fn)
			}
		}
		err := r.read(ctx, pass, from, func(p parsed) error {
			switch {
			case len(p.entries) == 0:
				return nil
			case !p.whole:
				return fn(p.entries, "")
			case p.next == 0:
				return fn(p.entries, readCursor(pass+1, "0"))
			}
			return fn(p.entries, readCursor(pass, strconv.FormatUint(p.next, 10)))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// named is the pass over the tag indexes where their names are known. A later reading would have to look
// for them, so it begins that pass anew.
func (r reading) named(ctx context.Context, keys []string, fn func([]tasks.Entry, string) error) error {
	for len(keys) > 0 {
		n := min(max(r.count, 1), len(keys))
		entries, err := r.entries(ctx, r.release, keys[:n])
		if err != nil {
			return err
		}
		keys = keys[n:]
		next := readCursor(tagPass, "0")
		if len(keys) == 0 {
			next = readCursor(tagPass+1, "0")
		}
		if len(entries) == 0 {
			continue
		}
		if err := fn(entries, next); err != nil {
			return err
		}
	}
	return nil
}

// tagPass is the pass of readPasses over the tag indexes.
const tagPass = 1

// readPasses are the passes of a reading, one after the other.
var readPasses = [...]struct {
	prefix string // of logical keys
	kept   func(logical string) bool
}{
	{"", func(logical string) bool { return !strings.HasPrefix(logical, tasks.Reserved) }},
	{tasks.TagPrefix(), func(logical string) bool { _, ok := tasks.TagOf(logical); return ok }},
}

// readCursor writes where a reading goes on: the number of its pass, a dot, and the cursor of the SCAN
// or the position on a Cluster.
func readCursor(pass int, at string) string { return fmt.Sprintf("%d.%s", pass, at) }

func parseReadCursor(s string) (pass int, at string, err error) {
	if s == "" {
		return 0, "0", nil
	}
	before, at, _ := strings.Cut(s, ".")
	pass, err = strconv.Atoi(before)
	if err != nil || pass < 0 || pass > len(readPasses) {
		return 0, "", fmt.Errorf("%w (cursor %q)", ErrRestarted, s)
	}
	return pass, at, nil
}

// readyValues is how many slices of values lie ready, of a mebibyte at most each, so that who takes them may
// be busy for some time with what it has, such as with compressing a block of an archive.
const readyValues = 8

// reading is one run of ReadFrom. Keys are listed, values read and entries handed out side by side,
// each one step ahead of the next: the server need not wait for whoever takes what it has read.
type reading struct {
	list *work
	*work
	release string
	names   *indexNames // of the tag indexes that its first pass comes by
}

// read does one pass of a reading, from a SCAN's cursor on.
func (r reading) read(ctx context.Context, pass int, at uint64, fn func(parsed) error) error {
	for p, err := range ahead(r.values(ctx, pass, at), readyValues) {
		if err != nil {
			return err
		}
		if err := fn(p); err != nil {
			return err
		}
	}
	return nil
}

// parsed is a part of a reading.
type parsed struct {
	entries []tasks.Entry
	next    uint64 // the cursor behind what was listed in one step, 0 at the end
	whole   bool   // these are the last of that step: a reading may go on from next
}

// values reads the listed keys of a pass in slices.
func (r reading) values(ctx context.Context, pass int, at uint64) iter.Seq2[parsed, error] {
	return func(yield func(parsed, error) bool) {
		for l, err := range ahead(r.list.keys(ctx, r.release, pass, at, r.names), 0) {
			for len(l.keys) > 0 && err == nil {
				n := min(max(r.count, 1), len(l.keys))
				p := parsed{next: l.next, whole: n == len(l.keys)}
				if p.entries, err = r.entries(ctx, r.release, l.keys[:n]); err != nil {
					break
				}
				l.keys = l.keys[n:]
				if !yield(p, nil) {
					return
				}
			}
			if err != nil {
				yield(parsed{}, err)
				return
			}
		}
	}
}

// listed is what one step of a SCAN found.
type listed struct {
	keys []string // as the server has them
	next uint64   // the cursor behind them, 0 at the end
}

// keys lists what a pass keeps of the keys of a release, and lets x, which may be nil, see all of them.
func (w *work) keys(ctx context.Context, release string, pass int, at uint64, x *indexNames) iter.Seq2[listed, error] {
	p := readPasses[pass]
	return func(yield func(listed, error) bool) {
		for s, err := range w.slices(ctx, listScript, nil, release, p.prefix, at) {
			l := listed{next: s.next}
			if err == nil && s.restarted && w.shard == nil {
				err = ErrRestarted
			}
			if err == nil {
				l.keys, err = texts(s.reply)
				x.saw(l.keys)
			}
			l.keys = slices.DeleteFunc(l.keys, func(key string) bool {
				logical, ok := w.cache.tmpl.Logical(release, key)
				return !ok || !p.kept(logical)
			})
			if !yield(l, err) || err != nil {
				return
			}
		}
	}
}

// entries reads keys of a release. Those that have gone are left out.
func (w *work) entries(ctx context.Context, release string, keys []string) (out []tasks.Entry, err error) {
	all := len(keys)
	if !w.cache.sharded && !w.mixed { // on a Cluster a transaction's keys are of one slot
		if out, keys, err = w.strings(ctx, release, keys); err != nil {
			return nil, err
		}
	}
	defer func() { w.mixed = 2*small(out) < all }()
	var elsewhere []string
	for len(keys) > 0 {
		reply, err := w.items(ctx, keys)
		if err != nil {
			return nil, err
		}
		var big, later []string
		for _, raw := range reply {
			item, err := parseItem(raw)
			if err != nil {
				return nil, err
			}
			switch {
			case item.left == leftBig:
				big = append(big, item.key)
			case item.left == leftLater: // each call reads at least one
				later = append(later, item.key)
			case item.left == leftElsewhere:
				elsewhere = append(elsewhere, item.key)
			case item.gone():
			default:
				item.Key, _ = w.cache.tmpl.Logical(release, item.key)
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
		keys = later
	}
	if len(elsewhere) == 0 {
		return out, nil
	}
	anywhere := *w
	anywhere.shard = nil
	rest, err := anywhere.entries(ctx, release, elsewhere)
	return append(out, rest...), err
}

// items runs the read script on keys.
func (w *work) items(ctx context.Context, keys []string) ([]any, error) {
	switch {
	case w.shard != nil:
		return w.eval(ctx, len(keys), readScript, nil, arguments(keys, bigValue, sliceBytes)...)
	case w.cache.sharded:
		return w.onebyone(ctx, keys)
	}
	return w.eval(ctx, len(keys), readScript, keys, bigValue, sliceBytes)
}

// Why the read script left an item out.
const (
	leftBig       = "big"
	leftLater     = "later"
	leftElsewhere = "elsewhere"
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
