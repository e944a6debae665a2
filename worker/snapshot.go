package worker

import (
	"context"

	"github.com/alphanode/stoker/tasks"
)

// Snapshotter writes a release's namespace to an archive and verifies it.
type Snapshotter[Descriptor any] interface {
	Snapshot(ctx context.Context, j tasks.Job, p tasks.Snapshot) (Descriptor, error)
}

// Snapshot handles namespace:snapshot.
func Snapshot[Descriptor any](verb Snapshotter[Descriptor]) Handler { return calls(verb.Snapshot) }
