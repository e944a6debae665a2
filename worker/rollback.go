package worker

import (
	"context"

	"github.com/alphanode/stoker/tasks"
)

// Roller brings back an earlier release, fresh or not at all.
type Roller[Report any] interface {
	Rollback(ctx context.Context, j tasks.Job, p tasks.Rollback) (Report, error)
}

// Rollback handles release:rollback.
func Rollback[Report any](verb Roller[Report]) Handler { return calls(verb.Rollback) }
