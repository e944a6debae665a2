package namespace

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// maxPasses is how often the primaries that have changed are scanned again before work concludes that
// the Cluster does not come to rest.
const maxPasses = 50

// middle is the cursor handed out in the middle of a Cluster's scan: a number that no server's process
// gives, so that a later scan begins from the start.
const middle = 1

// census tells which primaries of a Cluster have to be scanned still, so that no key can have been
// missed: see doc.go.
type census struct {
	passes int
	last   map[string]scan // by node ID
	moves  map[move]bool   // that were open at some time
}

// scan is the last one of a primary.
type scan struct {
	pass  int
	at    shard // as it was before that
	ended bool
}

func newCensus() *census { return &census{last: map[string]scan{}, moves: map[move]bool{}} }

// due returns the primaries to scan in the next pass; none when the census is complete. t is
// the topology as it is after the last pass.
func (c *census) due(t topology) []shard {
	for _, m := range t.moves {
		c.moves[m] = true
	}
	var due []shard
	for id, s := range t.shards {
		if c.changed(s) || c.overtaken(id) {
			due = append(due, s)
		}
	}
	if len(due) > 0 {
		c.passes++
	}
	for _, s := range due {
		c.last[s.id] = scan{pass: c.passes, at: s}
	}
	return due
}

// changed reports whether a primary may have got keys since its last scan, other than by new writes.
func (c *census) changed(s shard) bool {
	before, scanned := c.last[s.id]
	return !scanned || !before.ended || before.at.process != s.process || before.at.epoch != s.epoch || !s.slots.within(before.at.slots)
}

// overtaken reports whether keys may have come from a primary that was not scanned before this one.
func (c *census) overtaken(id string) bool {
	for m := range c.moves {
		if m.to == id && c.last[m.from].pass >= c.last[id].pass {
			return true
		}
	}
	return false
}

// end notes that a primary's scan has come to its end.
func (c *census) end(id string) {
	s := c.last[id]
	s.ended = true
	c.last[id] = s
}

// found is what one primary's scan hands over.
type found struct {
	shard string
	slice slice
	err   error // the scan of the shard ends with it; nil and no replies: it has ended well
}

// ofCluster does a job on all keys of a Cluster that match, the primaries side by side, until the census
// is complete. Its slices are in no order; the last one alone has no cursor.
func (w *work) ofCluster(ctx context.Context, j job, pattern string) iter.Seq2[slice, error] {
	return func(yield func(slice, error) bool) {
		c := newCensus()
		var failed error // of a shard that may since have been replaced
		for {
			t, err := w.cache.topology(ctx)
			if err != nil {
				yield(slice{}, errors.Join(failed, err))
				return
			}
			due := c.due(t)
			switch {
			case len(due) == 0:
				yield(slice{}, nil)
				return
			case c.passes > maxPasses:
				yield(slice{}, errors.Join(failed, fmt.Errorf("the Cluster's slots are still on the move after %d passes: wait until that ends", maxPasses)))
				return
			}
			for f := range w.scanAll(ctx, j, pattern, due) {
				switch {
				case f.err != nil && (ctx.Err() != nil || !passes(f.err)):
					yield(slice{}, f.err)
					return
				case f.err != nil:
					failed = f.err
				case f.slice.replies == nil:
					c.end(f.shard)
				case !yield(f.slice, nil):
					return
				}
			}
		}
	}
}

