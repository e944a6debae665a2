package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// MaxStarts is how often a task may be started without coming to an end. A worker that is killed
// leaves a start without an end; so does a task that kills its worker.
const MaxStarts = 5

// keep is how long the traces of an unfinished task stay: its cursor and its starts.
const keep = 7 * 24 * time.Hour

// errPoison: a task was started too often without coming to an end.
var errPoison = errors.New("started too often")

// starts counts a task's starts without an end, in the queue Redis.
type starts struct {
	queue redis.UniversalClient
	keys  tasks.Keys
}

// begin counts one start. Beyond MaxStarts it returns an error that wraps errPoison and forgets
// the count, so that an operator who runs the archived task again gives it as many tries anew.
func (s starts) begin(ctx context.Context, id string) error {
	key := s.keys.Starts(id)
	var n *redis.IntCmd
	_, err := s.queue.Pipelined(ctx, func(p redis.Pipeliner) error {
		n = p.Incr(ctx, key)
		p.Expire(ctx, key, keep)
		return nil
	})
	if err != nil {
		return fmt.Errorf("count the start of task %q: %w", id, err)
	}
	if n.Val() <= MaxStarts {
		return nil
	}
	if err := s.queue.Del(ctx, key).Err(); err != nil {
		return fmt.Errorf("forget the starts of task %q: %w", id, err)
	}
	return fmt.Errorf("task %q: %w: %d times, and its worker died or was killed each time; look at what it does before you run it again", id, errPoison, MaxStarts)
}
