package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/cmd/stoker/web"
	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/health"
)

func (c *cli) baselineCommand() *cobra.Command {
	var wait bool
	cmd := &cobra.Command{
		Use:   "baseline ID",
		Short: "Measure how the site behaves under a release, to compare with later",
		Long: `Ask the site for the pages that the plan's probes name, and keep latency, errors, cache hits and
database calls as the release's baseline. Take one before every switch.`,
		Example: "  stoker baseline r41 --wait",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			return c.with(cmd.Context(), func(p port) error {
				task, err := ask(cmd.Context(), p, baselineOp, the{a[0]})
				if err != nil {
					return err
				}
				return finish(cmd.Context(), c, p, task, wait, func(w io.Writer, b health.Baseline) { printBaselines(w, b) })
			})
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it is measured")
	return cmd
}

var baselineOp = operation[the, queued]{
	id: "measureBaseline", says: "Measure how the site behaves under a release, to compare with later",
	method: "POST", path: "/v1/releases/{id}/baseline", scope: web.Operate,
	do: func(ctx context.Context, r *rooms, in the, by tasks.By) (queued, error) {
		if _, err := r.ledger.Get(ctx, in.ID); err != nil {
			return queued{}, err
		}
		if _, err := r.probes(ctx, in.ID); err != nil {
			return queued{}, err
		}
		return r.enqueue(ctx, tasks.Baseline{Release: in.ID, By: by})
	},
}

func printBaselines(w io.Writer, all ...health.Baseline) {
	var rows [][]string
	for _, b := range all {
		rows = append(rows, []string{b.Release, fmt.Sprint(b.Requests), fmt.Sprint(b.Errors), fmt.Sprintf("%.1f", b.P50), fmt.Sprintf("%.1f", b.P95), fmt.Sprintf("%.1f", b.P99),
			told(b.CacheReported, "%.1f%%", 100*b.HitRate), told(b.DBReported, "%.2f", b.DBCallsPerRequest)})
	}
	table(w, []string{"RELEASE", "REQUESTS", "ERRORS", "P50 ms", "P95 ms", "P99 ms", "HIT RATE", "DB CALLS"}, rows)
}

// told shows a figure that the site may not report.
func told(reported int, format string, figure float64) string {
	if reported == 0 {
		return "–"
	}
	return fmt.Sprintf(format, figure)
}
