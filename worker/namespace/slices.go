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
	redis.Scripter
	Pipelined(ctx context.Context, fn func(redis.Pipeliner) error) ([]redis.Cmder, error)
	Set(ctx context.Context, key string, value any, expiration time.Duration) *redis.StatusCmd
}

// work is one paced piece of work, by one goroutine.
type work struct {
	cache *Cache
	pacer Pacer
	count int                   // items of the next slice
	on    redis.UniversalClient // the server whose keys it scans; it knows nothing of other servers
	shard *shard                // of a Cluster, as it was last looked at; else nil
	late  bool                  // the walk over the Cluster comes to it in a later round than the first
	mixed bool                  // small strings were less than half of what was read last
}

func (c *Cache) work(ctx context.Context, w Work) *work {
	p := c.pace(ctx, w)
	return &work{cache: c, pacer: p, count: max(p.Size(), 1), on: c.client}
}

// name tells the servers of a Cluster apart: by shard, so that a replica which was promoted is another.
func (w *work) name() string {
	if w.shard == nil {
		return ""
	}
	return w.shard.id
}

// beside returns another work of that verb on the same server, for another goroutine.
func (w *work) beside(ctx context.Context, verb string) *work {
	what := Work{Verb: verb}
	if w.shard != nil {
		what.Node = w.shard.addr
	}
	other := w.cache.work(ctx, what)
	other.on, other.shard, other.late = w.on, w.shard, w.late
	return other
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

// eval runs a script on the server whose keys are scanned, as one slice of that many items.
func (w *work) eval(ctx context.Context, items int, script *redis.Script, keys []string, args ...any) ([]any, error) {
	var cmd *redis.Cmd
	err := w.run(ctx, w.on, items, func(p redis.Pipeliner) {
		if w.shard != nil {
			p.Do(ctx, "ASKING") // the script may touch keys of slots that are being moved to the server
		}
		cmd = script.EvalSha(ctx, p, keys, args...)
	})
	if err != nil {
		return nil, err
	}
	return cmd.Slice()
}

// arguments puts keys that a script takes as arguments behind the others.
func arguments(keys []string, others ...any) []any {
	for _, key := range keys {
		others = append(others, key)
	}
	return others
}

// evalNamed runs a script on named keys, of one slot of a Cluster, as one slice of that many items.
func (w *work) evalNamed(ctx context.Context, items int, script *redis.Script, keys []string, args ...any) ([]any, error) {
	var cmd *redis.Cmd
	err := w.run(ctx, w.cache.client, items, func(p redis.Pipeliner) {
		cmd = script.EvalSha(ctx, p, keys, args...)
	})
	if err != nil {
		return nil, err
	}
	return cmd.Slice()
}

// slice is what a script made of one step of the SCAN.
type slice struct {
	next  uint64 // the cursor to go on from; 0 at the end
	reply []any  // what the script returned after the cursor

	// restarted says that the scan has begun again since the cursor before: the server is another process.
	restarted bool
}

// slices runs a script over all keys of the release that begin with the logical prefix. The
// script takes cursor, MATCH pattern and COUNT before the args given here, and returns the next
// cursor first.
func (w *work) slices(ctx context.Context, script *redis.Script, keys []string, release, prefix string, cursor uint64, args ...any) iter.Seq2[slice, error] {
	pattern := w.cache.tmpl.Match(release, prefix)
	return func(yield func(slice, error) bool) {
		server, err := w.process(ctx)
		at := server.resume(cursor)
		restarted := cursor != 0 && server != process(cursor>>cursorBits)
		for err == nil {
			var s slice
			if s, at, err = w.step(ctx, script, keys, append([]any{at, pattern, w.count}, args...)); err != nil {
				break
			}
			began := server
			if s.next, server, err = w.cursor(ctx, server, at); err != nil {
				break
			}
			s.restarted = restarted || server != began
			restarted = false
			if !yield(s, nil) || s.next == 0 {
				return
			}
			at = server.resume(s.next)
		}
		yield(slice{}, err)
	}
}

// step runs the script once and returns the server's own next cursor with what it found.
func (w *work) step(ctx context.Context, script *redis.Script, keys []string, args []any) (slice, uint64, error) {
	reply, err := w.eval(ctx, w.count, script, keys, args...)
	if err != nil {
		return slice{}, 0, err
	}
	raw, ok := reply[0].(string)
	if !ok {
		return slice{}, 0, fmt.Errorf("scan: cursor is a %T", reply[0])
	}
	next, err := strconv.ParseUint(raw, 10, 64)
	if err != nil || next>>cursorBits != 0 {
		return slice{}, 0, fmt.Errorf("scan: the server returned cursor %q, want a number of at most %d bits", raw, cursorBits)
	}
	return slice{reply: reply[1:]}, next, nil
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
func (w *work) process(ctx context.Context) (process, error) {
	id, err := w.runID(ctx)
	return processOf(id), err
}

// runID returns the server's own name of its process, "" when it does not tell.
func (w *work) runID(ctx context.Context) (string, error) {
	info, err := w.on.Info(ctx, "server").Result()
	var reply redis.Error
	if err != nil && !errors.As(err, &reply) {
		return "", fmt.Errorf("identify the server: %w", err)
	}
	if id := runID.FindStringSubmatch(info); id != nil {
		return id[1], nil
	}
	return "", nil
}

func processOf(runID string) process {
	if runID == "" {
		return 1
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(runID))
	return process(h.Sum32()&0xffff | 1)
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
func (w *work) cursor(ctx context.Context, began process, next uint64) (uint64, process, error) {
	if next != 0 {
		return began.token(next), began, nil
	}
	now, err := w.process(ctx)
	if err != nil || now == began {
		return 0, now, err
	}
	return now.token(0), now, nil
}

// timed sends a pipeline and returns the server time between its first command and its last,
// as the server's clock tells it: the network and this process do not count. Of several servers, the
// longest time counts. A script that a server does not know is loaded, and everything sent again.
func (c *Cache) timed(ctx context.Context, on pipeliner, fill func(redis.Pipeliner)) (time.Duration, error) {
	cluster, several := on.(*redis.ClusterClient)
	var all clocks
	var from, to *redis.TimeCmd
	send := func() ([]redis.Cmder, error) {
		return on.Pipelined(ctx, func(p redis.Pipeliner) error {
			if several {
				all.queue(ctx, cluster, p, fill)
				return nil
			}
			from = p.Time(ctx)
			fill(p)
			to = p.Time(ctx)
			return nil
		})
	}
	begun := time.Now()
	cmds, err := send()
	if unknownScript(cmds) {
		if err := c.load(ctx, on); err != nil {
			return 0, err
		}
		begun = time.Now()
		_, err = send()
	}
	if err != nil {
		return 0, err
	}
	if several {
		took, ok := all.took()
		if !ok {
			took = time.Since(begun)
		}
		return took, nil
	}
	return to.Val().Sub(from.Val()), nil
}

func unknownScript(cmds []redis.Cmder) bool {
	for _, cmd := range cmds {
		if redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT") {
			return true
		}
	}
	return false
}
