package namespace

import (
	"context"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// bigTries is how often a value is read in chunks before it is read in one go: one that changes
// all the time is read right, at the price of one long command.
const bigTries = 5

// readBig reads a value too large for a slice, in chunks, as it was at one moment: the key is
// watched, and a value that changed between its chunks is read again. ok is false when the key
// has gone.
func (w *work) readBig(ctx context.Context, key string) (e tasks.Entry, ok bool, err error) {
	for range bigTries {
		err = w.cache.client.Watch(ctx, func(tx *redis.Tx) error {
			if e, ok, err = (bigReader{w, tx, key}).read(ctx); err != nil {
				return err
			}
			_, err := tx.TxPipelined(ctx, func(p redis.Pipeliner) error {
				p.Exists(ctx, key) // any command: EXEC tells whether the key was touched
				return nil
			})
			return err
		}, key)
		if w.cache.sharded && transient(err) {
			break // a watched connection follows no redirection
		}
		if !errors.Is(err, redis.TxFailedErr) {
			return e, ok, err
		}
	}
	return w.readAtOnce(ctx, key)
}

// readAtOnce reads a value of any size in one step.
func (w *work) readAtOnce(ctx context.Context, key string) (e tasks.Entry, ok bool, err error) {
	reply, err := w.evalNamed(ctx, 1, readScript, []string{key}, int64(math.MaxInt64), 0)
	if err != nil || len(reply) == 0 {
		return e, false, err
	}
	it, err := parseItem(reply[0])
	return it.Entry, err == nil && !it.gone(), err
}

// bigReader reads one key in chunks over one connection.
type bigReader struct {
	work *work
	tx   *redis.Tx
	key  string
}

func (r bigReader) read(ctx context.Context) (tasks.Entry, bool, error) {
	kind, err := r.tx.Type(ctx, r.key).Result()
	if err != nil || kind == "none" {
		return tasks.Entry{}, false, err
	}
	expiry, err := r.tx.Do(ctx, "PEXPIRETIME", r.key).Int64()
	if err != nil || expiry == -2 {
		return tasks.Entry{}, false, err
	}
	e := tasks.Entry{Type: kind, ExpiresAt: max(expiry, 0)}
	switch kind {
	case tasks.EntryString:
		e.Value, err = r.text(ctx)
	case tasks.EntryList:
		e.Items, err = r.ranged(ctx, r.tx.LLen(ctx, r.key), r.list)
	case tasks.EntryZSet:
		e.Items, err = r.ranged(ctx, r.tx.ZCard(ctx, r.key), r.ranks)
	case tasks.EntrySet:
		e.Items, err = r.scanned(ctx, 1, redis.Pipeliner.SScan)
	case tasks.EntryHash:
		if e.Items, err = r.scanned(ctx, 2, redis.Pipeliner.HScan); err == nil {
			err = r.expiries(ctx, &e)
		}
		return e, err == nil && len(e.Items) > 0, err // the last field may have expired meanwhile
	default:
		e.Type = tasks.EntryDump
		e.Value, err = r.tx.Dump(ctx, r.key).Result()
	}
	return e, err == nil, err
}

// expiries reads when a hash's fields expire. A field that has gone since it was read is left out,
// since its expiry need not touch the watched key.
func (r bigReader) expiries(ctx context.Context, e *tasks.Entry) error {
	var times []int64
	for at := 0; at < len(e.Items); {
		n := min(r.work.count, len(e.Items)/2-at/2)
		names := make([]any, n)
		for i := range names {
			names[i] = e.Items[at+2*i]
		}
		var cmd *redis.Cmd
		err := r.work.run(ctx, r.tx, n, func(p redis.Pipeliner) {
			cmd = expiriesScript.EvalSha(ctx, p, []string{r.key}, names...)
		})
		if err != nil {
			return err
		}
		part, err := cmd.Int64Slice()
		switch {
		case err != nil || len(part) == 0 && at == 0:
			return err // no field of it can have one
		case len(part) != n:
			return redis.TxFailedErr // it has become another hash: read it again
		}
		times = append(times, part...)
		at += 2 * n
	}
	setExpiries(e, times)
	return nil
}

// text reads a string; an item of it is a kilobyte.
func (r bigReader) text(ctx context.Context) (string, error) {
	size, err := r.tx.StrLen(ctx, r.key).Result()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.Grow(int(size))
	for at := int64(0); at < size; at = int64(b.Len()) {
		n := int64(r.work.count)
		var cmd *redis.StringCmd
		err := r.work.run(ctx, r.tx, int(n), func(p redis.Pipeliner) {
			cmd = p.GetRange(ctx, r.key, at, at+n*1024-1)
		})
		if err != nil {
			return "", err
		}
		if cmd.Val() == "" {
			return "", redis.TxFailedErr // it has shrunk: read it again
		}
		b.WriteString(cmd.Val())
	}
	return b.String(), nil
}

// rangeOf queues the command that reads a part of a collection, and returns how to get its items.
type rangeOf func(ctx context.Context, p redis.Pipeliner, from, to int64) func() []string

// ranged reads a collection that has an order, by position.
func (r bigReader) ranged(ctx context.Context, count *redis.IntCmd, part rangeOf) ([]string, error) {
	var out []string
	all, err := count.Result()
	for at := int64(0); at < all && err == nil; {
		n := int64(r.work.count)
		var items func() []string
		err = r.work.run(ctx, r.tx, int(n), func(p redis.Pipeliner) { items = part(ctx, p, at, at+n-1) })
		if err == nil {
			out = append(out, items()...)
		}
		at += n
	}
	return out, err
}

func (r bigReader) list(ctx context.Context, p redis.Pipeliner, from, to int64) func() []string {
	return p.LRange(ctx, r.key, from, to).Val
}

func (r bigReader) ranks(ctx context.Context, p redis.Pipeliner, from, to int64) func() []string {
	cmd := p.ZRangeWithScores(ctx, r.key, from, to)
	return func() []string {
		out := make([]string, 0, 2*len(cmd.Val()))
		for _, z := range cmd.Val() {
			member, _ := z.Member.(string)
			out = append(out, member, score(z.Score))
		}
		return out
	}
}

// scanOf queues a step of a collection's own scan: SSCAN or HSCAN.
type scanOf func(p redis.Pipeliner, ctx context.Context, key string, cursor uint64, match string, count int64) *redis.ScanCmd

// scanned reads a collection without an order. Its items, of width strings each, may come twice
// from the server, so doubles are dropped.
func (r bigReader) scanned(ctx context.Context, width int, scan scanOf) ([]string, error) {
	var out []string
	for cursor := uint64(0); ; {
		var cmd *redis.ScanCmd
		err := r.work.run(ctx, r.tx, r.work.count, func(p redis.Pipeliner) {
			cmd = scan(p, ctx, r.key, cursor, "", int64(r.work.count))
		})
		if err != nil {
			return nil, err
		}
		var items []string
		items, cursor = cmd.Val()
		out = append(out, items...)
		if cursor == 0 {
			return distinct(out, width), nil
		}
	}
}

// distinct sorts items of width strings by their first and drops doubles.
func distinct(flat []string, width int) []string {
	if width == 1 {
		slices.Sort(flat)
		return slices.Compact(flat)
	}
	pairs := make([][2]string, 0, len(flat)/2)
	for pair := range slices.Chunk(flat, 2) {
		pairs = append(pairs, [2]string(pair))
	}
	slices.SortFunc(pairs, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	pairs = slices.CompactFunc(pairs, func(a, b [2]string) bool { return a[0] == b[0] })
	out := flat[:0]
	for _, p := range pairs {
		out = append(out, p[0], p[1])
	}
	return out
}

// score writes a sorted set's score so that reading it gives the same number.
func score(f float64) string {
	switch {
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}
