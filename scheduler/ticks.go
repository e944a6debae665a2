package scheduler

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

//go:embed advance.lua
var advanceLua string

var advanceScript = redis.NewScript(advanceLua)

// ticks is the record of each entry's last tick, in the queue Redis.
type ticks struct {
	queue redis.Cmdable
	keys  tasks.Keys
}

// all returns the last tick of every entry that was ever seen.
func (t ticks) all(ctx context.Context) (map[string]time.Time, error) {
	raw, err := t.queue.HGetAll(ctx, t.keys.Ticks()).Result()
	if err != nil {
		return nil, fmt.Errorf("read last ticks: %w", err)
	}
	last := make(map[string]time.Time, len(raw))
	for entry, text := range raw {
		if last[entry], err = parseTick(text); err != nil {
			return nil, fmt.Errorf("read last tick of entry %q: %w", entry, err)
		}
	}
	return last, nil
}

// last returns an entry's last tick; false when it was never seen.
func (t ticks) last(ctx context.Context, entry string) (time.Time, bool, error) {
	text, err := t.queue.HGet(ctx, t.keys.Ticks(), entry).Result()
	if errors.Is(err, redis.Nil) {
		return time.Time{}, false, nil
	}
	if err != nil {
		return time.Time{}, false, fmt.Errorf("read last tick of entry %q: %w", entry, err)
	}
	tick, err := parseTick(text)
	return tick, err == nil, err
}

// advance records that an entry's tick has been dealt with.
func (t ticks) advance(ctx context.Context, entry string, tick time.Time) error {
	if err := advanceScript.Run(ctx, t.queue, []string{t.keys.Ticks()}, entry, tick.Unix()).Err(); err != nil {
		return fmt.Errorf("record tick of entry %q: %w", entry, err)
	}
	return nil
}

func parseTick(text string) (time.Time, error) {
	s, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	return time.Unix(s, 0).UTC(), nil
}
