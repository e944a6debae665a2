package namespace

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"iter"
	"regexp"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// pipeliner sends commands in one go: a client, or a connection that watches a key.
type pipeliner interface {
	Pipelined(ctx context.Context, fn func(redis.Pipeliner) error) ([]redis.Cmder, error)
}

// work is one paced piece of work, by one goroutine.
type work struct {
	cache *Cache
	is    Work
	on    redis.UniversalClient // where it goes: everywhere, or to one primary of a Cluster
	pacer Pacer
	count int // items of the next slice
}

func (c *Cache) work(ctx context.Context, w Work) *work { return c.workOn(ctx, w, c.client) }

func (c *Cache) workOn(ctx context.Context, w Work, on redis.UniversalClient) *work {
	p := c.pace(ctx, w)
	return &work{cache: c, is: w, on: on, pacer: p, count: max(p.Size(), 1)}
}

// run sends what fill queues as one slice of that many items: it waits until the slice may begin,
// and tells the pacer how it went. fill may be called twice.
func (w *work) run(ctx context.Context, on pipeliner, items int, fill func(redis.Pipeliner)) error {
	if err := w.pacer.Wait(ctx); err != nil {
		return err
	}
	took, err := w.cache.timed(ctx, on, fill)
	if err != nil {
		items = 0
	}
	w.pacer.Done(took, items)
	w.count = max(w.pacer.Size(), 1)
	return err
}

// eval runs a script as one slice of that many items.
func (w *work) eval(ctx context.Context, items int, script *redis.Script, keys []string, args ...any) ([]any, error) {
	var cmd *redis.Cmd
	err := w.run(ctx, w.on, items, func(p redis.Pipeliner) {
		cmd = script.EvalSha(ctx, p, keys, args...)
	})
	if err != nil {
		return nil, err
	}
	return cmd.Slice()
}

// slice is what was made of one step of the SCAN.
type slice struct {
	next    uint64 // the cursor to go on from; 0 at the end
	replies []reply
}

// reply is what a script returned after the cursor.
type reply struct {
	key    string // of a Cluster, the one key that it is about; else ""
	values []any
}

// job is what is to be done with the keys of a namespace.
type job struct {
	// script does it inside a single server: it takes cursor, MATCH pattern and COUNT before args, and
	// returns the next cursor first.
	script *redis.Script
	keys   []string
	args   []any
	// one queues the same for one key, on a Cluster. It returns nil where nothing is to be done. A nil
	// func lists the keys.
	one func(ctx context.Context, p redis.Pipeliner, key string) *redis.Cmd
}

// byKey is a job whose script also takes a key in place of a step of the SCAN.
func byKey(script *redis.Script, args ...any) job {
	return job{script: script, args: args, one: func(ctx context.Context, p redis.Pipeliner, key string) *redis.Cmd {
		return script.EvalSha(ctx, p, []string{key}, append([]any{0, "", 0}, args...)...)
	}}
}

// slices does a job on all keys of the release that begin with the logical prefix.
func (w *work) slices(ctx context.Context, j job, release, prefix string, cursor uint64) iter.Seq2[slice, error] {
	pattern := w.cache.tmpl.Match(release, prefix)
	if w.cache.sharded {
		return w.ofCluster(ctx, j, pattern)
	}
	return func(yield func(slice, error) bool) {
		server, err := w.cache.process(ctx)
		at := server.resume(cursor)
		for err == nil {
			var s slice
			if s, at, err = w.step(ctx, j, at, pattern); err != nil {
				break
			}
			if s.next, server, err = w.cache.cursor(ctx, server, at); err != nil {
				break
			}
			if !yield(s, nil) || s.next == 0 {
				return
			}
			at = server.resume(s.next)
		}
		yield(slice{}, err)
	}
}

// step runs the script once and returns the server's own next cursor with what it found.
func (w *work) step(ctx context.Context, j job, at uint64, pattern string) (slice, uint64, error) {
	values, err := w.eval(ctx, w.count, j.script, j.keys, append([]any{at, pattern, w.count}, j.args...)...)
	if err != nil {
		return slice{}, 0, err
	}
	raw, ok := values[0].(string)
	if !ok {
		return slice{}, 0, fmt.Errorf("scan: cursor is a %T", values[0])
	}
	next, err := strconv.ParseUint(raw, 10, 64)
	if err != nil || next>>cursorBits != 0 {
		return slice{}, 0, fmt.Errorf("scan: the server returned cursor %q, want a number of at most %d bits", raw, cursorBits)
	}
	return slice{replies: []reply{{values: values[1:]}}}, next, nil
}

// cursorBits is the part of a cursor that is the server's own. Redis's cursors are indexes into
// its hash table, so no server comes near this.
const cursorBits = 48

// process is a fingerprint of one run of a server: 16 bits, never 0. A SCAN cursor is of
// use to the process that gave it only.
type process uint64

var runID = regexp.MustCompile(`(?m)^run_id:(\w+)`)

// process returns the fingerprint of the server's process as it is now. A server that does not
// tell (embedded ones) is taken for one that never changes.
func (c *Cache) process(ctx context.Context) (process, error) {
	info, err := c.client.Info(ctx, "server").Result()
	var reply redis.Error
	if err != nil && !errors.As(err, &reply) {
		return 0, fmt.Errorf("identify the server: %w", err)
	}
	id := runID.FindStringSubmatch(info)
	if id == nil {
		return 1, nil
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(id[1]))
	return process(h.Sum32()&0xffff | 1), nil
}

// token makes the cursor handed out from a cursor of the process.
func (p process) token(at uint64) uint64 { return uint64(p)<<cursorBits | at }

// resume returns the cursor to give to the process: the beginning when the one handed out is
// another process's.
func (p process) resume(token uint64) uint64 {
	if token>>cursorBits != uint64(p) {
		return 0
	}
	return token & (1<<cursorBits - 1)
}

// cursor returns the cursor to hand out after a step that left off at next. The end of a scan
// counts only when the server has been the same process throughout; else the scan
// starts again.
func (c *Cache) cursor(ctx context.Context, began process, next uint64) (uint64, process, error) {
	if next != 0 {
		return began.token(next), began, nil
	}
	now, err := c.process(ctx)
	if err != nil || now == began {
		return 0, now, err
	}
	return now.token(0), now, nil
}

// timed sends a pipeline and returns the server time between its first command and its last,
// as the server's clock tells it: the network and this process do not count. Where it goes to several
// servers, which have a clock each, they do. A script that the server does not know is loaded, and
// everything sent again.
func (c *Cache) timed(ctx context.Context, on pipeliner, fill func(redis.Pipeliner)) (time.Duration, error) {
	var from, to *redis.TimeCmd
	send := func() ([]redis.Cmder, error) {
		return on.Pipelined(ctx, func(p redis.Pipeliner) error {
			from = p.Time(ctx)
			fill(p)
			to = p.Time(ctx)
			return nil
		})
	}
	begun := time.Now()
	cmds, err := send()
	if unknownScript(cmds) {
		if err := c.load(ctx); err != nil {
			return 0, err
		}
		_, err = send()
	}
	if c.sharded && on == pipeliner(c.client) {
		return time.Since(begun), err
	}
	return to.Val().Sub(from.Val()), err
}

func unknownScript(cmds []redis.Cmder) bool {
	for _, cmd := range cmds {
		if redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT") {
			return true
		}
	}
	return false
}
