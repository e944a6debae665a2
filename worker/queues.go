package worker

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

//go:embed orphan.lua
var orphanLua string

var orphanScript = redis.NewScript(orphanLua)

// Queues looks after the tasks of an app that have come to an end. It is safe for concurrent use.
type Queues struct {
	App          string
	Queue        redis.UniversalClient
	MaxCompleted int // tasks kept a lane; asynq itself knows only their retention
	MaxArchived  int // likewise; asynq keeps 9,999
}

const (
	deletePage = 500  // tasks listed at once
	scanCount  = 1000 // keys a slice looks at: about 1 ms of the server
)

// Waiting returns how many of a lane's tasks wait for a worker.
func (q Queues) Waiting(ctx context.Context, l tasks.Lane) (int64, error) {
	a := archive{queue: l.Queue(q.App)}
	n, err := q.Queue.LLen(ctx, a.key("pending")).Result()
	if err != nil {
		return 0, fmt.Errorf("count what waits in queue %q: %w", a.queue, err)
	}
	return n, nil
}

// Prune deletes completed and archived tasks beyond the limits, the oldest first, and task
// hashes that no list knows any more. It returns how many went.
func (q Queues) Prune(ctx context.Context) (int64, error) {
	inspector := asynq.NewInspectorFromRedisClient(q.Queue)
	var gone int64
	for _, l := range tasks.Lanes() {
		a := archive{ctx, q.Queue, inspector, l.Queue(q.App)}
		for _, step := range []func() (int64, error){
			func() (int64, error) { return a.prune(inspector.ListCompletedTasks, "completed", q.MaxCompleted) },
			func() (int64, error) { return a.prune(inspector.ListArchivedTasks, "archived", q.MaxArchived) },
			a.pruneOrphans,
		} {
			n, err := step()
			gone += n
			if err != nil {
				return gone, fmt.Errorf("prune queue %q: %w", a.queue, err)
			}
		}
	}
	return gone, nil
}

// Revive runs again what was archived because only a newer worker can read it: asynq archives a task on its
// last retry for any error. It returns how many tasks that were.
func (q Queues) Revive(ctx context.Context) (int, error) {
	inspector := asynq.NewInspectorFromRedisClient(q.Queue)
	revived := 0
	for _, l := range tasks.Lanes() {
		a := archive{queue: l.Queue(q.App)}
		n, err := q.Queue.ZCard(ctx, a.key("archived")).Result()
		if err != nil {
			return revived, fmt.Errorf("look for tasks in queue %q: %w", a.queue, err)
		}
		for page := 1; int64(page-1)*deletePage < n; page++ {
			found, err := inspector.ListArchivedTasks(a.queue, asynq.PageSize(deletePage), asynq.Page(page))
			if err != nil {
				return revived, fmt.Errorf("look for tasks in queue %q: %w", a.queue, err)
			}
			for _, t := range found {
				if !errors.Is(tasks.Failed(t.LastErr, t.Result), tasks.ErrNewer) {
					continue
				}
				// One that is not there any more was run or deleted by somebody else.
				if err := inspector.RunTask(a.queue, t.ID); err != nil && !errors.Is(err, asynq.ErrTaskNotFound) {
					return revived, fmt.Errorf("run task %q again: %w", t.ID, err)
				}
				revived++
			}
		}
	}
	return revived, nil
}

// archive is one queue during a pruning.
type archive struct {
	ctx       context.Context
	redis     redis.UniversalClient
	inspector *asynq.Inspector
	queue     string
}

// key names one of asynq's own keys of the queue.
func (a archive) key(part string) string { return "asynq:{" + a.queue + "}:" + part }

type lister func(queue string, opts ...asynq.ListOption) ([]*asynq.TaskInfo, error)

// prune deletes what a list holds beyond keep. asynq lists the oldest first.
func (a archive) prune(list lister, part string, keep int) (int64, error) {
	held, err := a.redis.ZCard(a.ctx, a.key(part)).Result()
	if err != nil {
		return 0, err
	}
	var gone int64
	for excess := held - int64(keep); gone < excess; {
		page, err := list(a.queue, asynq.PageSize(int(min(excess-gone, deletePage))))
		if err != nil || len(page) == 0 {
			return gone, err
		}
		for _, t := range page {
			// One that is not there any more was deleted by another worker, or run again.
			if err := a.inspector.DeleteTask(a.queue, t.ID); err != nil && !errors.Is(err, asynq.ErrTaskNotFound) {
				return gone, err
			}
			gone++
		}
		if err := a.ctx.Err(); err != nil {
			return gone, err
		}
	}
	return gone, nil
}

// pruneOrphans deletes task hashes that no list knows.
func (a archive) pruneOrphans() (int64, error) {
	prefix := a.key("t:")
	keys := []string{a.key("archived"), a.key("completed")}
	var gone int64
	for cursor := "0"; ; {
		reply, err := orphanScript.Run(a.ctx, a.redis, keys, cursor, tasks.EscapeGlob(prefix)+"*", prefix, scanCount).Slice()
		if err != nil {
			return gone, err
		}
		cursor, _ = reply[0].(string)
		n, _ := reply[1].(int64)
		gone += n
		if next, err := strconv.ParseUint(cursor, 10, 64); err != nil || next == 0 {
			return gone, err
		}
	}
}

// Gone reports whether a task has come to its end in every lane: done, archived or deleted.
func (q Queues) Gone(_ context.Context, id string) (bool, error) {
	inspector := asynq.NewInspectorFromRedisClient(q.Queue)
	for _, l := range tasks.Lanes() {
		t, err := inspector.GetTaskInfo(l.Queue(q.App), id)
		switch {
		case errors.Is(err, asynq.ErrTaskNotFound), errors.Is(err, asynq.ErrQueueNotFound):
		case err != nil:
			return false, fmt.Errorf("look for task %q: %w", id, err)
		case t.State != asynq.TaskStateArchived && t.State != asynq.TaskStateCompleted:
			return false, nil
		}
	}
	return true, nil
}
