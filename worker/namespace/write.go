package namespace

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

const (
	partPrefix = tasks.Reserved + "part:"
	// partLife is how long the parts of a big value outlive a writer that died.
	partLife = time.Hour
)

// Put is an entry to be written with the tags that invalidate it.
type Put struct {
	tasks.Entry
	Tags []string
}

// Write replaces entries, tag indexes first; to an index it adds and never replaces it.
// Entries that have expired and reserved keys other than tag indexes are left out. Each entry
// appears whole; after an error any of them may have been written, and writing them all
// again is safe.
func (c *Cache) Write(ctx context.Context, release string, entries []tasks.Entry) (err error) {
	defer wrap(&err, "write", release)
	if err := c.named(release); err != nil {
		return err
	}
	var indexes, values []tasks.Entry
	now := time.Now().UnixMilli()
	for _, e := range entries {
		_, isTag := tasks.TagOf(e.Key)
		if err := e.Validate(); err != nil {
			return err
		}
		switch {
		case isTag && e.Type != tasks.EntryZSet:
			return fmt.Errorf("%w: tag index %s is a %s, want a zset", tasks.ErrInvalid, tasks.Bytes(e.Key), e.Type)
		case isTag:
			indexes = append(indexes, e)
		case kept(e.Key):
			if left, ok := e.Left(now); ok {
				values = append(values, left)
			}
		}
	}
	w := c.work(ctx, Work{Verb: verbWrite, Adds: true})
	for _, e := range indexes {
		if err := c.patiently(ctx, func() error { return w.add(ctx, c.tmpl.Key(release, e.Key), e) }); err != nil {
			return err
		}
	}
	return w.write(ctx, release, values)
}

// Put writes entries with their tags: the tags' indexes first, then the entries, in one
// pipeline. Entries that have expired are left out. When an index refuses an entry, none of the
// entries is left behind: one that no tag finds would outlive its invalidation.
func (c *Cache) Put(ctx context.Context, release string, entries []Put) (err error) {
	defer wrap(&err, "put into", release)
	if err := c.named(release); err != nil {
		return err
	}
	now := time.Now().UnixMilli()
	indexes := map[string][]redis.Z{}
	var values, companions, big []tasks.Entry
	for _, e := range entries {
		if err := e.Validate(); err != nil {
			return err
		}
		if strings.HasPrefix(e.Key, tasks.Reserved) {
			return fmt.Errorf("%w: key %s: keys that begin with %s are stoker's own", tasks.ErrInvalid, tasks.Bytes(e.Key), tasks.Reserved)
		}
		var ok bool
		if e.Entry, ok = e.Left(now); !ok {
			continue
		}
		for _, tag := range e.Tags {
			indexes[tag] = append(indexes[tag], redis.Z{Score: expiryScore(e.ExpiresAt), Member: e.Key})
		}
		if isBig(e.Entry) {
			big = append(big, e.Entry)
		} else {
			values = append(values, e.Entry)
			companions = append(companions, c.companion(e)...)
		}
	}
	return c.put(ctx, release, indexes, values, companions, big)
}

// companion returns what tells an entry's tags, if anything does. On a Cluster it would lie in
// another slot than its entry, where no script could compare them.
func (c *Cache) companion(e Put) []tasks.Entry {
	if c.sharded || e.Type != tasks.EntryString {
		return nil
	}
	note := tasks.Companion(e.Value, e.ExpiresAt, e.Tags)
	if note == "" {
		return nil
	}
	return []tasks.Entry{{Key: tasks.CompanionKey(e.Key), Type: tasks.EntryString, Value: note, ExpiresAt: e.ExpiresAt}}
}

