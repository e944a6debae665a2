package worker

import (
	"context"

	"github.com/alphanode/stoker/tasks"
)

// Teller sends people a message.
type Teller[Sent any] interface {
	Send(ctx context.Context, j tasks.Job, p tasks.Notify) (Sent, error)
}

// Notify handles notify:send.
func Notify[Sent any](verb Teller[Sent]) Handler { return calls(verb.Send) }
