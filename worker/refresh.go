package worker

import (
	"context"

	"github.com/alphanode/stoker/tasks"
)

// A Refresher reloads what was invalidated with a refresh.
type Refresher[R any] interface {
	Refresh(ctx context.Context, j tasks.Job, p tasks.Refresh) (R, error)
}

// Refresh handles cache:refresh.
func Refresh[R any](verb Refresher[R]) Handler { return calls(verb.Refresh) }

// A RefreshSweeper has refreshes carried out that a dead worker left, and returns how many releases
// have any. It must be safe in many workers at once, and cheap where there are none.
type RefreshSweeper interface {
	Sweep(ctx context.Context) (int, error)
}