func (c *Cache) put(ctx context.Context, release string, indexes map[string][]redis.Z, values, companions, big []tasks.Entry) error {
	if len(values)+len(big) == 0 {
		return nil
	}
	w := c.work(ctx, Work{Verb: verbPut, Adds: true})
	var adds []*redis.IntCmd
	list := func(p redis.Pipeliner) {
		adds = adds[:0]
		for tag, members := range indexes {
			adds = append(adds, p.ZAdd(ctx, c.tmpl.Key(release, tasks.TagIndex(tag)), members...))
		}
	}
	if c.sharded {
		return c.putApart(ctx, release, w, list, values, big)
	}
	err := w.run(ctx, c.client, max(len(values), 1), func(p redis.Pipeliner) {
		list(p)
		for _, e := range values {
			set(ctx, p, c.tmpl.Key(release, e.Key), e)
		}
		for _, e := range companions {
			set(ctx, p, c.tmpl.Key(release, e.Key), e)
		}
	})
	for _, add := range adds {
		if add.Err() != nil {
			return c.takeBack(ctx, release, values, fmt.Errorf("add to tag index: %w", add.Err()))
		}
	}
	if err != nil {
		return err
	}
	for _, e := range big {
		if err := w.replaceBig(ctx, release, e); err != nil {
			return err
		}
	}
	return nil
}

// takeBack removes entries whose tag index failed, and returns why it did.
func (c *Cache) takeBack(ctx context.Context, release string, values []tasks.Entry, cause error) error {
	keys := make([]string, len(values))
	for i, e := range values {
		keys[i] = e.Key
	}
	if _, err := c.Remove(ctx, release, keys); err != nil {
		return fmt.Errorf("%w (and then: %v)", cause, err)
	}
	return cause
}

// write writes entries in slices.
func (w *work) write(ctx context.Context, release string, entries []tasks.Entry) error {
	for len(entries) > 0 {
		if isBig(entries[0]) {
			if err := w.replaceBig(ctx, release, entries[0]); err != nil {
				return err
			}
			entries = entries[1:]
			continue
		}
		n := w.batch(entries)
		err := w.cache.patiently(ctx, func() error {
			return w.run(ctx, w.cache.client, n, func(p redis.Pipeliner) {
				for _, e := range entries[:n] {
					set(ctx, p, w.cache.tmpl.Key(release, e.Key), e)
				}
			})
		})
		if err != nil {
			return err
		}
		entries = entries[n:]
	}
	return nil
}

// batch returns how many of the entries, at least one, make the next slice.
func (w *work) batch(entries []tasks.Entry) int {
	n, size := 0, 0
	for n < len(entries) && n < w.count && !isBig(entries[n]) {
		size += entries[n].Size()
		if n > 0 && size > sliceBytes {
			break
		}
		n++
	}
	return n
}

// set queues the one command that replaces a key by an entry which is not big.
func set(ctx context.Context, p redis.Pipeliner, key string, e tasks.Entry) {
	switch e.Type {
	case tasks.EntryString:
		args := []any{"SET", key, e.Value}
		if e.ExpiresAt != 0 {
			args = append(args, "PXAT", e.ExpiresAt)
		}
		p.Do(ctx, args...)
	case tasks.EntryDump:
		p.Do(ctx, "RESTORE", key, e.ExpiresAt, e.Value, "REPLACE", "ABSTTL")
	case tasks.EntryHash:
		if len(e.FieldsExpireAt) > 0 {
			hashScript.EvalSha(ctx, p, []string{key}, append([]any{1, e.ExpiresAt}, fields(e.Items, e.FieldsExpireAt)...)...)
			return
		}
		fallthrough
	default:
		writeScript.EvalSha(ctx, p, []string{key}, append([]any{adders[e.Type], e.ExpiresAt}, operands(e.Type, e.Items)...)...)
	}
}

// adders are the commands that add items to a collection.
var adders = map[string]string{
	tasks.EntryHash: "HSET",
	tasks.EntryList: "RPUSH",
	tasks.EntrySet:  "SADD",
	tasks.EntryZSet: "ZADD",
}

