package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/cmd/stoker/web"
	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/restore"
)

func (c *cli) drillCommand() *cobra.Command {
	var wait bool
	var p pace
	cmd := &cobra.Command{
		Use:   "drill [ID]",
		Short: "Try whether an archive would come back, beside everything that is served",
		Long: `Restore a release's archive (default: the newest) into a scratch namespace that no visitor sees,
compare every entry with the archive by type, value and expiry, apply the invalidations since, tell
how long a rollback to it would take, and remove the namespace again. The default schedule does
so every week; health fails when the last good drill is older than STOKER_DRILL_MAX_AGE.`,
		Example: "  stoker drill --wait\n  stoker drill r41 --wait",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			id := ""
			if len(a) == 1 {
				if id = a[0]; id == "" {
					return fmt.Errorf("%w: the release's ID is empty: name one, or leave it out", tasks.ErrInvalid)
				}
			}
			return c.with(cmd.Context(), func(o port) error {
				task, err := ask(cmd.Context(), o, drillOp, drillIn{id, p.Pace})
				if err != nil {
					return err
				}
				var drill restore.Drill
				err = finish(cmd.Context(), c, o, task, wait, func(w io.Writer, d restore.Drill) {
					drill = d
					printDrill(w, d)
				})
				if err == nil && drill.Why != "" {
					err = errors.New("the drill is not good")
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait for the outcome")
	paceFlag(cmd, &p, workersPace)
	return cmd
}

// drillIn asks for a drill; ID "" means the newest archive's release.
type drillIn struct {
	ID   string     `json:"release,omitempty"`
	Pace tasks.Pace `json:"pace,omitempty"`
}

var drillOp = operation[drillIn, queued]{
	id: "drill", says: "Try whether an archive would come back, beside everything that is served",
	method: "POST", path: "/v1/drills", scope: web.Operate,
	do: func(ctx context.Context, r *rooms, in drillIn, by tasks.By) (queued, error) {
		if err := r.mayDrill(ctx, in.ID); err != nil {
			return queued{}, err
		}
		return r.enqueue(ctx, tasks.Drill{Release: in.ID, Pace: in.Pace, By: by})
	},
}

// mayDrill says at once that there is nothing to drill with.
func (r *rooms) mayDrill(ctx context.Context, id string) error {
	if err := r.needStore(ctx); err != nil {
		return err
	}
	if id == "" {
		all, err := r.archives(ctx)
		if err == nil && len(all) == 0 {
			err = fmt.Errorf("drill: %w: there is no archive yet: `stoker snapshot ID` makes one", tasks.ErrNotFound)
		}
		return err
	}
	rec, err := r.ledger.Get(ctx, id)
	if err != nil {
		return err
	}
	_, err = r.archiveOf(rec)
	return err
}

func printDrill(w io.Writer, d restore.Drill) {
	if d.Why != "" {
		fmt.Fprintf(w, "%s would not come back as it was: %s\n", d.Release, plain(d.Why))
		if len(d.Examples) > 0 {
			fmt.Fprintf(w, "for example %s\n", examples(d.Examples))
		}
		return
	}
	fmt.Fprintf(w, "%s comes back: %d entries compared, all as in %s; %d had expired\n", d.Release, d.Compared, d.Archive, d.ExpiredLeftOut)
	fmt.Fprintf(w, "a rollback to it would take about %.1f s: %.1f s to read, %.1f s to write, %.1f s for %d invalidations since\n",
		d.Seconds, d.VerifySeconds, d.RestoreSeconds, d.ReplaySeconds, d.Replayed)
}
