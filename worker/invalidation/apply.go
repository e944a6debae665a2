package invalidation

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

var (
	//go:embed done.lua
	doneLua string
	//go:embed tag.lua
	tagLua string

	doneScript = redis.NewScript(doneLua)
	tagScript  = redis.NewScript(tagLua)
)

const (
	keptOutcomes = 10_000 // of applied records
	slice        = 500    // keys a pipeline, members a script: about 1 ms of the server
)

// Unlinker removes a namespace's entries under a prefix of logical keys. It is idempotent and
// returns how many entries it removed. namespace.Cache is one.
type Unlinker interface {
	Unlink(ctx context.Context, release, prefix string) (int64, error)
}

// Applier carries invalidations out in the cache Redis. It is safe for concurrent use, by any
// number of processes: applying is idempotent.
type Applier struct {
	log   *Log
	cache redis.UniversalClient
	tmpl  tasks.Template
	live  func(context.Context) ([]string, error)
	ns    Unlinker
}

// NewApplier returns an applier for log. live returns the releases whose namespaces receive
// invalidations.
func NewApplier(log *Log, cache redis.UniversalClient, tmpl tasks.Template, live func(context.Context) ([]string, error), ns Unlinker) *Applier {
	return &Applier{log: log, cache: cache, tmpl: tmpl, live: live, ns: ns}
}

// Apply carries out the record with that number in every live namespace and takes it off
// pending. A record that is applied already is reported as it was then. On an error the record
// stays pending.
func (a *Applier) Apply(ctx context.Context, number int64) (tasks.Applied, error) {
	n := strconv.FormatInt(number, 10)
	found, err := a.log.queue.ZRangeByScore(ctx, a.log.keys.Pending(), &redis.ZRangeBy{Min: n, Max: n}).Result()
	if err != nil {
		return tasks.Applied{}, fmt.Errorf("apply invalidation %d: %w", number, err)
	}
	if len(found) == 0 {
		applied, _, err := tasks.ReadApplied(ctx, a.log.queue, a.log.keys, number)
		return applied, err
	}
	return a.apply(ctx, number, found[0])
}

func (a *Applier) apply(ctx context.Context, number int64, body string) (tasks.Applied, error) {
	start := time.Now()
	fail := func(err error) (tasks.Applied, error) {
		return tasks.Applied{}, fmt.Errorf("apply invalidation %d: %w", number, err)
	}
	record, err := tasks.DecodeRecord(body)
	if err != nil {
		return fail(err)
	}
	live, err := a.live(ctx) // after the record: see the package's comment
	if err != nil {
		return fail(err)
	}
	targets := record.Targets()
	removed := make(map[string]int64, len(live))
	for _, release := range live {
		if removed[release], err = a.remove(ctx, release, targets); err != nil {
			return fail(fmt.Errorf("release %q: %w", release, err))
		}
	}
	applied := record.Applied(number, removed, time.Since(start))
	outcome, err := json.Marshal(applied)
	if err != nil {
		return fail(err)
	}
	keys := []string{a.log.keys.Pending(), a.log.keys.Applied()}
	if err := doneScript.Run(ctx, a.log.queue, keys, number, outcome, keptOutcomes).Err(); err != nil {
		return fail(err)
	}
	return applied, nil
}

// Sweep applies every record that has been pending for at least olderThan, oldest first, and
// returns how many it applied. It goes on after an error and returns the first.
func (a *Applier) Sweep(ctx context.Context, olderThan time.Duration) (int, error) {
	now, err := a.log.queue.Time(ctx).Result()
	if err != nil {
		return 0, fmt.Errorf("sweep: %w", err)
	}
	bound := "+inf"
	if olderThan > 0 {
		bound = strconv.FormatInt(now.Add(-olderThan).UnixMicro(), 10)
	}
	pending, err := a.log.queue.ZRangeByScoreWithScores(ctx, a.log.keys.Pending(), &redis.ZRangeBy{Min: "-inf", Max: bound}).Result()
	if err != nil {
		return 0, fmt.Errorf("sweep: %w", err)
	}
	applied := 0
	var first error
	for _, z := range pending {
		if ctx.Err() != nil {
			return applied, ctx.Err()
		}
		if _, err := a.apply(ctx, int64(z.Score), z.Member.(string)); err != nil {
			if first == nil {
				first = err
			}
			continue
		}
		applied++
	}
	return applied, first
}

// remove takes targets out of one namespace and returns how many entries were there.
func (a *Applier) remove(ctx context.Context, release string, targets []tasks.Target) (int64, error) {
	var removed int64
	var keys []string
	for _, t := range targets {
		var n int64
		var err error
		switch t.Kind {
		case tasks.KindKey:
			keys = append(keys, a.tmpl.Key(release, string(t.Name)))
		case tasks.KindTag:
			n, err = a.removeTag(ctx, release, string(t.Name))
		case tasks.KindPrefix:
			n, err = a.ns.Unlink(ctx, release, string(t.Name))
		}
		if err != nil {
			return removed, fmt.Errorf("remove %s %s: %w", t.Kind, t.Name, err)
		}
		removed += n
	}
	n, err := a.removeKeys(ctx, keys)
	return removed + n, err
}

// removeKeys unlinks keys one command each: a Cluster keeps them in different slots.
func (a *Applier) removeKeys(ctx context.Context, keys []string) (int64, error) {
	var removed int64
	for len(keys) > 0 {
		part := keys[:min(slice, len(keys))]
		keys = keys[len(part):]
		replies, err := a.cache.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, k := range part {
				p.Unlink(ctx, k)
			}
			return nil
		})
		if err != nil {
			return removed, fmt.Errorf("remove %d keys: %w", len(part), err)
		}
		for _, r := range replies {
			removed += r.(*redis.IntCmd).Val()
		}
	}
	return removed, nil
}

// removeTag looks at all members of the tag's index, those that a removal has marked as well.
func (a *Applier) removeTag(ctx context.Context, release, tag string) (int64, error) {
	return a.removeListed(ctx, release, a.tmpl.Key(release, tasks.TagIndex(tag)), "1")
}

// removeListed takes the entries that an index lists out of one namespace.
func (a *Applier) removeListed(ctx context.Context, release, index, mark string) (int64, error) {
	var removed int64
	for cursor := "0"; ; {
		reply, err := tagScript.Run(ctx, a.cache, []string{index}, a.tmpl.Prefix(release), a.tmpl.Suffix(), cursor, slice, mark).Slice()
		if err != nil {
			return removed, err
		}
		cursor, _ = reply[0].(string)
		n, _ := reply[1].(int64)
		removed += n
		if cursor == "0" {
			return removed, nil
		}
	}
}
