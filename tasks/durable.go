package tasks

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// recordPatience is how long a record waits for the replicas that must hold it.
	recordPatience = time.Second
	// glancePatience is how long a look at the log waits for them; the next look is soon.
	glancePatience = 20 * time.Millisecond
	// keptRecords is how much of what was recorded last is kept to be recorded again, in bytes.
	keptRecords = 1 << 20
)

// run is script.Run that also waits until the replicas hold what is in the queue Redis by then,
// and returns how many do. A journal that needs none does not wait.
func (j *Journal) run(ctx context.Context, patience time.Duration, script *redis.Script, keys []string, args ...any) (reply []string, held int, err error) {
	if j.replicas == 0 {
		reply, err = script.Run(ctx, j.queue, keys, args...).StringSlice()
		return reply, 0, err
	}
	primary, err := j.primary(ctx, keys[0])
	if err != nil {
		return nil, 0, err
	}
	reply, held, err = j.await(ctx, primary, patience, script.EvalSha, keys, args)
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		reply, held, err = j.await(ctx, primary, patience, script.Eval, keys, args)
	}
	return reply, held, err
}

// primary is the server that a key's script must run on: WAIT names no key, so that a Cluster's
// client would send it anywhere.
func (j *Journal) primary(ctx context.Context, key string) (redis.UniversalClient, error) {
	if cluster, ok := j.queue.(*redis.ClusterClient); ok {
		return cluster.MasterForKey(ctx, key)
	}
	return j.queue, nil
}

type eval func(ctx context.Context, c redis.Scripter, keys []string, args ...any) *redis.Cmd

// await runs a script and WAIT on one connection: WAIT counts the replicas that have all that
// its own connection wrote.
func (j *Journal) await(ctx context.Context, primary redis.UniversalClient, patience time.Duration, run eval, keys []string, args []any) ([]string, int, error) {
	var reply *redis.Cmd
	var held *redis.Cmd
	_, err := primary.Pipelined(ctx, func(p redis.Pipeliner) error {
		reply = run(ctx, p, keys, args...)
		held = p.Do(ctx, "WAIT", j.replicas, patience.Milliseconds())
		return nil
	})
	if err != nil {
		if cluster, ok := j.queue.(*redis.ClusterClient); ok {
			cluster.ReloadState(ctx) // the slot may have moved: the next try finds it
		}
		return nil, 0, err
	}
	n, err := held.Int()
	if err != nil {
		return nil, 0, err
	}
	values, err := reply.StringSlice()
	return values, n, err
}

// commit runs the record script until the log that it wrote to is the one that this process
// trusts. args are the script's, with what has been seen at [seenArg]. It returns the number.
func (j *Journal) commit(ctx context.Context, args []any) (int64, error) {
	for {
		seen := j.sight.get()
		args[seenArg], args[seenArg+1] = seen.Epoch, seen.Number
		reply, held, err := j.run(ctx, recordPatience, recordScript, []string{
			j.keys.LogMeta(), j.keys.Log(), j.keys.Prefixes(), j.keys.Pending(), j.keys.Live(),
		}, args...)
		switch {
		case err != nil:
			return 0, fmt.Errorf("record invalidation: %w", err)
		case len(reply) != 3:
			return 0, fmt.Errorf("record invalidation: want number, epoch and releases, got %q", reply)
		case reply[0] == "lost":
			if err := j.recordAgain(ctx); err != nil {
				return 0, err
			}
			continue
		}
		m, err := ParseMark(reply[:2])
		switch {
		case err != nil:
			return 0, err
		case held < j.replicas:
			return m.Number, fmt.Errorf("invalidation %d: %w: %d of the %d that STOKER_LOG_REPLICAS asks for had it after %v: it may still be applied, and calling again is harmless",
				m.Number, ErrNotReplicated, held, j.replicas, recordPatience)
		case !j.sight.move(seen, m):
			continue // a loss was noticed meanwhile, and this may have been part of it
		}
		return m.Number, j.reached(m.Number, reply[2] != "0")
	}
}

// recordAgain notices that the log has lost records, and brings back those of this process that
// may have been among them.
func (j *Journal) recordAgain(ctx context.Context) error {
	lost, err := j.Witness(ctx)
	if err != nil || !lost {
		return err // another call was first
	}
	for _, args := range j.recent.all() {
		if _, err := j.commit(ctx, args); err != nil {
			return fmt.Errorf("record again what the queue Redis has lost: %w", err)
		}
	}
	return nil
}

// reached returns an error for a record that reaches no release although earlier ones did.
func (j *Journal) reached(number int64, live bool) error {
	if live {
		j.reaching.Store(true)
		return nil
	}
	if !j.reaching.Load() {
		return nil // no release yet, so nothing that could be stale
	}
	return fmt.Errorf("invalidation %d: %w is known any more, so it removes nothing: the queue Redis was emptied or replaced; register the release that is served with `stoker release create ID --adopt --active`, then call again", number, ErrNoRelease)
}

// recent keeps the arguments of the last records, about [keptRecords] bytes of them. It is safe
// for concurrent use.
type recent struct {
	mu    sync.Mutex
	kept  [][]any // guarded by mu, oldest first
	bytes int     // guarded by mu
}

func (r *recent) add(args []any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept = append(r.kept, args)
	r.bytes += weigh(args)
	for r.bytes > keptRecords {
		r.bytes -= weigh(r.kept[0])
		r.kept[0] = nil
		r.kept = r.kept[1:]
	}
}

func (r *recent) all() [][]any {
	r.mu.Lock()
	defer r.mu.Unlock()
	copies := make([][]any, len(r.kept))
	for i, args := range r.kept {
		copies[i] = append([]any(nil), args...) // several calls may notice at once
	}
	return copies
}

// weigh estimates what a record's arguments take, in bytes.
func weigh(args []any) (n int) {
	for _, a := range args {
		n += 32
		switch v := a.(type) {
		case string:
			n += len(v)
		case []byte:
			n += len(v)
		}
	}
	return n
}
