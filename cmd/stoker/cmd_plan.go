package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

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
				return c.showChecked(a[0], plan, "is sound", nil)
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
	set, err := loadSettings()
	if err != nil {
		return err
	}
	r, err := wire(set, c.log(slog.LevelError), c.traces)
	if err != nil {
		return err
	}
	defer r.close()
	plan, notes, err := r.warmer.CheckPlan(ctx, text, release)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return c.showChecked(file, plan, "is sound, and what it names can be reached", notes)
}

func (c *cli) showChecked(file string, plan *warm.Plan, verdict string, notes []string) error {
	var names []string
	for _, s := range plan.Sources {
		names = append(names, s.Name)
	}
	return c.show(names, func(w io.Writer) {
		fmt.Fprintf(w, "%s %s: sources %s\n", file, verdict, strings.Join(names, ", "))
		for _, note := range notes {
			fmt.Fprintf(w, "  %s\n", plain(note))
		}
	})
}

func (c *cli) dryWarm(ctx context.Context, r *rooms, plan *warm.Plan, id string, sources []string, share float64) error {
	found, err := r.warmer.DryRun(ctx, plan, id, sources, share)
	if err != nil {
		return err
	}
	return c.show(found, func(w io.Writer) {
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
	})
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
