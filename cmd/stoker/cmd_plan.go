package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/cmd/stoker/web"
	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm"
)

func (c *cli) planCommand() *cobra.Command {
	cmd := group(&cobra.Command{Use: "plan", Short: "Check a warm plan, carry it out, print its schema", Example: "  stoker plan check stoker.yaml"})
	run := c.warms("run ID", "Warm a release by a plan: the same as `stoker warm`", "stoker plan run")
	cmd.AddCommand(c.planCheckCommand(), run, &cobra.Command{
		Use: "schema", Short: "Print the plan's JSON Schema", Example: "  stoker plan schema > stoker.schema.json",
		Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error { _, err := c.out.Write(warm.Schema); return err },
	})
	return cmd
}

func (c *cli) planCheckCommand() *cobra.Command {
	var offline bool
	var release string
	cmd := &cobra.Command{
		Use: "check FILE", Short: "Check a plan, and that what it names can be reached",
		Long: `Check a plan: every unknown field, bad template and wrong value, with line and column. Then
everything that it names is tried from here: a query on its database, without reading a row, for
the columns that key, tags and value are made of; a crawl's base and sitemap; a carry's release; an
access log. With --offline nothing is connected to, and no setting is needed.

Exit codes: 2 when the plan is wrong, 1 when it is sound and something cannot be used from here.`,
		Example: "  stoker plan check stoker.yaml --offline\n  stoker plan check stoker.yaml --release r42",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			if err := notEmpty(cmd, "release"); err != nil {
				return err
			}
			if offline {
				_, plan, err := readPlan(a[0])
				if err != nil {
					return err
				}
				return c.showChecked(a[0], checkedPlan{Sources: sourceNames(plan)}, "is sound")
			}
			return c.checkPlan(cmd.Context(), a[0], release)
		},
	}
	cmd.Flags().BoolVar(&offline, "offline", false, "look at the file only")
	cmd.Flags().StringVar(&release, "release", "", "the release that templates of addresses are filled in with")
	return cmd
}

// checkPlan checks a plan and reaches out to what it names.
func (c *cli) checkPlan(ctx context.Context, file, release string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("%w: read plan: %v", tasks.ErrInvalid, err)
	}
	if release != "" {
		if err := tasks.ValidateRelease(release); err != nil {
			return err
		}
	}
	return c.ported(ctx, false, func(p port) error {
		checked, err := ask(ctx, p, checkPlanOp, planIn{string(text), release})
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		return c.showChecked(file, checked, "is sound, and what it names can be reached")
	})
}

// planIn asks for a plan to be checked.
type planIn struct {
	Plan    string `json:"plan"` // YAML
	Release string `json:"release,omitempty"`
}

// checkedPlan is a plan that is sound.
type checkedPlan struct {
	Sources []string `json:"sources"`
	Notes   []string `json:"notes,omitempty"`
}

var checkPlanOp = operation[planIn, checkedPlan]{
	id: "checkPlan", says: "Check a warm plan, and that what it names can be reached from the process that serves the API",
	method: "POST", path: "/v1/plans/check", scope: web.Operate, long: true,
	do: func(ctx context.Context, r *rooms, in planIn, _ tasks.By) (checkedPlan, error) {
		if in.Release != "" {
			if err := tasks.ValidateRelease(in.Release); err != nil {
				return checkedPlan{}, err
			}
		}
		plan, notes, err := r.warmer.CheckPlan(ctx, []byte(in.Plan), in.Release)
		if err != nil {
			return checkedPlan{}, err
		}
		return checkedPlan{sourceNames(plan), notes}, nil
	},
}

func sourceNames(plan *warm.Plan) (names []string) {
	for _, s := range plan.Sources {
		names = append(names, s.Name)
	}
	return names
}

func (c *cli) showChecked(file string, checked checkedPlan, verdict string) error {
	return c.show(checked.Sources, func(w io.Writer) {
		fmt.Fprintf(w, "%s %s: sources %s\n", file, verdict, strings.Join(checked.Sources, ", "))
		for _, note := range checked.Notes {
			fmt.Fprintf(w, "  %s\n", plain(note))
		}
	})
}

func printSurvey(w io.Writer, found []warm.Survey) {
	var rows [][]string
	for _, s := range found {
		rows = append(rows, []string{s.Name, s.Kind, strconv.FormatInt(s.Count, 10), strconv.FormatInt(s.Hot, 10),
			about(s.Bytes > 0, size(s.Bytes)), about(s.Took > 0, duration(s.Took)), about(s.Requests > 0, humanize.Comma(s.Requests)), examples(s.Keys)})
	}
	table(w, []string{"SOURCE", "KIND", "ENTRIES", "HOT", "MEMORY", "WORK", "ORIGIN REQUESTS", "FOR EXAMPLE"}, rows)
	for _, s := range found {
		for _, line := range s.Basis {
			fmt.Fprintf(w, "%s: %s\n", s.Name, plain(line))
		}
		if s.Refused != "" {
			fmt.Fprintf(w, "%s would not begin: %s\n", s.Name, plain(s.Refused))
		}
		for _, line := range s.Unknown {
			fmt.Fprintf(w, "%s: not known: %s\n", s.Name, plain(line))
		}
	}
}

// about shows an estimate, "–" for one that is not known.
func about(known bool, text string) string {
	if !known {
		return "–"
	}
	return text
}

// duration shows a length of time to a person.
func duration(d time.Duration) string {
	if d >= time.Second {
		return d.Round(time.Second).String()
	}
	return d.Round(time.Millisecond).String()
}
