package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/cmd/stoker/web"
	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/health/freshness"
	"github.com/alphanode/stoker/worker/warm"
)

func (c *cli) freshnessCommand() *cobra.Command {
	var now bool
	cmd := &cobra.Command{
		Use:   "freshness",
		Short: "How fresh the caches are, held against the origin",
		Long: `Show what the freshness monitor saw last: of every live release, and of the archive that a
rollback would restore, a sample of entries is compared with what the plan's queries say now. An
entry that still differs after one minute and after five is stale. Exit code 1 says that there
are such entries.`,
		Example: "  stoker freshness\n  stoker freshness --now",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(p port) error {
				if now {
					if err := c.lookNow(cmd.Context(), p); err != nil {
						return err
					}
				}
				report, err := ask(cmd.Context(), p, freshnessOp, none{})
				if err != nil {
					return err
				}
				if err := c.show(report, func(w io.Writer) { printFreshness(w, report) }); err != nil {
					return err
				}
				if n := report.Stale(); n > 0 {
					return fmt.Errorf("%d stale entries", n)
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&now, "now", false, "look now, and wait until it is done")
	return cmd
}

var freshnessOp = operation[none, freshness.Report]{
	id: "freshness", says: "How fresh the caches were found last, held against the origin",
	method: "GET", path: "/v1/freshness", scope: web.View,
	do: func(ctx context.Context, r *rooms, _ none, _ tasks.By) (freshness.Report, error) {
		return r.fresh.Latest(ctx)
	},
}

var lookOp = operation[none, queued]{
	id: "checkFreshness", says: "Hold the caches against the origin now",
	method: "POST", path: "/v1/freshness", scope: web.Operate,
	do: func(ctx context.Context, r *rooms, _ none, by tasks.By) (queued, error) {
		return r.enqueue(ctx, tasks.Freshness{By: by})
	},
}

// lookNow has a worker look.
func (c *cli) lookNow(ctx context.Context, p port) error {
	task, err := ask(ctx, p, lookOp, none{})
	if err != nil {
		return err
	}
	bar := c.newBar()
	defer bar.end()
	_, err = follow(ctx, p, task, bar.show, bar.say)
	return err
}

func printFreshness(w io.Writer, r freshness.Report) {
	fmt.Fprintf(w, "As of %s:\n\n", ago(r.At))
	var rows [][]string
	for _, n := range r.Places {
		rows = append(rows, []string{
			n.Release, string(n.State), strconv.Itoa(n.Sampled), strconv.Itoa(n.Compared), strconv.Itoa(n.NotComparable),
			strconv.Itoa(n.Suspects), strconv.Itoa(n.Stale), strconv.Itoa(n.Day.Compared), figure(n),
		})
	}
	table(w, []string{"RELEASE", "STATE", "SAMPLED", "COMPARED", "NOT COMPARABLE", "SUSPECT", "STALE", "IN A DAY", "FRESH, WITH 95% CONFIDENCE"}, rows)
	for _, n := range r.Places {
		printStale(w, n)
	}
}

// figure is what can be said of a place's freshness.
func figure(n freshness.Result) string {
	switch {
	case n.Problem != "":
		return "not known: " + n.Problem
	case n.Day.Compared == 0:
		return "not known: nothing could be compared"
	}
	return fmt.Sprintf("at least %.2f%%, %.1f nines", 100*(1-n.Day.AtMost), n.Day.Nines)
}

func printStale(w io.Writer, n freshness.Result) {
	if n.Stale == 0 {
		return
	}
	fmt.Fprintf(w, "\n%d stale in %s", n.Stale, n.Release)
	if n.Tag != nil {
		fmt.Fprintf(w, "; the smallest tag of all of them is %s, with %d entries", n.Tag.Name, n.Tag.Entries)
	}
	fmt.Fprintln(w)
	var rows [][]string
	for _, e := range n.Entries {
		rows = append(rows, []string{e.Key.String(), ago(e.Since), e.Remedy().String()})
	}
	table(w, []string{"ENTRY", "SEEN FIRST", "INVALIDATE"}, rows)
}

// planOrigin asks the plans' queries. A crawl is never asked: the site would answer from the cache that
// is in question, or fill it.
type planOrigin struct{ warmer *warm.Runner }

// Ask implements [freshness.Origin].
func (o planOrigin) Ask(ctx context.Context, release string, keys []string) (answers map[string]freshness.Answer, err error) {
	lookup, err := o.warmer.Lookup(ctx, release)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lookup.Close()) }()
	ours := slices.DeleteFunc(slices.Clone(keys), func(key string) bool {
		owners := lookup.Owners(key)
		return len(owners) == 0 || slices.ContainsFunc(owners, func(source string) bool { return lookup.Kind(source) != "query" })
	})
	answers = make(map[string]freshness.Answer, len(ours))
	ctx, cancel := context.WithTimeout(ctx, originLimit)
	defer cancel()
	err = lookup.Find(ctx, ours, func(f warm.Found) error {
		for _, e := range f.Entries {
			answers[e.Key] = freshness.Answer{Entry: e.Entry, Tags: e.Tags}
		}
		for _, key := range f.Gone {
			answers[key] = freshness.Answer{Gone: true}
		}
		for _, failure := range f.Failed {
			answers[failure.Key] = freshness.Answer{Failed: true}
		}
		return nil
	})
	return answers, err
}

// originLimit is how long the queries for one sample may take: they are for keys, and short.
const originLimit = 2 * time.Minute
