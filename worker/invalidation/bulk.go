package invalidation

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

var (
	//go:embed hold.lua
	holdLua string

	holdScript = redis.NewScript(holdLua)
)

// keepPartial is how long the figures of a record in the bulk lane stay.
const keepPartial = 24 * time.Hour

// leaveToBulk hands a record on to the bulk lane, with what has been removed for it so far. A
// crash in between is harmless: the claim ends, and the next round finds the record as long.
func (a *Applier) leaveToBulk(ctx context.Context, r *record) error {
	k, n := a.log.keys, strconv.FormatInt(r.number, 10)
	_, err := a.log.queue.TxPipelined(ctx, func(p redis.Pipeliner) error {
		for call, o := range r.outcome.Calls {
			for i, release := range r.outcome.Releases {
				if o.Removed[i] > 0 {
					p.HIncrBy(ctx, k.Partial(r.number), partialField(call, release), o.Removed[i])
				}
			}
		}
		p.Expire(ctx, k.Partial(r.number), keepPartial)
		p.SAdd(ctx, k.Bulk(), n)
		p.ZRem(ctx, k.Claims(), n)
		return nil
	})
	if err != nil {
		return fmt.Errorf("leave invalidation %d to the bulk lane: %w", r.number, err)
	}
	if a.Enqueue == nil {
		return nil
	}
	first := r.outcome.Calls[0]
	task := tasks.InvalidateBulk{Number: r.number, Sample: first.Sample}
	for _, c := range r.outcome.Calls {
		task.Targets += c.Targets
	}
	return a.Enqueue(ctx, task)
}

func partialField(call int, release string) string { return strconv.Itoa(call) + " " + release }

// addPartial adds what was removed before the record came to the bulk lane to its figures.
func (a *Applier) addPartial(ctx context.Context, r *record) error {
	before, err := a.log.queue.HGetAll(ctx, a.log.keys.Partial(r.number)).Result()
	if err != nil {
		return fmt.Errorf("apply invalidation %d: %w", r.number, err)
	}
	for field, text := range before {
		call, release, _ := strings.Cut(field, " ")
		i, err := strconv.Atoi(call)
		n, err2 := strconv.ParseInt(text, 10, 64)
		if err != nil || err2 != nil || i >= len(r.outcome.Calls) {
			return fmt.Errorf("apply invalidation %d: what was removed before: %w: %q: %q", r.number, tasks.ErrInvalid, field, text)
		}
		for j, id := range r.outcome.Releases {
			if id == release {
				r.outcome.Calls[i].Removed[j] += n
			}
		}
	}
	return nil
}

// hold keeps the claim on a record until the returned function is called.
func (a *Applier) hold(ctx context.Context, number int64) (release func()) {
	every := a.claimFor() / 3
	if every < time.Millisecond {
		return func() {} // shorter than a round trip: nothing to hold
	}
	stop := make(chan struct{})
	go func() {
		beat := time.NewTicker(every)
		defer beat.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ctx.Done():
				return
			case <-beat.C:
				// On an error the claim ends and another worker joins in, which is harmless.
				_ = holdScript.Run(ctx, a.log.queue, []string{a.log.keys.Claims()}, number, a.claimFor().Microseconds()).Err()
			}
		}
	}()
	return func() { close(stop) }
}
