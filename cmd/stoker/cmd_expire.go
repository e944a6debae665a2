package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/cmd/stoker/web"
	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/retire"
)

func (c *cli) expireCommand() *cobra.Command {
	var id string
	var noSnapshot, dryRun, wait bool
	var speed pace
	cmd := &cobra.Command{
		Use:   "expire",
		Short: "Archive and remove releases by the retention rule, or one by name",
		Long: `Take releases out of Redis. Without --release the retention rule decides (STOKER_RETAIN_…):
what is beyond it on standby is written to a verified archive and removed; what is beyond it
in the archive is deleted. What is served is never touched.`,
		Example: `  stoker expire --dry-run
  stoker expire --release r40 --wait
  stoker expire --release r12 --no-snapshot --wait`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := notEmpty(cmd, "release"); err != nil {
				return err
			}
			asked := expireIn{id, noSnapshot, speed.Pace}
			if err := asked.payload(c.by()).Validate(); err != nil {
				return err
			}
			return c.with(cmd.Context(), func(p port) error {
				if dryRun {
					plan, err := ask(cmd.Context(), p, expirePlanOp, asked)
					if err != nil {
						return err
					}
					return c.show(plan.Steps, func(w io.Writer) { printSteps(w, plan) })
				}
				task, err := ask(cmd.Context(), p, expireOp, asked)
				if err != nil {
					return err
				}
				return finish(cmd.Context(), c, p, task, wait, printRetired)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&id, "release", "", "this release instead of the rule's")
	f.BoolVar(&noSnapshot, "no-snapshot", false, "without an archive: with --release only; it can never come back")
	f.BoolVar(&dryRun, "dry-run", false, "only show what would leave, and why")
	f.BoolVar(&wait, "wait", false, "wait until it is done")
	paceFlag(cmd, &speed, workersPace)
	return cmd
}

// expireIn asks for an expiry: by the rule, or of one release.
type expireIn struct {
	Release    string     `json:"release,omitempty"`
	NoSnapshot bool       `json:"no_snapshot,omitempty"` // with Release alone
	Pace       tasks.Pace `json:"pace,omitempty"`
}

func (in expireIn) payload(by tasks.By) tasks.Expire {
	return tasks.Expire{Release: in.Release, NoSnapshot: in.NoSnapshot, Pace: in.Pace, By: by}
}

// expiryPlan is what an expiry would do.
type expiryPlan struct {
	Steps    []retire.Step `json:"steps"`
	Unstored string        `json:"unstored,omitempty"` // why no archive can be written, if none can
}

var expirePlanOp = operation[expireIn, expiryPlan]{
	id: "planExpiry", says: "What an expiry would take out of Redis, and why",
	method: "POST", path: "/v1/expiry/plan", scope: web.Operate, long: true,
	do: func(ctx context.Context, r *rooms, in expireIn, by tasks.By) (plan expiryPlan, err error) {
		steps, err := r.retirer.Plan(pace{in.Pace}.here(ctx), in.payload(by))
		if err != nil {
			return plan, err
		}
		plan.Steps = append([]retire.Step{}, steps...) // [] in JSON where there are none
		if err := r.needStore(ctx); err != nil {
			plan.Unstored = err.Error()
		}
		return plan, nil
	},
}

var expireOp = operation[expireIn, queued]{
	id: "expire", says: "Archive and remove releases by the retention rule, or one by name",
	method: "POST", path: "/v1/expiry", scope: web.Operate, long: true,
	do: func(ctx context.Context, r *rooms, in expireIn, by tasks.By) (queued, error) {
		steps, err := r.retirer.Plan(pace{in.Pace}.here(ctx), in.payload(by))
		if err != nil {
			return queued{}, err
		}
		if slices.ContainsFunc(steps, func(s retire.Step) bool { return s.To == release.Archived }) {
			if err := r.needStore(ctx); err != nil {
				return queued{}, err
			}
		}
		return r.enqueue(ctx, in.payload(by))
	},
}

func printRetired(w io.Writer, done retire.Report) {
	for _, moved := range []struct {
		how string
		ids []string
	}{{"archived", done.Archived}, {"expired", done.Expired}} {
		if len(moved.ids) > 0 {
			fmt.Fprintf(w, "%s %s\n", moved.how, strings.Join(moved.ids, ", "))
		}
	}
	for _, s := range done.Skipped {
		fmt.Fprintf(w, "kept %s: %s\n", s.Release, plain(s.Why))
	}
	fmt.Fprintf(w, "%d keys removed from Redis in %.1f s\n", done.Deleted, done.Seconds)
}

// printSteps shows what an expiry would do.
func printSteps(w io.Writer, plan expiryPlan) {
	steps := plan.Steps
	if len(steps) == 0 {
		fmt.Fprintln(w, "nothing to expire: every release is within the rule, pinned, or in use")
		return
	}
	var rows [][]string
	var keys, bytes int64
	for _, s := range steps {
		keys, bytes = keys+s.Keys, bytes+s.Bytes
		why := s.Why
		if s.Archive != "" {
			why += "\nits archive is deleted: " + s.Archive
		}
		if len(s.Sample) > 0 {
			why += "\nfor example " + examples(s.Sample)
		}
		rows = append(rows, []string{s.Release, string(s.From) + " → " + string(s.To), strconv.FormatInt(s.Entries, 10), strconv.FormatInt(s.Keys, 10), size(s.Bytes), why})
	}
	table(w, []string{"RELEASE", "MOVE", "ENTRIES", "KEYS", "ABOUT", "WHY"}, rows)
	fmt.Fprintf(w, "in all %d keys, about %s\n", keys, size(bytes))
	if plan.Unstored != "" && slices.ContainsFunc(steps, func(s retire.Step) bool { return s.To == release.Archived && s.From == release.Standby }) {
		fmt.Fprintf(w, "it would not begin: %s\n", plan.Unstored)
	}
}