// passes reports whether an error may be gone once the Cluster has replaced a server: one of the
// connection, or of a server that has lost its part.
func passes(err error) bool {
	var reply redis.Error
	if !errors.As(err, &reply) {
		return true
	}
	for _, prefix := range []string{"CLUSTERDOWN", "MASTERDOWN", "READONLY", "LOADING", "TRYAGAIN", "UNBLOCKED"} {
		if redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return redirects(err)
}

// redirects reports whether a server sent a command elsewhere. It has not been carried out then.
func redirects(err error) bool {
	if err == nil {
		return false
	}
	// The last is said by a script whose second key (a copy's) is on the other side of a slot's migration.
	return redis.HasErrorPrefix(err, "MOVED") || redis.HasErrorPrefix(err, "ASK") || redis.HasErrorPrefix(err, "TRYAGAIN") ||
		strings.Contains(err.Error(), "non local key")
}

// scanAll scans primaries side by side. What takes from it decides their pace.
func (w *work) scanAll(ctx context.Context, j job, pattern string, due []shard) iter.Seq[found] {
	return func(yield func(found) bool) {
		ctx, stop := context.WithCancel(ctx)
		out := make(chan found)
		var running sync.WaitGroup
		for _, s := range due {
			running.Go(func() {
				err := w.scanShard(ctx, j, pattern, s, func(replies []reply) error {
					select {
					case out <- found{shard: s.id, slice: slice{next: middle, replies: replies}}:
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				})
				select {
				case out <- found{shard: s.id, err: err}:
				case <-ctx.Done():
				}
			})
		}
		go func() {
			running.Wait()
			close(out)
		}()
		defer func() {
			stop()
			for range out { // until it is closed
			}
		}()
		for f := range out {
			if !yield(f) {
				return
			}
		}
	}
}

// scanShard scans one primary and does the job on what it finds there.
func (w *work) scanShard(ctx context.Context, j job, pattern string, s shard, fn func([]reply) error) error {
	scanning := w.cache.workOn(ctx, Work{Verb: verbScan, Node: s.addr}, s.client)
	doing := w.cache.workOn(ctx, Work{Verb: w.is.Verb, Adds: w.is.Adds, Node: s.addr}, s.client)
	for at := uint64(0); ; {
		var step *redis.ScanCmd
		err := scanning.run(ctx, s.client, scanning.count, func(p redis.Pipeliner) {
			step = p.Scan(ctx, at, pattern, int64(scanning.count))
		})
		if err != nil {
			return fmt.Errorf("scan %s: %w", s.addr, err)
		}
		var keys []string
		keys, at = step.Val()
		for len(keys) > 0 {
			n := min(len(keys), doing.count)
			replies, err := doing.one(ctx, j, keys[:n])
			if err != nil {
				return err
			}
			if err := fn(replies); err != nil {
				return err
			}
			keys = keys[n:]
		}
		if at == 0 {
			return nil
		}
	}
}

// one does a job key by key, as one slice. Keys that the server no longer has are looked for where they
// are.
func (w *work) one(ctx context.Context, j job, keys []string) ([]reply, error) {
	out := make([]reply, 0, len(keys))
	if j.one == nil {
		for _, key := range keys {
			out = append(out, reply{key: key, values: []any{key}})
		}
		return out, nil
	}
	cmds := make([]*redis.Cmd, len(keys))
	err := w.run(ctx, w.on, len(keys), func(p redis.Pipeliner) {
		for i, key := range keys {
			cmds[i] = j.one(ctx, p, key)
		}
	})
	if err != nil && !redirects(err) {
		return nil, err
	}
	for i, cmd := range cmds {
		if cmd == nil {
			continue // nothing is to be done for the key
		}
		values, err := cmd.Slice()
		if redirects(err) {
			values, err = w.elsewhere(ctx, j, keys[i])
		}
		if err != nil {
			return nil, err
		}
		out = append(out, reply{key: keys[i], values: values[1:]})
	}
	return out, nil
}

// elsewhere does a job on a key whose slot is on its way. While only some of what the script
// touches has arrived no server takes it: that passes.
func (w *work) elsewhere(ctx context.Context, j job, key string) (values []any, err error) {
	err = patiently(ctx, func() error {
		var cmd *redis.Cmd
		_, err := w.cache.timed(ctx, w.cache.client, func(p redis.Pipeliner) { cmd = j.one(ctx, p, key) })
		if err == nil {
			values, err = cmd.Slice()
		}
		return err
	}, redirects)
	return values, err
}
