package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/cmd/stoker/web"
	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/health"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/warm"
	"github.com/alphanode/stoker/worker/warm/source"
)

func (c *cli) compareCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "compare A B",
		Short: "Compare the stored baselines of two releases: better, same, worse or inconclusive",
		Long: `Compare release B against release A by the baselines that were measured while each was served
(stoker baseline ID). Nothing is asked of the site now: to ask two releases that both run for the
same pages, side by side, use stoker release compare A B.

Exit code 1 says worse, 4 inconclusive: too little was measured to say.`,
		Example: "  stoker compare r41 r42",
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, a []string) error {
			return c.with(cmd.Context(), func(p port) error {
				v, err := ask(cmd.Context(), p, compareOp, pair{a[0], a[1]})
				if err != nil {
					return err
				}
				if err := c.show(v, func(w io.Writer) {
					printBaselines(w, v.Before, v.After)
					printVerdict(w, a[1], v)
				}); err != nil {
					return err
				}
				return verdictError(v, a[0], a[1])
			})
		},
	}
}

// pair is two releases that are compared.
type pair struct {
	A string `json:"a"`
	B string `json:"b"`
}

var compareOp = operation[pair, health.Verdict]{
	id: "compareBaselines", says: "Compare the stored baselines of releases a and b: better, same, worse or inconclusive",
	method: "GET", path: "/v1/comparison", scope: web.View,
	do: func(ctx context.Context, r *rooms, in pair, _ tasks.By) (health.Verdict, error) {
		return r.compare(ctx, in.A, in.B)
	},
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

// verdictError is the error of a verdict that is not good: its exit code tells scripts.
func verdictError(v health.Verdict, a, b string) error {
	switch v.Verdict {
	case health.Worse:
		return fmt.Errorf("%s is worse than %s", b, a)
	case health.Inconclusive:
		return fmt.Errorf("compare %s with %s: %w", a, b, errInconclusive)
	}
	return nil
}

func printVerdict(w io.Writer, id string, v health.Verdict) {
	fmt.Fprintf(w, "%s is %s\n", id, v.Verdict)
	for _, why := range v.Reasons {
		fmt.Fprintf(w, "  %s\n", plain(why))
	}
}

// comparison is what `release compare` is asked for.
type comparison struct {
	pair
	BaseA string   `json:"base_a,omitempty"` // where A answers: scheme and host; "" to look in its plan
	BaseB string   `json:"base_b,omitempty"`
	Paths []string `json:"paths,omitempty"` // none means the probes' of B's plan
	Count int      `json:"count,omitempty"` // requests to each; 0 means the plan's, or 1000
}

var comparePagesOp = operation[comparison, health.Pages]{
	id: "comparePages", says: "Ask two releases that both run for the same pages, side by side",
	method: "POST", path: "/v1/comparison", scope: web.Operate, long: true,
	do: func(ctx context.Context, r *rooms, in comparison, _ tasks.By) (health.Pages, error) {
		x, y, err := r.sides(ctx, in)
		if err != nil {
			return health.Pages{}, err
		}
		return r.monitor.ComparePages(ctx, tasks.Alone("compare"), x, y)
	},
}

func (c *cli) releaseCompareCommand() *cobra.Command {
	var asked comparison
	cmd := &cobra.Command{
		Use:   "compare A B",
		Short: "Ask two releases that both run for the same pages, side by side",
		Long: `Ask two releases for the same pages, in turn, and show status, latency, size, cache and database
calls side by side, the pages that differ most first, with a verdict over all. Both must run: the
active release is asked where the plan's probes are, any other at the base of the first crawl of the
plan it was warmed with, or where --base-a and --base-b say. The pages are the probes' of B's plan.
To compare what was measured earlier, use stoker compare A B.

Exit code 1 says that B is worse, 4 inconclusive: too little was asked to say.`,
		Example: `  stoker release compare r41 r42
  stoker release compare r41 r42 --base-b http://canary:8080 --path / --path /about --count 500`,
		Args: args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, a []string) error {
			asked.A, asked.B = a[0], a[1]
			return c.with(cmd.Context(), func(p port) error {
				pages, err := ask(cmd.Context(), p, comparePagesOp, asked)
				if err != nil {
					return err
				}
				if err := c.show(pages, func(w io.Writer) { printPages(w, pages) }); err != nil {
					return err
				}
				return verdictError(pages.Verdict, a[0], a[1])
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&asked.BaseA, "base-a", "", "where A answers: scheme and host")
	f.StringVar(&asked.BaseB, "base-b", "", "where B answers: scheme and host")
	f.StringArrayVar(&asked.Paths, "path", nil, "a page to ask for, in place of the plan's probes (repeat)")
	f.IntVar(&asked.Count, "count", 0, "requests to each release (default: the plan's, or 1000)")
	return cmd
}

// sides finds out where two releases answer and which pages to ask for.
func (r *rooms) sides(ctx context.Context, asked comparison) (x, y health.Side, err error) {
	a, b := asked.A, asked.B
	if x, err = r.side(ctx, a, asked.BaseA, "--base-a"); err != nil {
		return x, y, err
	}
	if y, err = r.side(ctx, b, asked.BaseB, "--base-b"); err != nil {
		return x, y, err
	}
	if x.Probes.Base == y.Probes.Base && sameHeaders(x.Probes.Headers, y.Probes.Headers) {
		return x, y, fmt.Errorf("%w: %s and %s would both be asked at %s, which compares a release with itself: say where each runs with --base-a and --base-b", tasks.ErrInvalid, a, b, x.Probes.Base)
	}
	pages := health.Probes{Paths: asked.Paths, Count: asked.Count}
	if len(pages.Paths) == 0 {
		known, err := r.probes(ctx, b)
		if err != nil {
			return x, y, fmt.Errorf("%w; or name pages with --path", err)
		}
		pages.Paths = known.Paths
		if pages.Count == 0 {
			pages.Count = known.Count
		}
	}
	x.Probes.Paths, x.Probes.Count = pages.Paths, pages.Count
	return x, y, nil
}

func sameHeaders(a, b http.Header) bool {
	if len(a) != len(b) {
		return false
	}
	for name, values := range a {
		if !slices.Equal(values, b[name]) {
			return false
		}
	}
	return true
}

// side finds out where one release answers; base "" means to look in its plan. flag is what else says so.
func (r *rooms) side(ctx context.Context, id, base, flag string) (health.Side, error) {
	s := health.Side{Release: id}
	unknown := func(err error) error {
		return fmt.Errorf("where %s runs is not known: %w; or say it with %s", id, err, flag)
	}
	rec, err := r.ledger.Get(ctx, id)
	if err != nil {
		return s, err
	}
	if base != "" {
		s.Probes.Base = base
		return s, nil
	}
	if rec.State == release.Active {
		if s.Probes, err = r.probes(ctx, id); err != nil {
			return s, unknown(err)
		}
		return s, nil
	}
	text, err := r.planOf(ctx, id)
	if err != nil {
		return s, unknown(err)
	}
	plan, err := warm.ParsePlan(text)
	if err != nil {
		return s, err
	}
	for _, from := range plan.Sources {
		if from.Crawl != nil {
			s.Probes.Base, s.Probes.Headers, err = instance(from.Crawl.Base, from.Crawl.Headers, id)
			return s, err
		}
	}
	return s, unknown(fmt.Errorf("%w: it is %s, and its plan crawls no instance", tasks.ErrInvalid, rec.State))
}

// instance renders a crawl's address and headers for a release.
func instance(base string, headers map[string]string, id string) (string, http.Header, error) {
	render := func(text string) (string, error) {
		t, err := source.ParseTemplate(text)
		if err != nil {
			return "", err
		}
		return t.Render(struct{ Release string }{id})
	}
	h := http.Header{}
	for name, text := range headers {
		value, err := render(text)
		if err != nil {
			return "", nil, err
		}
		h.Set(name, value)
	}
	base, err := render(base)
	return base, h, err
}

func printPages(w io.Writer, p health.Pages) {
	var rows [][]string
	for _, pair := range p.Pages {
		rows = append(rows, []string{
			both(pair.A.Status, pair.B.Status), both(fmt.Sprintf("%.1f", pair.A.MS), fmt.Sprintf("%.1f", pair.B.MS)),
			both(strconv.FormatInt(pair.A.Bytes, 10), strconv.FormatInt(pair.B.Bytes, 10)),
			both(told(pair.A.Told, "%.0f%%", 100*pair.A.HitRate), told(pair.B.Told, "%.0f%%", 100*pair.B.HitRate)),
			both(told(pair.A.Counted, "%.1f", pair.A.DBCalls), told(pair.B.Counted, "%.1f", pair.B.DBCalls)),
			strings.Join(pair.Differs, ", "), pair.Path,
		})
	}
	table(w, []string{"STATUS", "MS", "BYTES", "HITS", "DB CALLS", "DIFFERS IN", "PAGE (" + p.A + " → " + p.B + ")"}, rows)
	fmt.Fprintln(w)
	printVerdict(w, p.B, p.Verdict)
}

// both shows a value of two releases, once where they agree.
func both(a, b string) string {
	if a == b {
		return a
	}
	return a + " → " + b
}
