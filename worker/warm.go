package worker

import (
	"context"

	"github.com/alphanode/stoker/tasks"
)

// A Warmer fills new namespaces: a run cuts its plan into batches, each a task of its own.
type Warmer[Run, Batch any] interface {
	Run(ctx context.Context, j tasks.Job, p tasks.WarmRun) (Run, error)
	Batch(ctx context.Context, j tasks.Job, p tasks.WarmBatch) (Batch, error)
}

// WarmRun handles warm:run.
func WarmRun[Run, Batch any](verb Warmer[Run, Batch]) Handler { return calls(verb.Run) }

// WarmBatch handles warm:batch.
func WarmBatch[Run, Batch any](verb Warmer[Run, Batch]) Handler { return calls(verb.Batch) }
