package worker

import (
	"context"

	"github.com/alphanode/stoker/tasks"
)

// Driller tries an archive in a scratch namespace.
type Driller[Report any] interface {
	Drill(ctx context.Context, j tasks.Job, p tasks.Drill) (Report, error)
}

// Drill handles snapshot:drill.
func Drill[Report any](verb Driller[Report]) Handler { return calls(verb.Drill) }
