package namespace

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// member is one of a tag's index, as the server writes its score.
type member struct {
	key   string
	score string
}

// members calls fn with every slice of every tag index of a release. What on one server a script decides
// beside the index, here the members' entries on other servers are asked for in between.
func (w *work) members(ctx context.Context, release string, fn func(tag string, found []member) error) error {
	for s, err := range w.slices(ctx, job{script: listScript}, release, tasks.TagPrefix(), 0) {
		if err != nil {
			return err
		}
		for _, r := range s.replies {
			logical, _ := w.cache.tmpl.Logical(release, r.key)
			tag, ok := tasks.TagOf(logical)
			if !ok {
				continue
			}
			if err := w.membersOf(ctx, r.key, func(found []member) error { return fn(tag, found) }); err != nil {
				return fmt.Errorf("tag %s: %w", tasks.Bytes(tag), err)
			}
		}
	}
	return nil
}

func (w *work) membersOf(ctx context.Context, index string, fn func([]member) error) error {
	for cursor := uint64(0); ; {
		var cmd *redis.ScanCmd
		err := w.run(ctx, w.on, w.count, func(p redis.Pipeliner) { cmd = p.ZScan(ctx, index, cursor, "", int64(w.count)) })
		if err != nil {
			return err
		}
		var flat []string
		flat, cursor = cmd.Val()
		found := make([]member, 0, len(flat)/2)
		for i := 0; i+1 < len(flat); i += 2 {
			found = append(found, member{flat[i], flat[i+1]})
		}
		if len(found) > 0 {
			if err := fn(found); err != nil {
				return err
			}
		}
		if cursor == 0 {
			return nil
		}
	}
}

// carrySlots carries the members that belong to a copy, as carry.lua does on one server.
func (w *work) carrySlots(ctx context.Context, cp copying) error {
	c := w.cache
	err := w.members(ctx, cp.src, func(tag string, found []member) error {
		there := make([][2]*redis.IntCmd, len(found))
		err := w.run(ctx, w.on, len(found), func(p redis.Pipeliner) {
			for i, m := range found {
				if cp.wanted(m.key) {
					there[i] = [2]*redis.IntCmd{p.Exists(ctx, c.tmpl.Key(cp.src, m.key)), p.Exists(ctx, c.tmpl.Key(cp.dst, m.key))}
				}
			}
		})
		if err != nil {
			return err
		}
		args := []any{"ZADD", c.tmpl.Key(cp.dst, tasks.TagIndex(tag)), "GT"}
		for i, m := range found {
			if e := there[i]; e[0] != nil && e[0].Val()+e[1].Val() > 0 {
				args = append(args, m.score, m.key)
			}
		}
		if len(args) == 3 {
			return nil
		}
		return w.run(ctx, w.on, len(args)/2, func(p redis.Pipeliner) { p.Do(ctx, args...) })
	})
	if err != nil {
		return fmt.Errorf("carry tag indexes: %w", err)
	}
	return nil
}

// pruneSlots is PruneTags on a Cluster: what prune.lua decides in one step is decided here from what
// was seen, and carried out only where the member still has the score that it was seen with: who
// lists an entry again, to set it just after, gives it another one.
func (w *work) pruneSlots(ctx context.Context, release string, now time.Time) (dropped int64, err error) {
	c := w.cache
	err = w.members(ctx, release, func(tag string, found []member) error {
		expiries := make([]*redis.Cmd, len(found))
		err := w.run(ctx, w.on, len(found), func(p redis.Pipeliner) {
			for i, m := range found {
				expiries[i] = p.Do(ctx, "PEXPIRETIME", c.tmpl.Key(release, m.key))
			}
		})
		if err != nil {
			return err
		}
		var changes []*redis.Cmd
		err = w.run(ctx, w.on, len(found), func(p redis.Pipeliner) {
			changes = changes[:0]
			for i, m := range found {
				expiry, err := expiries[i].Int64()
				if err != nil {
					continue
				}
				if score, change := pruned(m.score, expiry, now); change {
					changes = append(changes, forgetScript.EvalSha(ctx, p, []string{c.tmpl.Key(release, tasks.TagIndex(tag))}, m.key, m.score, score))
				}
			}
		})
		if err != nil {
			return err
		}
		for _, change := range changes {
			n, err := change.Int64()
			if err != nil {
				return err
			}
			dropped += n
		}
		return nil
	})
	return dropped, err
}

// pruned decides on a member by its score and its entry's expiry, as PEXPIRETIME tells it: its score
// from now on, "" to drop it; change is false when it stays as it is.
func pruned(score string, expiry int64, now time.Time) (to string, change bool) {
	s, err := strconv.ParseFloat(score, 64)
	if err != nil {
		return "", false
	}
	forever, marked := math.IsInf(s, 1), s < 0
	if !forever && (marked && s <= float64(-now.Add(-keepMarks).UnixMilli()) || !marked && s > float64(now.UnixMilli())) {
		return "", false
	}
	switch {
	case expiry == -2 && forever:
		return milliseconds(now.Add(lastDate)), true
	case expiry == -2:
		return "", true
	case forever:
		return "", false
	case expiry == -1:
		return "+inf", true
	}
	return strconv.FormatInt(expiry, 10), true
}
