package worker

import (
	"context"

	"github.com/alphanode/stoker/tasks"
)

// Invalidate handles cache:invalidate: it applies whatever is pending, the task's records among it.
// What another worker has claimed, it leaves to that one. The outcomes are kept in the log,
// where clients wait for them, so the task has no result of its own.
func Invalidate(verb Applier) Handler {
	return decoded(func(ctx context.Context, _ tasks.Job, _ tasks.Invalidate) (any, error) {
		_, err := verb.Apply(ctx)
		return nil, err
	})
}

// InvalidateBulk handles cache:invalidate-bulk in the same way, for what needs long.
func InvalidateBulk(verb Applier) Handler {
	return decoded(func(ctx context.Context, _ tasks.Job, _ tasks.InvalidateBulk) (any, error) {
		_, err := verb.ApplyBulk(ctx)
		return nil, err
	})
}
