package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/warm/refresh"
)

func (c *cli) invalidateCommand() *cobra.Command {
	var keys, tags, prefixes []string
	var dryRun, wait, reload bool
	cmd := &cobra.Command{
		Use:   "invalidate",
		Short: "Remove keys, tags or prefixes from every live release",
		Example: `  stoker invalidate --tag post:42 --tag author:ann --reason 'article edited' --wait
  stoker invalidate --prefix nav: --dry-run`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			call := tasks.Invalidation{Refresh: reload, By: c.by()}
			for kind, names := range map[tasks.Kind][]string{tasks.KindKey: keys, tasks.KindTag: tags, tasks.KindPrefix: prefixes} {
				for _, name := range names {
					call.Targets = append(call.Targets, tasks.Target{Kind: kind, Name: tasks.Bytes(name)})
				}
			}
			if err := call.Validate(); err != nil {
				return err
			}
			return c.with(cmd.Context(), func(r *rooms) error {
				if dryRun {
					return c.previewInvalidation(cmd.Context(), r, call)
				}
				return c.invalidate(cmd.Context(), r, call, wait)
			})
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&keys, "key", nil, "a logical key (repeat)")
	f.StringArrayVar(&tags, "tag", nil, "a tag (repeat)")
	f.StringArrayVar(&prefixes, "prefix", nil, "a prefix of logical keys (repeat)")
	f.BoolVar(&reload, "refresh", false, "reload what is removed from the plan's sources, the hottest first")
	f.BoolVar(&dryRun, "dry-run", false, "only show what would be removed")
	f.BoolVar(&wait, "wait", false, "wait until it is removed everywhere, at most a minute")
	return cmd
}

func (c *cli) invalidate(ctx context.Context, r *rooms, call tasks.Invalidation, wait bool) error {
	// An interrupt must not leave it open whether the call is recorded.
	receipt, err := r.client.Invalidate(context.WithoutCancel(ctx), call)
	if err != nil {
		return err
	}
	if !wait {
		return c.show(receipt, func(w io.Writer) { fmt.Fprintf(w, "recorded as number %d\n", receipt.Number) })
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	applied, err := r.client.Wait(ctx, receipt)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("stopped waiting; the work goes on as number %d: it is recorded, and a worker applies it (`stoker status` tells whether one runs)", receipt.Number)
	case err != nil:
		return err
	}
	return c.show(applied, func(w io.Writer) {
		fmt.Fprintf(w, "number %d is applied; removed %s\n", applied.Number, removed(applied.Namespaces))
	})
}

// removed shows how many entries left which release.
func removed(namespaces map[string]int64) string {
	var all []string
	for _, id := range slices.Sorted(maps.Keys(namespaces)) {
		all = append(all, fmt.Sprintf("%d from %s", namespaces[id], id))
	}
	if len(all) == 0 {
		return "nothing: no release is live"
	}
	return strings.Join(all, ", ")
}

// preview is what an invalidation would do to one namespace.
type preview struct {
	invalidation.Preview
	// Refresh is what would be reloaded, when that was asked for.
	Refresh *refresh.Preview `json:"refresh,omitempty"`
}

func (c *cli) previewInvalidation(ctx context.Context, r *rooms, call tasks.Invalidation) error {
	live, err := r.ledger.Live(ctx)
	if err != nil {
		return err
	}
	all := []preview{}
	for _, id := range live {
		p, err := r.applier.Preview(ctx, id, call.Targets)
		if err != nil {
			return err
		}
		one := preview{Preview: p}
		if call.Refresh {
			p, err := r.refresh.Preview(ctx, id, call.Targets)
			if err != nil {
				return err
			}
			one.Refresh = &p
		}
		all = append(all, one)
	}
	return c.show(all, func(w io.Writer) {
		if len(all) == 0 {
			fmt.Fprintln(w, "nothing to remove: no release is live")
			return
		}
		var rows [][]string
		for _, p := range all {
			rows = append(rows, []string{p.Release, strconv.FormatInt(p.Entries, 10), humanize.IBytes(uint64(p.Bytes)), examples(p.Sample)})
		}
		table(w, []string{"RELEASE", "WOULD REMOVE", "MEMORY", "FOR EXAMPLE"}, rows)
		for _, p := range all {
			if p.Refresh != nil {
				fmt.Fprintf(w, "%s: %s\n", p.Release, wouldRefresh(*p.Refresh))
			}
		}
	})
}

// wouldRefresh says what a refresh would reload in one release.
func wouldRefresh(p refresh.Preview) string {
	if p.NoPlan {
		return "would reload nothing: the release has no plan"
	}
	text := fmt.Sprintf("would reload %d", p.Keys)
	if len(p.Sample) > 0 {
		text += ", for example " + examples(p.Sample)
	}
	if p.Unowned > 0 {
		text += fmt.Sprintf("; %d that no source of the plan owns are left to the site", p.Unowned)
	}
	if p.Beyond {
		text += "; there are more, which STOKER_REFRESH_LIMIT leaves to the site"
	}
	return text
}

func (c *cli) invalidationsCommand() *cobra.Command {
	var n int
	cmd := &cobra.Command{
		Use:     "invalidations",
		Short:   "List what was invalidated last, by whom, and what it removed",
		Example: "  stoker invalidations -n 50",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if n < 1 || n > 10_000 {
				return fmt.Errorf("%w: -n %d: use 1 to 10000", tasks.ErrInvalid, n)
			}
			return c.with(cmd.Context(), func(r *rooms) error {
				list, err := tasks.ListApplied(cmd.Context(), r.queue, r.keys, n)
				if err != nil {
					return err
				}
				return c.show(list, func(w io.Writer) { printApplied(w, list) })
			})
		},
	}
	cmd.Flags().IntVarP(&n, "number", "n", 20, "how many")
	return cmd
}

func printApplied(w io.Writer, list []tasks.Applied) {
	if len(list) == 0 {
		fmt.Fprintln(w, "nothing was invalidated yet: `stoker invalidate --tag TAG` does, or the site through its client")
		return
	}
	var rows [][]string
	for _, a := range list {
		what := fmt.Sprintf("%s; removed %s", examples(a.Sample), removed(a.Namespaces))
		what += "\nby " + strings.TrimSuffix(a.Actor+": "+a.Reason, ": ")
		rows = append(rows, []string{
			strconv.FormatInt(a.Number, 10), a.Recorded.Format("2006-01-02 15:04:05"), a.At.Sub(a.Recorded).Round(100 * time.Microsecond).String(),
			strconv.Itoa(a.Targets), what,
		})
	}
	table(w, []string{"NUMBER", "AT (UTC)", "AFTER", "TARGETS", "WHAT, AND WHO ASKED"}, rows)
}
