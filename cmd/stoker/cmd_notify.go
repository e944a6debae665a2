package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/cmd/stoker/web"
	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/notify"
)

func (c *cli) notifyCommand() *cobra.Command {
	var test, wait bool
	cmd := &cobra.Command{
		Use:   "notify",
		Short: "Try whether messages to people arrive",
		Long: `Send a test message to STOKER_WEBHOOK_URL. Without --wait it is sent from here, at once; with it
by a worker, as every other message is: that tries the worker's settings.

People are told when a release is worse after its switch, when it was rolled back by itself or
could not be, when a warm run's certificate fails, and when health fails or recovers.`,
		Example: "  stoker notify --test\n  stoker notify --test --wait",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !test {
				return fmt.Errorf("%w: say --test to send a test message", tasks.ErrInvalid)
			}
			return c.with(cmd.Context(), func(p port) error {
				arrived := func(w io.Writer, s notify.Sent) {
					fmt.Fprintf(w, "the receiver took message %s (status %d)\n", s.ID, s.Status)
				}
				if wait {
					task, err := ask(cmd.Context(), p, enqueueTellOp, none{})
					if err != nil {
						return err
					}
					return finish(cmd.Context(), c, p, task, true, arrived)
				}
				sent, err := ask(cmd.Context(), p, tellOp, none{})
				if err != nil {
					return err
				}
				return c.show(sent, func(w io.Writer) { arrived(w, sent) })
			})
		},
	}
	cmd.Flags().BoolVar(&test, "test", false, "send a test message")
	cmd.Flags().BoolVar(&wait, "wait", false, "have a worker send it, and wait for it")
	return cmd
}

var tellOp = operation[none, notify.Sent]{
	id: "sendTest", says: "Send a test message to the webhook, from the process that serves the API",
	method: "POST", path: "/v1/notifications/test", scope: web.Operate, long: true,
	do: func(ctx context.Context, r *rooms, _ none, by tasks.By) (notify.Sent, error) {
		return r.sender.Send(ctx, tasks.Alone("test-"+rand.Text()), r.testMessage(by))
	},
}

var enqueueTellOp = operation[none, queued]{
	id: "enqueueTest", says: "Have a worker send a test message to the webhook",
	method: "POST", path: "/v1/notifications/test/task", scope: web.Operate,
	do: func(ctx context.Context, r *rooms, _ none, by tasks.By) (queued, error) {
		return r.enqueue(ctx, r.testMessage(by))
	},
}

func (r *rooms) testMessage(by tasks.By) tasks.Notify {
	message := tasks.Notify{
		Event: tasks.EventTest, At: time.Now().UTC(), App: r.set.Tasks.App, Title: "a test",
		Lines: []string{"Sent by " + by.Actor + " with stoker notify --test."},
	}
	if by.Reason != "" {
		message.Lines = append(message.Lines, by.Reason)
	}
	return message
}
