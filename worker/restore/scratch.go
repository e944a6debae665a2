package restore

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// Scratches is the list of scratch namespaces that may hold keys. One is on it before its first
// key is written and until a purge has proved it empty, so that a drill that dies leaves
// nothing that is not found again.
type Scratches struct {
	Queue redis.Cmdable
	Keys  tasks.Keys
}

// scratch says whose a scratch namespace is.
type scratch struct {
	Task string    `json:"task"`
	At   time.Time `json:"at"` // its last sign of life
}

func newScratchID() string { return tasks.ScratchPrefix + strings.ToLower(rand.Text()[:16]) }

func (s Scratches) put(ctx context.Context, id string, owner scratch) error {
	raw, err := json.Marshal(owner)
	if err != nil {
		return fmt.Errorf("note scratch namespace %q: %w", id, err)
	}
	if err := s.Queue.HSet(ctx, s.Keys.Drills(), id, raw).Err(); err != nil {
		return fmt.Errorf("note scratch namespace %q: %w", id, err)
	}
	return nil
}

func (s Scratches) drop(ctx context.Context, id string) error {
	if err := s.Queue.HDel(ctx, s.Keys.Drills(), id).Err(); err != nil {
		return fmt.Errorf("cross off scratch namespace %q: %w", id, err)
	}
	return nil
}

func (s Scratches) all(ctx context.Context) (map[string]scratch, error) {
	raw, err := s.Queue.HGetAll(ctx, s.Keys.Drills()).Result()
	if err != nil {
		return nil, fmt.Errorf("list scratch namespaces: %w", err)
	}
	out := make(map[string]scratch, len(raw))
	for id, text := range raw {
		var owner scratch
		if err := json.Unmarshal([]byte(text), &owner); err != nil {
			return nil, fmt.Errorf("list scratch namespaces: %q: %w", id, err)
		}
		out[id] = owner
	}
	return out, nil
}

// DropScratches removes what drills have left that show no sign of life any more, and returns
// how many keys went.
func (r *Restorer) DropScratches(ctx context.Context) (int64, error) { return r.dropScratches(ctx, "") }

// dropScratches removes what earlier tries of a task left, and what abandoned drills did.
func (r *Restorer) dropScratches(ctx context.Context, task string) (int64, error) {
	all, err := r.Scratches.all(ctx)
	if err != nil {
		return 0, err
	}
	var deleted int64
	var errs []error
	for id, owner := range all {
		if owner.Task != task && r.Now().Sub(owner.At) < AbandonedAfter {
			continue
		}
		n, err := r.dropScratch(ctx, id, nil)
		deleted += n
		errs = append(errs, err)
	}
	return deleted, errors.Join(errs...)
}

// dropScratch purges one scratch namespace and crosses it off.
func (r *Restorer) dropScratch(ctx context.Context, id string, progress func(deleted int64)) (int64, error) {
	if !strings.HasPrefix(id, tasks.ScratchPrefix) {
		return 0, fmt.Errorf("drop %q: %w: it is no scratch namespace", id, tasks.ErrRefused)
	}
	token := "drill:" + rand.Text()
	if err := r.Cache.SetFence(ctx, id, token); err != nil {
		return 0, err
	}
	deleted, err := r.Cache.Purge(ctx, id, token, progress)
	if err != nil {
		return deleted, err
	}
	return deleted, errors.Join(r.Cache.SetFence(ctx, id, ""), r.Scratches.drop(ctx, id))
}