// operands returns items as their type's command takes them: ZADD wants the score first.
func operands(kind string, items []string) []any {
	out := make([]any, len(items))
	for i, item := range items {
		if kind == tasks.EntryZSet {
			i ^= 1
		}
		out[i] = item
	}
	return out
}

// fields returns a hash's fields, each with its value and expiry, as the hash script takes them.
func fields(items []string, expiries []int64) []any {
	out := make([]any, 0, 3*len(expiries))
	for i, at := range expiries {
		out = append(out, items[2*i], items[2*i+1], at)
	}
	return out
}

// isBig reports whether an entry is a collection that takes several steps to write. Strings
// and dumps go in one command: the server takes them over as they arrive.
func isBig(e tasks.Entry) bool {
	return len(e.Items) > 2*chunkItems || len(e.Items) > 0 && e.Size() > bigValue
}

// replaceBig replaces a key by a big collection.
func (w *work) replaceBig(ctx context.Context, release string, e tasks.Entry) error {
	return w.cache.patiently(ctx, func() error {
		_, err := w.writeBig(ctx, release, e, true)
		return err
	})
}

// writeBig writes a collection in chunks under a name of its own and puts it in place when it is
// complete, so that nobody sees half of it. written is false when replace is too and the key
// exists.
func (w *work) writeBig(ctx context.Context, release string, e tasks.Entry, replace bool) (written bool, err error) {
	key := w.cache.tmpl.Key(release, e.Key)
	part := w.cache.part(release, e.Key)
	if err := w.add(ctx, part, e); err != nil {
		return false, err
	}
	var renamed *redis.BoolCmd
	_, err = w.cache.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		if e.ExpiresAt == 0 {
			p.Persist(ctx, part)
		} else {
			p.Do(ctx, "PEXPIREAT", part, e.ExpiresAt)
		}
		if replace {
			p.Unlink(ctx, key) // a rename over a large value would free it while everybody waits
			p.Rename(ctx, part, key)
		} else {
			renamed = p.RenameNX(ctx, part, key)
		}
		return nil
	})
	switch {
	case redis.HasErrorPrefix(err, "no such key") && (e.ExpiresAt != 0 || len(e.FieldsExpireAt) > 0):
		return false, nil // it has expired meanwhile
	case err != nil || replace || renamed.Val():
		return err == nil, err
	}
	return false, w.cache.client.Unlink(ctx, part).Err()
}

// add adds a collection's items to a key in slices. Anything but a tag index expires soon
// unless its writer lives to say otherwise.
func (w *work) add(ctx context.Context, key string, e tasks.Entry) error {
	_, isTag := tasks.TagOf(e.Key)
	expiries := e.FieldsExpireAt
	for items := e.Items; len(items) > 0; {
		n := itemBatch(items)
		err := w.run(ctx, w.cache.client, n, func(p redis.Pipeliner) {
			if len(expiries) > 0 {
				hashScript.EvalSha(ctx, p, []string{key}, append([]any{0, 0}, fields(items[:n], expiries[:n/2])...)...)
			} else {
				p.Do(ctx, append([]any{adders[e.Type], key}, operands(e.Type, items[:n])...)...)
			}
			if !isTag {
				p.PExpire(ctx, key, partLife)
			}
		})
		if err != nil {
			return err
		}
		items = items[n:]
		expiries = expiries[min(n/2, len(expiries)):]
	}
	return nil
}

// itemBatch returns how many of a collection's items make the next step: an even number, since
// those of hashes and sorted sets come in pairs.
func itemBatch(items []string) int {
	n, size := 0, 0
	for n < len(items) && n < 2*chunkItems && size < sliceBytes {
		size += len(items[n])
		n++
	}
	return min(n+n%2, len(items))
}

// expiryScore is an entry's score in a tag index.
func expiryScore(expiresAt int64) float64 {
	if expiresAt == 0 {
		return forever
	}
	return float64(expiresAt)
}

// milliseconds writes a time as scripts take it.
func milliseconds(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }
