package worker

import (
	"context"

	"github.com/alphanode/stoker/tasks"
)

// Expirer removes namespaces, gently and never one that is served.
type Expirer[Report any] interface {
	Expire(ctx context.Context, j tasks.Job, p tasks.Expire) (Report, error)
}

// Expire handles namespace:expire.
func Expire[Report any](verb Expirer[Report]) Handler { return calls(verb.Expire) }
