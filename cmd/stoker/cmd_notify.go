package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

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
			return c.with(cmd.Context(), func(r *rooms) error {
				by := c.by()
				message := tasks.Notify{
					Event: tasks.EventTest, At: time.Now().UTC(), App: r.set.Tasks.App, Title: "a test",
					Lines: []string{"Sent by " + by.Actor + " with stoker notify --test."},
				}
				if by.Reason != "" {
					message.Lines = append(message.Lines, by.Reason)
				}
				arrived := func(w io.Writer, s notify.Sent) {
					fmt.Fprintf(w, "the receiver took message %s (status %d)\n", s.ID, s.Status)
				}
				if wait {
					id, err := r.client.Enqueue(cmd.Context(), message)
					if err != nil {
						return err
					}
					return finish(cmd.Context(), c, r, tasks.TypeNotify, id, true, arrived)
				}
				sent, err := r.sender.Send(cmd.Context(), tasks.Alone("test-"+rand.Text()), message)
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
