package worker

import (
	"context"

	"github.com/alphanode/stoker/tasks"
)

// Measurer measures how the site behaves under a release.
type Measurer[Measured any] interface {
	Baseline(ctx context.Context, j tasks.Job, p tasks.Baseline) (Measured, error)
}

// Baseline handles release:baseline.
func Baseline[Measured any](verb Measurer[Measured]) Handler { return calls(verb.Baseline) }
