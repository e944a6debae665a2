package tasks

import (
	"context"
	"crypto/rand"
	_ "embed"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed record.lua
	recordLua string
	//go:embed mark.lua
	markLua string

	recordScript = redis.NewScript(recordLua)
	markScript   = redis.NewScript(markLua)
)

// Mark is a position in the log: whatever was read after it was taken may be trusted unless an
// invalidation above it names it. The epoch says of which log.
type Mark struct {
	Number int64  `json:"number"` // microseconds since 1970 or, in a burst, one more than the last
	Epoch  string `json:"epoch"`
}

// Journal is the client's half of the log, in the queue Redis: record, mark, check. What the
// workers do with it (apply, sweep, replay, trim) is package worker/invalidation.
// It is safe for concurrent use.
type Journal struct {
	queue    redis.UniversalClient
	keys     Keys
	lag      time.Duration
	replicas int
	sight    sight
	recent   recent
	reaching atomic.Bool // a record has reached a release
}

// NewJournal returns the journal of the app whose keys are given. originLag is how far the
// origin that values are read from may lag behind its primary; replicas is how many replicas of
// the queue Redis must hold a record before it counts as made.
func NewJournal(queue redis.UniversalClient, keys Keys, originLag time.Duration, replicas int) *Journal {
	return &Journal{queue: queue, keys: keys, lag: originLag, replicas: replicas}
}

// Record writes a record to the log and to the pending ones under new numbers, one a call, and
// returns the first. Recording it again while it is pending returns the number that it has.
func (j *Journal) Record(ctx context.Context, r Record) (int64, error) {
	body, err := r.Encode()
	if err != nil {
		return 0, fmt.Errorf("record invalidation: %w", err)
	}
	args := make([]any, 0, seenArg+2+len(r.Calls))
	args = append(args, rand.Text(), body, j.keys.Nudge(), len(r.Calls), nil, nil)
	for _, c := range r.Calls {
		for _, t := range c.Targets {
			args = append(args, t.Member())
		}
	}
	number, err := j.commit(ctx, args)
	if err == nil {
		j.recent.add(args)
	}
	return number, err
}

// seenArg is where the record script's arguments say what has been seen of the log.
const seenArg = 4

// Mark takes a mark for values that will be read from the origin.
func (j *Journal) Mark(ctx context.Context) (Mark, error) {
	reply, err := markScript.Run(ctx, j.queue, []string{j.keys.LogMeta(), j.keys.Pending()}, rand.Text(), j.lag.Microseconds()).StringSlice()
	if err != nil {
		return Mark{}, fmt.Errorf("take mark: %w", err)
	}
	return ParseMark(reply)
}

// ParseMark reads a script's reply {number, epoch}.
func ParseMark(reply []string) (Mark, error) {
	if len(reply) != 2 {
		return Mark{}, fmt.Errorf("read mark: want number and epoch, got %q", reply)
	}
	n, err := strconv.ParseInt(reply[0], 10, 64)
	if err != nil {
		return Mark{}, fmt.Errorf("read mark: %w", err)
	}
	return Mark{Number: n, Epoch: reply[1]}, nil
}
