package worker

import (
	"context"

	"github.com/alphanode/stoker/tasks"
)

// Checker runs the periodic checks and stores their report.
type Checker[Report any] interface {
	Check(ctx context.Context, j tasks.Job, p tasks.Health) (Report, error)
}

// Health handles health:check.
func Health[Report any](verb Checker[Report]) Handler { return calls(verb.Check) }
