package worker

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// ackLimit bounds one acknowledgement that is issued again.
const ackLimit = 2 * time.Second

// The pauses of a dequeue loop that meets errors.
const (
	firstPause = 10 * time.Millisecond
	lastPause  = time.Second
)

// ackHook gives a context to scripts that are issued on a cancelled one. asynq keeps a failed
// acknowledgement for later but cancels its context at once, so that none of its later tries
// could reach the server. The context's deadline, the end of the task's lease, still holds:
// after it the task is somebody else's.
//
// It belongs on the connection that asynq's servers have to themselves.
type ackHook struct{}

var _ redis.Hook = ackHook{}

func (ackHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (ackHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (ackHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if !isScript(cmd) || !errors.Is(ctx.Err(), context.Canceled) {
			return next(ctx, cmd)
		}
		limit := time.Now().Add(ackLimit)
		if end, ok := ctx.Deadline(); ok && end.Before(limit) {
			limit = end
		}
		ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), limit)
		defer cancel()
		return next(ctx, cmd)
	}
}

// backoffHook makes a dequeue loop pause after an error: connection refused, NOPERM, OOM, … asynq
// itself asks again at once, thousands of times a second. Each pause of a queue is twice the one
// before, up to lastPause; a success resets it.
type backoffHook struct {
	wait func(ctx context.Context, d time.Duration)

	mu     sync.Mutex
	pauses map[string]time.Duration // a queue's last pause, while its dequeuing fails
}

var _ redis.Hook = (*backoffHook)(nil)

// newBackoffHook returns the hook; its pauses end when stop is closed.
func newBackoffHook(stop <-chan struct{}) *backoffHook {
	wait := func(ctx context.Context, d time.Duration) {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-stop:
		case <-ctx.Done():
		}
	}
	return &backoffHook{wait: wait, pauses: map[string]time.Duration{}}
}

func (*backoffHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (*backoffHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (h *backoffHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if queue, ok := dequeues(cmd); ok {
			if pause := h.pause(queue, err); pause > 0 {
				h.wait(ctx, pause)
			}
		}
		return err
	}
}

// pause returns how long queue's loop has to wait after err, 0 when it need not.
func (h *backoffHook) pause(queue string, err error) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	// An empty queue is no error, and neither is a script that the server has to be told first.
	if err == nil || errors.Is(err, redis.Nil) || redis.HasErrorPrefix(err, "NOSCRIPT") {
		delete(h.pauses, queue)
		return 0
	}
	h.pauses[queue] = min(max(2*h.pauses[queue], firstPause), lastPause)
	return h.pauses[queue]
}

func isScript(cmd redis.Cmder) bool {
	name := cmd.Name()
	return name == "evalsha" || name == "eval"
}

// dequeues reports whether cmd is asynq's dequeue script, and of which queue: no other script
// has a queue's pending list first and its pause flag second.
func dequeues(cmd redis.Cmder) (pending string, ok bool) {
	args := cmd.Args()
	if !isScript(cmd) || len(args) < 5 {
		return "", false
	}
	pending, _ = args[3].(string)
	paused, _ := args[4].(string)
	return pending, strings.HasSuffix(pending, ":pending") && strings.HasSuffix(paused, ":paused")
}
