package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker"
	"github.com/alphanode/stoker/worker/warm"
	"github.com/alphanode/stoker/worker/warm/source"
)

func (c *cli) warmCommand() *cobra.Command {
	return c.warms("warm ID", "Fill a release's namespace by the warm plan, and certify it", "stoker warm")
}

// warms is the command that warms, under one of its names.
func (c *cli) warms(use, short, name string) *cobra.Command {
	var file, sample string
	var sources []string
	var dryRun, wait bool
	var p pace
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Example: "  " + name + ` r42 --plan stoker.yaml --dry-run
  ` + name + ` r42 --plan stoker.yaml --sample 1% --wait
  ` + name + ` r42 --plan stoker.yaml --wait`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			share, err := source.Percent(sample).Parse()
			if err != nil || share <= 0 {
				return fmt.Errorf("%w: --sample %q: use a percentage above 0%% and up to 100%%, such as 5%%", tasks.ErrInvalid, sample)
			}
			if share == 1 {
				share = 0 // all
			}
			return c.with(cmd.Context(), func(r *rooms) error {
				text, plan, err := r.readPlan(file)
				if err != nil {
					return err
				}
				if err := namesSources(plan, sources); err != nil {
					return err
				}
				if err := r.inRedis(cmd.Context(), a[0]); err != nil {
					return err
				}
				if dryRun {
					return c.dryWarm(p.here(cmd.Context()), r, plan, a[0], sources, share)
				}
				run, _, err := r.client.Warm(cmd.Context(), tasks.WarmRequest{Release: a[0], Plan: text, Sources: sources, Sample: share, Pace: p.Pace, By: c.by()})
				if err != nil {
					return err
				}
				if !wait {
					return c.show(map[string]string{"run": run}, func(w io.Writer) {
						fmt.Fprintf(w, "enqueued as run %s; --wait follows it, `stoker status` shows it\n", run)
					})
				}
				return c.followWarm(cmd.Context(), r, run)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "plan", "", "the plan's file (default STOKER_PLAN)")
	f.StringArrayVar(&sources, "source", nil, "only this source of the plan (repeat)")
	f.StringVar(&sample, "sample", "100%", "share of the entries to warm, by traffic where it is known")
	f.BoolVar(&dryRun, "dry-run", false, "only count what would be warmed, and estimate what it takes")
	f.BoolVar(&wait, "wait", false, "wait for the certificate")
	paceFlag(cmd, &p, workersPace)
	return cmd
}

// namesSources refuses names that no source of the plan has.
func namesSources(plan *warm.Plan, names []string) error {
	var there []string
	for _, s := range plan.Sources {
		there = append(there, s.Name)
	}
	for _, name := range names {
		if !slices.Contains(there, name) {
			return fmt.Errorf("%w: --source %q: the plan has %s", tasks.ErrInvalid, name, strings.Join(there, ", "))
		}
	}
	return nil
}

// readPlan reads and checks the plan in file, or the configured one.
func (r *rooms) readPlan(file string) ([]byte, *warm.Plan, error) {
	if file == "" {
		file = r.set.Warm.Plan
	}
	return readPlan(file)
}

func readPlan(file string) ([]byte, *warm.Plan, error) {
	if file == "" {
		return nil, nil, fmt.Errorf("%w: no plan: name its file with --plan or STOKER_PLAN", tasks.ErrInvalid)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: read plan: %v", tasks.ErrInvalid, err)
	}
	plan, err := warm.ParsePlan(text)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	return text, plan, nil
}

// planOf returns the plan that a release was warmed with last, or the configured one.
func (r *rooms) planOf(ctx context.Context, id string) ([]byte, error) {
	runs, err := r.queue.ZRevRange(ctx, r.keys.Runs(id), 0, 0).Result()
	if err != nil {
		return nil, fmt.Errorf("find the plan of release %q: %w", id, err)
	}
	if len(runs) > 0 {
		text, err := r.queue.HGet(ctx, r.keys.Run(runs[0]), "plan").Bytes()
		if err == nil && len(text) > 0 {
			return text, nil
		}
		if err != nil && !errors.Is(err, redis.Nil) {
			return nil, fmt.Errorf("find the plan of release %q: %w", id, err)
		}
	}
	if r.set.Warm.Plan == "" {
		return nil, fmt.Errorf("%w: no plan: release %q was not warmed by one, and STOKER_PLAN names none", tasks.ErrInvalid, id)
	}
	text, _, err := r.readPlan("")
	return text, err
}

// followWarm shows a run's progress until it is over, and its certificate.
func (c *cli) followWarm(ctx context.Context, r *rooms, run string) error {
	bar := c.newBar()
	defer bar.end()
	s, err := r.followRun(ctx, run, func(s warm.RunStatus) {
		phase := "warming " + s.Release
		if failed := s.Failed(); failed != "" {
			phase += " (failed: " + failed + ")"
		}
		bar.show(worker.Progress{Phase: phase, Done: s.Done, Total: s.Total})
	}, bar.say)
	if err != nil {
		return err
	}
	bar.end()
	return c.showRun(s)
}

// followRun asks about a warm run until it is over.
func (r *rooms) followRun(ctx context.Context, run string, show func(warm.RunStatus), say func(string)) (warm.RunStatus, error) {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	began := time.Now()
	for {
		s, err := warm.Status(ctx, r.queue, r.keys, run)
		switch {
		case err == nil && s.Over():
			return s, nil
		case ctx.Err() != nil:
			// The cause is left out: for the work, nothing was cancelled.
			return s, fmt.Errorf("stopped waiting; the work goes on as run %s (`stoker status` shows the releases' states)", run)
		case err != nil:
			return s, err
		case s.Done > 0 || s.Total > 0:
			show(s)
		case say != nil && time.Since(began) > patience:
			say(stillIdle)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// showRun shows how a run ended; its error says so to scripts, and repeats no reason that was shown.
func (c *cli) showRun(s warm.RunStatus) error {
	err := c.show(s, func(w io.Writer) {
		if s.Status != statusRefused { // of which the error says all
			printRun(w, s)
		}
	})
	switch {
	case err != nil:
		return err
	case s.Status == string(warm.Pass):
		return nil
	case s.Status == string(warm.Inconclusive):
		return fmt.Errorf("warm release %q: %w", s.Release, errInconclusive)
	case s.Status == statusRefused:
		return refusedRun(s.Error)
	case s.Certificate != nil:
		return fmt.Errorf("warm release %q: its certificate says %s", s.Release, s.Status)
	}
	return fmt.Errorf("warm release %q: %s: %s", s.Release, s.Status, s.Error)
}

func printRun(w io.Writer, s warm.RunStatus) {
	var rows [][]string
	for _, src := range s.Sources {
		rows = append(rows, []string{src.Name, src.Kind, strconv.FormatInt(src.Planned, 10), strconv.FormatInt(src.Stored, 10),
			strconv.FormatInt(src.Invalidated, 10), strconv.FormatInt(src.Failed, 10)})
	}
	if len(rows) > 0 {
		table(w, []string{"SOURCE", "KIND", "PLANNED", "STORED", "EDITED MEANWHILE", "FAILED"}, rows)
	}
	if s.Certificate == nil {
		fmt.Fprintf(w, "%s: %s\n", s.Release, s.Status)
		return
	}
	printFailures(w, *s.Certificate)
	fmt.Fprintf(w, "%s: %s, %.1f%% of the plan is warm", s.Release, s.Status, 100*s.Certificate.Coverage)
	if s.Certificate.Entries > 0 { // a run that gave up did not count them
		fmt.Fprintf(w, ", %s entries in the namespace", entriesOf(*s.Certificate))
	}
	fmt.Fprintln(w)
	for _, why := range s.Certificate.Reasons {
		fmt.Fprintf(w, "  %s\n", plain(why))
	}
	printFields(w, certificateDetails(*s.Certificate))
}

// statusRefused is that of a run that never began.
const statusRefused = "refused"

// refusedRun is why a run was refused, in the worker's words.
type refusedRun string

func (r refusedRun) Error() string { return string(r) }

func (r refusedRun) Unwrap() error { return tasks.ErrRefused }

// printFailures shows the first of what failed in each source.
func printFailures(w io.Writer, c warm.Certificate) {
	for _, src := range c.Sources {
		for _, f := range src.Failures {
			fmt.Fprintf(w, "failed in %s: %d %s\n", src.Name, f.Count, f.Kind.Words())
			for _, example := range f.Examples {
				fmt.Fprintf(w, "  %s\n", plain(example))
			}
		}
	}
}
