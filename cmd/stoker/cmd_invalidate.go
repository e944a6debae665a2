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

	"github.com/alphanode/stoker/cmd/stoker/web"
	"github.com/alphanode/stoker/tasks"
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
			for _, given := range []struct {
				kind  tasks.Kind
				names []string
			}{{tasks.KindKey, keys}, {tasks.KindTag, tags}, {tasks.KindPrefix, prefixes}} {
				for _, name := range given.names {
					call.Targets = append(call.Targets, tasks.Target{Kind: given.kind, Name: tasks.Bytes(name)})
				}
			}
			if err := call.Validate(); err != nil {
				return err
			}
			asked := invalidateIn{targetsOf(call), reload}
			return c.with(cmd.Context(), func(p port) error {
				if dryRun {
					return c.previewInvalidation(cmd.Context(), p, asked)
				}
				return c.invalidate(cmd.Context(), p, asked, wait)
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

func (c *cli) invalidate(ctx context.Context, p port, call invalidateIn, wait bool) error {
	// An interrupt must not leave it open whether the call is recorded.
	receipt, err := ask(context.WithoutCancel(ctx), p, recordOp, call)
	if err != nil {
		return err
	}
	if !wait {
		return c.show(receipt, func(w io.Writer) { fmt.Fprintf(w, "recorded as number %d\n", receipt.Number) })
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	applied, err := followCall(ctx, p, receipt.Number)
	if err != nil {
		return err
	}
	return c.show(applied, func(w io.Writer) {
		fmt.Fprintf(w, "number %d is applied; removed %s\n", applied.Number, removed(applied.Namespaces))
	})
}

// followCall asks at growing intervals of up to [askEvery] what became of a call, until it is applied.
func followCall(ctx context.Context, p port, number int64) (tasks.Applied, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, askEvery) {
		o, err := ask(ctx, p, outcomeOp, callNumber{number})
		switch {
		case ctx.Err() != nil: // below
		case err != nil:
			return tasks.Applied{}, err
		case o.Status == web.StageApplied:
			return o.applied(), nil
		}
		select {
		case <-ctx.Done():
			return tasks.Applied{}, fmt.Errorf("stopped waiting; the work goes on as number %d: it is recorded, and a worker applies it (`stoker status` tells whether one runs)", number)
		case <-time.After(pause):
		}
	}
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

func (c *cli) previewInvalidation(ctx context.Context, p port, call invalidateIn) error {
	all, err := ask(ctx, p, previewOp, call)
	if err != nil {
		return err
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
			if err := (lastCalls{n}).validate(); err != nil {
				return err
			}
			return c.with(cmd.Context(), func(p port) error {
				list, err := ask(cmd.Context(), p, invalidationsOp, lastCalls{n})
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
