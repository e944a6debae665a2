package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/cmd/stoker/web"
	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/health"
)

func (c *cli) healthCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "health",
		Short:   "Run the health checks now",
		Example: "  stoker health --json",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(p port) error {
				report, err := ask(cmd.Context(), p, healthOp, none{})
				if err != nil {
					return err
				}
				if err := c.show(report, func(w io.Writer) { printChecks(w, report.Checks) }); err != nil {
					return err
				}
				return failing(report.Checks)
			})
		},
	}
}

var healthOp = operation[none, health.Report]{
	id: "checkHealth", says: "Run the health checks now",
	method: "POST", path: "/v1/health", scope: web.Operate, long: true,
	do: func(ctx context.Context, r *rooms, _ none, by tasks.By) (health.Report, error) {
		return r.monitor.Check(ctx, tasks.Alone("health"), tasks.Health{By: by})
	},
}

var latestHealthOp = operation[none, health.Report]{
	id: "health", says: "What the last health checks found",
	method: "GET", path: "/v1/health", scope: web.View,
	do: func(ctx context.Context, r *rooms, _ none, _ tasks.By) (health.Report, error) {
		return r.monitor.Latest(ctx)
	},
}

func printChecks(w io.Writer, checks []health.Check) {
	var rows [][]string
	for _, check := range checks {
		seen := check.Detail
		if check.Remedy != "" {
			seen += "\n→ " + check.Remedy
		}
		rows = append(rows, []string{strings.ToUpper(string(check.Status)), check.Name, seen})
	}
	table(w, []string{"", "CHECK", "SEEN, AND WHAT TO DO"}, rows)
}

// failing is the error of a list of checks with a failed one.
func failing(checks []health.Check) error {
	var names []string
	for _, check := range checks {
		if check.Status == health.Fail {
			names = append(names, check.Name)
		}
	}
	if len(names) > 0 {
		return fmt.Errorf("%d of %d checks fail: %s", len(names), len(checks), strings.Join(names, ", "))
	}
	return nil
}
