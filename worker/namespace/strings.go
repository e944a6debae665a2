package namespace

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

const (
	// smallString is the size of a value, in bytes, up to which commands read it rather than a script.
	smallString = 4 << 10
	// smallStrings is how many of them one slice reads at most: 4 MiB.
	smallStrings = 1000
)

// strings reads the keys that are small strings, in transactions of plain commands: that takes the
// server less than half of what the script takes it, and most entries of most sites are such.
// It returns the keys to read otherwise: other types, larger values.
func (w *work) strings(ctx context.Context, release string, keys []string) (out []tasks.Entry, rest []string, err error) {
	for len(keys) > 0 {
		n := min(len(keys), smallStrings)
		var done *redis.Cmd
		err := w.run(ctx, w.on, n, func(p redis.Pipeliner) {
			p.Do(ctx, "MULTI") // a value and its expiry are of one moment
			for _, key := range keys[:n] {
				p.Do(ctx, "PEXPIRETIME", key)
				p.Do(ctx, "GETRANGE", key, 0, smallString)
			}
			done = p.Do(ctx, "EXEC")
		})
		if err != nil {
			return nil, nil, err
		}
		replies, err := done.Slice()
		if err != nil || len(replies) != 2*n {
			return nil, nil, fmt.Errorf("read %d keys: %d replies, error %v", n, len(replies), err)
		}
		for i, key := range keys[:n] {
			expiry, isNumber := replies[2*i].(int64)
			value, isString := replies[2*i+1].(string)
			switch {
			case !isNumber:
				return nil, nil, fmt.Errorf("read: expiry is a %T", replies[2*i])
			case expiry == -2: // gone
			case !isString || len(value) > smallString: // WRONGTYPE, for one
				rest = append(rest, key)
			default:
				logical, _ := w.cache.tmpl.Logical(release, key)
				out = append(out, tasks.Entry{Key: logical, Type: tasks.EntryString, Value: value, ExpiresAt: max(expiry, 0)})
			}
		}
		keys = keys[n:]
	}
	return out, rest, nil
}

// small counts the entries that strings would have read.
func small(entries []tasks.Entry) (n int) {
	for _, e := range entries {
		if e.Type == tasks.EntryString && len(e.Value) <= smallString {
			n++
		}
	}
	return n
}
