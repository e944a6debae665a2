package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/cmd/stoker/web"
	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker"
	"github.com/alphanode/stoker/worker/health"
	"github.com/alphanode/stoker/worker/release"
)

func (c *cli) activateCommand() *cobra.Command {
	var force, wait, autoRollback bool
	cmd := &cobra.Command{
		Use:   "activate ID",
		Short: "Serve a ready release; the one served before goes on standby",
		Long: `Serve a ready release; the one served before goes on standby.

The site is then watched for STOKER_WATCH_FOR: its pages are measured at growing intervals and
compared with the baseline of the release before. When it is clearly worse, the webhook is told
(STOKER_WEBHOOK_URL) and, with --auto-rollback or STOKER_WATCH_ROLLBACK, the release before comes
back by itself, once per release, fresh or not at all.`,
		Example: `  stoker release activate r42 --wait --reason 'certificate passed'
  stoker release activate r42 --auto-rollback`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			return c.with(cmd.Context(), func(p port) error {
				task, err := ask(cmd.Context(), p, activateOp, activateIn{a[0], force, autoRollback})
				if err != nil {
					return err
				}
				for _, note := range task.Notes {
					fmt.Fprintln(c.err, "note: "+plain(note))
				}
				return finish(cmd.Context(), c, p, task, wait, func(w io.Writer, done worker.Activation) {
					fmt.Fprintf(w, "%s is active", done.Release)
					if done.Previous != "" {
						fmt.Fprintf(w, "; %s is on standby: `stoker rollback` brings it back", done.Previous)
					}
					fmt.Fprintln(w)
				})
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "without a passed certificate; recorded")
	cmd.Flags().BoolVar(&autoRollback, "auto-rollback", false, "let the watch bring the release before back when the site is clearly worse")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it is done")
	return cmd
}

// oldBaseline is the age from which a baseline may speak of other traffic than today's.
const oldBaseline = 24 * time.Hour

// activateIn asks for a switch.
type activateIn struct {
	ID           string `json:"id"`
	Force        bool   `json:"force,omitempty"`
	AutoRollback bool   `json:"auto_rollback,omitempty"`
}

var activateOp = operation[activateIn, queued]{
	id: "activate", says: "Serve a ready release; the one served before goes on standby",
	method: "POST", path: "/v1/releases/{id}/activate", scope: web.Operate,
	do: func(ctx context.Context, r *rooms, in activateIn, by tasks.By) (queued, error) {
		rec, err := r.ledger.Get(ctx, in.ID)
		if err != nil {
			return queued{}, err
		}
		active, err := r.ledger.Active(ctx)
		if err != nil {
			return queued{}, err
		}
		if _, err := worker.Admit(rec, active == "", in.Force); err != nil {
			return queued{}, err
		}
		notes, err := r.baselineNotes(ctx, active)
		if err != nil {
			return queued{}, err
		}
		return r.enqueue(ctx, tasks.Activate{Release: in.ID, Force: in.Force, AutoRollback: in.AutoRollback, By: by}, notes...)
	},
}

// baselineNotes say when the watch will have nothing good to compare with.
func (r *rooms) baselineNotes(ctx context.Context, active string) ([]string, error) {
	if active == "" {
		return nil, nil
	}
	rec, err := r.ledger.Get(ctx, active)
	if err != nil {
		return nil, err
	}
	var b health.Baseline
	ok, err := rec.Doc(release.DocBaseline, &b)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return []string{fmt.Sprintf("%s has no baseline, so the watch will be inconclusive: `stoker baseline %s` before the switch", active, active)}, nil
	case time.Since(b.At) > oldBaseline:
		return []string{fmt.Sprintf("the baseline of %s is of %s: `stoker baseline %s` takes a new one", active, ago(b.At), active)}, nil
	}
	return nil, nil
}

func (c *cli) pinCommand(pin bool) *cobra.Command {
	use, short, op := "pin ID", "Keep a release from being expired", pinOp
	if !pin {
		use, short, op = "unpin ID", "Let a pinned release go", unpinOp
	}
	return &cobra.Command{
		Use: use, Short: short, Example: "  stoker release " + strings.Replace(use, "ID", "r42", 1),
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			return c.with(cmd.Context(), func(p port) error {
				pinned, err := ask(cmd.Context(), p, op, the{a[0]})
				if err != nil {
					return err
				}
				return c.printRelease(pinned)
			})
		},
	}
}

var pinOp = operation[the, registered]{
	id: "pin", says: "Keep a release from being expired",
	method: "POST", path: "/v1/releases/{id}/pin", scope: web.Operate, do: pinning(true),
}

var unpinOp = operation[the, registered]{
	id: "unpin", says: "Let a pinned release go",
	method: "POST", path: "/v1/releases/{id}/unpin", scope: web.Operate, do: pinning(false),
}

func pinning(pin bool) func(context.Context, *rooms, the, tasks.By) (registered, error) {
	return func(ctx context.Context, r *rooms, in the, by tasks.By) (registered, error) {
		if err := r.ledger.Pin(ctx, in.ID, pin, by); err != nil {
			return registered{}, err
		}
		return r.registered(ctx, in.ID)
	}
}
