package worker

import (
	"context"

	"github.com/alphanode/stoker/tasks"
)

// An Invalidator carries out one recorded invalidation in every live namespace. It is idempotent.
type Invalidator interface {
	Apply(ctx context.Context, number int64) (tasks.Applied, error)
}

// Invalidate handles cache:invalidate. The outcome is kept in the log, where the client waits
// for it, so the task has no result of its own.
func Invalidate(verb Invalidator) Handler {
	return decoded(func(ctx context.Context, _ tasks.Job, p tasks.Invalidate) (any, error) {
		_, err := verb.Apply(ctx, p.Number)
		return nil, err
	})
}
