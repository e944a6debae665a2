package worker

import (
	"context"

	"github.com/alphanode/stoker/tasks"
)

// Watcher measures a release after its switch and compares.
type Watcher[Verdict any] interface {
	Watch(ctx context.Context, j tasks.Job, p tasks.Watch) (Verdict, error)
}

// Watch handles release:watch.
func Watch[Verdict any](verb Watcher[Verdict]) Handler { return calls(verb.Watch) }
