package refresh

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

var (
	//go:embed note.lua
	noteLua string
	//go:embed lease.lua
	leaseLua string
	//go:embed take.lua
	takeLua string
	//go:embed done.lua
	doneLua string

	noteScript  = redis.NewScript(noteLua)
	leaseScript = redis.NewScript(leaseLua)
	takeScript  = redis.NewScript(takeLua)
	doneScript  = redis.NewScript(doneLua)
)

// dirtySet is the dirty keys of one release, in the queue Redis.
type dirtySet struct {
	queue   redis.UniversalClient
	keys    tasks.Keys
	release string
}

// removed is a key that an invalidation removes.
type removed struct {
	key  string
	rank int64 // the lowest is loaded first
	only bool  // counts only where the key is dirty already: it is not in the cache now
}

// dirty is a key that was taken, with its number then.
type dirty struct {
	key    string
	number int64
}

// ended is what became of a dirty key.
type ended struct {
	dirty
	again time.Duration // after which to try again; 0 when it is done
}

// note makes keys dirty by an invalidation's number and returns how many are.
func (d dirtySet) note(ctx context.Context, number int64, all []removed) (int64, error) {
	args := make([]any, 0, 2+3*len(all))
	args = append(args, number, d.release)
	for _, r := range all {
		flag := 1
		if r.only {
			flag = 0
		}
		args = append(args, r.key, r.rank, flag)
	}
	keys := []string{d.keys.Dirty(d.release), d.keys.DirtyQueue(d.release), d.keys.DirtyRest(d.release), d.keys.DirtyReleases()}
	return noteScript.Run(ctx, d.queue, keys, args...).Int64()
}

// lease takes or renews the drain's lease; false when another drain has it.
func (d dirtySet) lease(ctx context.Context, token string) (bool, error) {
	n, err := leaseScript.Run(ctx, d.queue, []string{d.keys.DirtyLease(d.release)}, token, leaseLife.Milliseconds()).Int()
	if err != nil {
		return false, fmt.Errorf("lease the refresh of release %q: %w", d.release, err)
	}
	return n == 1, nil
}

// unlease gives the lease back, if the drain has it.
func (d dirtySet) unlease(ctx context.Context, token string) error {
	return leaseScript.Run(ctx, d.queue, []string{d.keys.DirtyLease(d.release)}, token, 0).Err()
}

// taken is what a take found: keys, or how long until some may be taken, or neither at the end.
type taken struct {
	keys []dirty
	wait time.Duration
	over bool // nothing is dirty, or another drain has the lease
}

func (d dirtySet) take(ctx context.Context, token string, n int, rest time.Duration) (taken, error) {
	fail := func(err error) (taken, error) {
		return taken{}, fmt.Errorf("take dirty keys of release %q: %w", d.release, err)
	}
	keys := []string{d.keys.Dirty(d.release), d.keys.DirtyQueue(d.release), d.keys.DirtyRest(d.release), d.keys.DirtyReleases(), d.keys.DirtyLease(d.release)}
	reply, err := takeScript.Run(ctx, d.queue, keys, token, d.release, n, rest.Milliseconds()).StringSlice()
	if err != nil {
		return fail(err)
	}
	var t taken
	switch reply[0] {
	case "lost", "empty":
		t.over = true
	case "wait":
		ms, err := strconv.ParseInt(reply[1], 10, 64)
		if err != nil {
			return fail(err)
		}
		t.wait = time.Duration(ms) * time.Millisecond
	default:
		for i := 1; i+1 < len(reply); i += 2 {
			number, err := strconv.ParseInt(reply[i+1], 10, 64)
			if err != nil {
				return fail(err)
			}
			t.keys = append(t.keys, dirty{reply[i], number})
		}
	}
	return t, nil
}

// finish says what became of taken keys.
func (d dirtySet) finish(ctx context.Context, all []ended) error {
	if len(all) == 0 {
		return nil
	}
	args := make([]any, 0, 3*len(all))
	for _, e := range all {
		args = append(args, e.key, e.number, e.again.Milliseconds())
	}
	if err := doneScript.Run(ctx, d.queue, []string{d.keys.Dirty(d.release), d.keys.DirtyRest(d.release)}, args...).Err(); err != nil {
		return fmt.Errorf("end %d dirty keys of release %q: %w", len(all), d.release, err)
	}
	return nil
}

// count returns how many keys are dirty.
func (d dirtySet) count(ctx context.Context) (int64, error) {
	return d.queue.HLen(ctx, d.keys.Dirty(d.release)).Result()
}

// under visits the dirty keys that begin with prefix; some may come twice.
func (d dirtySet) under(ctx context.Context, prefix string, visit func(key string)) error {
	it := d.queue.HScan(ctx, d.keys.Dirty(d.release), 0, tasks.EscapeGlob(prefix)+"*", slice).Iterator()
	for field := true; it.Next(ctx); field = !field {
		if field {
			visit(it.Val())
		}
	}
	return it.Err()
}

// drop forgets all dirty keys.
func (d dirtySet) drop(ctx context.Context) error {
	_, err := d.queue.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.Unlink(ctx, d.keys.Dirty(d.release), d.keys.DirtyQueue(d.release), d.keys.DirtyRest(d.release), d.keys.DirtyLease(d.release))
		p.SRem(ctx, d.keys.DirtyReleases(), d.release)
		return nil
	})
	if err != nil {
		return fmt.Errorf("forget dirty keys of release %q: %w", d.release, err)
	}
	return nil
}
