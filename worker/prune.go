package worker

import (
	"context"
	"fmt"

	"github.com/alphanode/stoker/tasks"
)

// Prune handles namespace:prune.
func Prune(verb Pruner) Handler { return calls(verb.Prune) }

// Pruner does the housekeeping: its steps one after the other, each on its own.
type Pruner []PruneStep

// A PruneStep removes one kind of what nobody needs any more and returns how many it removed. It
// must be safe in several workers at once.
type PruneStep struct {
	Name string
	Run  func(ctx context.Context) (int64, error)
}

// Pruned holds how many things each step removed.
type Pruned map[string]int64

// Prune runs every step, also after one has failed, and returns the first error.
func (p Pruner) Prune(ctx context.Context, j tasks.Job, _ tasks.Prune) (Pruned, error) {
	done := Pruned{}
	var first error
	for i, step := range p {
		j.Progress(step.Name, int64(i), int64(len(p)))
		select {
		case <-j.Draining():
			return done, tasks.ErrDraining
		default:
		}
		n, err := step.Run(ctx)
		if err != nil && first == nil {
			first = fmt.Errorf("prune %s: %w", step.Name, err)
		}
		done[step.Name] = n
	}
	return done, first
}
