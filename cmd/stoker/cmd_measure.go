package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/health"
	"github.com/alphanode/stoker/worker/release"
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
			return c.with(cmd.Context(), func(r *rooms) error {
				if _, err := r.ledger.Get(cmd.Context(), a[0]); err != nil {
					return err
				}
				if _, err := r.probes(cmd.Context(), a[0]); err != nil {
					return err
				}
				id, err := r.client.Enqueue(cmd.Context(), tasks.Baseline{Release: a[0], By: c.by()})
				if err != nil {
					return err
				}
				return finish(cmd.Context(), c, r, tasks.TypeBaseline, id, wait, func(w io.Writer, b health.Baseline) { printBaselines(w, b) })
			})
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it is measured")
	return cmd
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

func (c *cli) compareCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "compare A B",
		Short:   "Compare the baselines of two releases: better, same, worse or inconclusive",
		Long:    "Compare release B against release A by their baselines. Exit code 1 says worse, 4 inconclusive:\ntoo little was measured to say.",
		Example: "  stoker compare r41 r42",
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, a []string) error {
			return c.with(cmd.Context(), func(r *rooms) error {
				v, err := r.compare(cmd.Context(), a[0], a[1])
				if err != nil {
					return err
				}
				if err := c.show(v, func(w io.Writer) {
					printBaselines(w, v.Before, v.After)
					fmt.Fprintf(w, "%s is %s\n", a[1], v.Verdict)
					for _, why := range v.Reasons {
						fmt.Fprintf(w, "  %s\n", plain(why))
					}
				}); err != nil {
					return err
				}
				switch v.Verdict {
				case health.Worse:
					return fmt.Errorf("%s is worse than %s", a[1], a[0])
				case health.Inconclusive:
					return fmt.Errorf("compare %s with %s: %w", a[0], a[1], errInconclusive)
				}
				return nil
			})
		},
	}
}

func (r *rooms) compare(ctx context.Context, before, after string) (health.Verdict, error) {
	var b [2]health.Baseline
	for i, id := range []string{before, after} {
		rec, err := r.ledger.Get(ctx, id)
		if err != nil {
			return health.Verdict{}, err
		}
		if ok, err := rec.Doc(release.DocBaseline, &b[i]); err != nil {
			return health.Verdict{}, err
		} else if !ok {
			return health.Verdict{}, fmt.Errorf("compare: baseline of release %q: %w: `stoker baseline %s` measures one while it is served", id, tasks.ErrNotFound, id)
		}
	}
	return health.Compare(b[0], b[1]), nil
}

func (c *cli) noteCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "note ID",
		Short:   "Write the final note of a release, as Markdown",
		Example: "  stoker release note r42 > notes/r42.md",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			return c.with(cmd.Context(), func(r *rooms) error {
				text, err := r.note(cmd.Context(), a[0])
				if err != nil {
					return err
				}
				return c.show(map[string]string{"markdown": text}, func(w io.Writer) { io.WriteString(w, text) })
			})
		},
	}
}

// note writes a release's final note from everything that the rooms know of it.
func (r *rooms) note(ctx context.Context, id string) (string, error) {
	rec, err := r.ledger.Get(ctx, id)
	if err != nil {
		return "", err
	}
	in := health.NoteInput{Record: rec}
	if in.History, err = r.ledger.History(ctx, id); err != nil {
		return "", err
	}
	if err := fill(rec, release.DocBaseline, &in.Baseline); err != nil {
		return "", err
	}
	if err := fill(rec, release.DocVerdict, &in.Verdict); err != nil {
		return "", err
	}
	if in.Certificate, err = certificateFields(rec); err != nil {
		return "", err
	}
	if in.Previous, err = r.previous(ctx, rec); err != nil {
		return "", err
	}
	if in.Previous != "" {
		in.Rollback = "stoker rollback --to " + in.Previous + " --wait"
	}
	status, err := r.log.Status(ctx)
	if err != nil {
		return "", err
	}
	if since := rec.CreatedAt.UnixMicro(); since >= status.Floor {
		n, err := r.log.Since(ctx, since)
		if err != nil {
			return "", err
		}
		in.Invalidations = &n
	}
	return health.Note(in), nil
}

// fill decodes a document where there is one.
func fill[T any](rec release.Record, d release.Doc, to **T) error {
	v := new(T)
	ok, err := rec.Doc(d, v)
	if ok {
		*to = v
	}
	return err
}

// previous returns the release that was active before rec first was.
func (r *rooms) previous(ctx context.Context, rec release.Record) (string, error) {
	records, err := r.ledger.List(ctx)
	if err != nil {
		return "", err
	}
	for _, other := range records { // newest first
		if other.CreatedAt.Before(rec.CreatedAt) && !other.ActivatedAt.IsZero() {
			return other.ID, nil
		}
	}
	return "", nil
}
