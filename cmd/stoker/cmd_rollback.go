package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/cmd/stoker/web"
	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/restore"
)

func (c *cli) rollbackCommand() *cobra.Command {
	var to string
	var salvage, wait bool
	var p pace
	cmd := &cobra.Command{
		Use:   "rollback",
		Short: "Bring back an earlier release, warm and fresh, or not at all",
		Long: `Bring back the release that was active before, or the one named with --to. One on standby comes
back by a flip; an archived one is restored, every invalidation since its snapshot is applied
to it, and only then it is served. What cannot be proved fresh is refused, and so is a damaged
archive; --salvage brings back those of its blocks that are whole.`,
		Example: "  stoker rollback --wait --reason 'tag pages are slow'\n  stoker rollback --to r40 --wait",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := notEmpty(cmd, "to"); err != nil {
				return err
			}
			return c.with(cmd.Context(), func(o port) error {
				task, err := ask(cmd.Context(), o, rollbackOp, rollbackIn{to, salvage, p.Pace})
				if err != nil {
					return err
				}
				return finish(cmd.Context(), c, o, task, wait, func(w io.Writer, done restore.Report) {
					fmt.Fprintf(w, "%s is active, from %s in %.1f s; fresh as of number %d", done.To, done.Via, done.Seconds, done.FreshAsOf)
					if done.Via == restore.ViaArchive {
						fmt.Fprintf(w, "; %d entries, %d invalidations applied since its snapshot", done.Entries, done.Replayed)
					}
					fmt.Fprintln(w)
					printSalvaged(w, done)
				})
			})
		},
	}
	cmd.Flags().BoolVar(&salvage, "salvage", false, "of a damaged archive, bring back what is whole and say what is not")
	cmd.Flags().StringVar(&to, "to", "", "the release to bring back (default: the one active before)")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it is served")
	paceFlag(cmd, &p, "full, since visitors wait for it")
	return cmd
}

// rollbackIn asks for a rollback; To "" means to the release that was active before.
type rollbackIn struct {
	To      string     `json:"to,omitempty"`
	Salvage bool       `json:"salvage,omitempty"`
	Pace    tasks.Pace `json:"pace,omitempty"`
}

var rollbackOp = operation[rollbackIn, queued]{
	id: "rollBack", says: "Bring back an earlier release, warm and fresh, or not at all",
	method: "POST", path: "/v1/rollback", scope: web.Operate,
	do: func(ctx context.Context, r *rooms, in rollbackIn, by tasks.By) (queued, error) {
		if err := r.restorer.May(ctx, in.To); err != nil {
			return queued{}, err
		}
		return r.enqueue(ctx, tasks.Rollback{To: in.To, Salvage: in.Salvage, Pace: in.Pace, By: by})
	},
}

// printSalvaged says what did not come back of a damaged archive.
func printSalvaged(w io.Writer, done restore.Report) {
	if done.Salvaged == nil {
		return
	}
	fmt.Fprintf(w, "its archive is damaged: %d entries came back, %d are lost\n", done.Salvaged.Entries, done.Lost)
	for _, l := range done.Salvaged.Lost {
		if l.Block == 0 {
			fmt.Fprintf(w, "lost at offset %d\n", l.Offset)
			continue
		}
		fmt.Fprintf(w, "lost block %d at offset %d: %d entries, the first is %s\n", l.Block, l.Offset, l.Entries, l.First)
	}
}
