package worker

import (
	"context"

	"github.com/alphanode/stoker/tasks"
)

// Looker compares a sample of the entries with their origin and stores its report.
type Looker[Report any] interface {
	Look(ctx context.Context, j tasks.Job, p tasks.Freshness) (Report, error)
}

// Freshness handles health:freshness.
func Freshness[Report any](verb Looker[Report]) Handler { return calls(verb.Look) }
