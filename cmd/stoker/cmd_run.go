package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/alphanode/stoker/cmd/stoker/web"
	"github.com/alphanode/stoker/scheduler"
	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/governor/throttle"
	"github.com/alphanode/stoker/worker/health"
)

func (c *cli) workerCommand() *cobra.Command {
	return c.process("worker", "Carry out tasks: invalidate, warm, switch, archive, check",
		"Run as many as you like, on as many machines. SIGTERM drains: running slices finish, cursors\nare saved, and other workers go on from them (STOKER_GRACE_PERIOD).", (*rooms).runWorker)
}

func (c *cli) schedulerCommand() *cobra.Command {
	return c.process("scheduler", "Enqueue what the schedule says: health checks, expiry, pruning, warms",
		"Run as many as you like: each tick is enqueued once. The schedule's file is read again when it\nchanges; a broken one is refused and the last good one kept (STOKER_SCHEDULE).", (*rooms).runScheduler)
}

func (c *cli) webCommand() *cobra.Command {
	return c.process("web", "Serve the console, the asynq UI, the HTTP API, health and metrics",
		"Listens on loopback only unless people have to sign in: with tokens (STOKER_WEB_TOKENS_FILE), at a\nproxy (STOKER_WEB_PROXY_USER) or at an OpenID Connect provider (STOKER_WEB_OIDC_ISSUER).", (*rooms).runWeb)
}

// process is a command that runs until it is interrupted, which is a good end also while it waits for a Redis.
func (c *cli) process(name, short, long string, do func(*rooms, context.Context) error) *cobra.Command {
	return &cobra.Command{
		Use: name, Short: short, Long: short + ".\n\n" + long, Example: "  stoker " + name,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.serve(func(r *rooms) error { return do(r, cmd.Context()) })
		},
	}
}

func (r *rooms) runWorker(ctx context.Context) error {
	err := r.patiently(ctx, func(ctx context.Context) error {
		if err := r.ping(ctx); err != nil {
			return err
		}
		return health.CheckCacheRedis(ctx, r.cache, r.set.Health)
	})
	if err != nil {
		return stopped(ctx, fmt.Errorf("start worker: %w", err))
	}
	w, err := r.worker()
	if err != nil {
		return err
	}
	if err := w.Start(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	w.Stop()
	return nil
}

// stopped is nil where a process was asked to stop before it had begun.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (r *rooms) runScheduler(ctx context.Context) error {
	if err := r.patiently(ctx, r.ping); err != nil {
		return stopped(ctx, err)
	}
	s, err := scheduler.New(r.set.Scheduler, scheduler.Deps{
		App: r.set.Tasks.App, Queue: r.queue,
		Dial: func() (redis.UniversalClient, error) {
			return tasks.Connect("STOKER_REDIS_URL", r.set.Tasks.RedisURL)
		},
		Client: r.client,
		Warm: func(ctx context.Context, run string, req tasks.WarmRequest) error {
			_, err := r.client.WarmAs(ctx, run, req)
			return err
		},
		Log: r.logger,
	})
	if err != nil {
		return err
	}
	if err := s.Start(); err != nil {
		return err
	}
	<-ctx.Done()
	s.Stop()
	return nil
}

func (r *rooms) runWeb(ctx context.Context) error {
	// The console is there for telling people which Redis does not answer.
	if err := r.ping(ctx); mayAnswer(err) {
		r.logger.Warn("a Redis does not answer", "error", err)
	} else if err != nil {
		return stopped(ctx, err)
	}
	s, err := r.web()
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// web makes the console.
func (r *rooms) web() (*web.Server, error) {
	return web.New(web.Deps{
		App: r.set.Tasks.App, Queue: r.queue, Cache: r.cache, Ledger: r.ledger, Log: r.logger,
		Status: func(ctx context.Context) (web.LogStatus, error) {
			s, err := r.log.Status(ctx)
			return web.LogStatus{Pending: s.Pending, OldestPending: s.OldestPending, Last: s.Last, Targets: s.Targets}, err
		},
		Lag:     r.log.Lag,
		Pending: r.pending,
		Recent: func(ctx context.Context, n int) ([]tasks.Applied, error) {
			return tasks.ListApplied(ctx, r.queue, r.keys, n)
		},
		Usage: func(ctx context.Context, id string) (web.Usage, error) {
			u, err := r.ns.Usage(ctx, id)
			return web.Usage{Entries: u.Entries, Bytes: u.Bytes}, err
		},
		Health:    latest(r.monitor.Latest),
		Freshness: latest(r.fresh.Latest),
		Rollback: func(ctx context.Context) (web.Readiness, error) {
			ok, why, to := r.restorer.Ready(ctx)
			if ok {
				why = "it is on standby and fresh, so this is a flip"
			}
			return web.Readiness{Ready: ok, To: to, Reason: why, Takes: web.FlipTakes}, nil
		},
		Invalidate: r.client.Invalidate,
		Reads:      r.consoleReads(),
		Operator:   consoleOperator{r},
		Braked:     r.braked,
		Collectors: []prometheus.Collector{throttle.Collector{Reports: r.reports()}},
		Applied:    r.outcome,
	}, r.set.Web)
}

// latest reads a report as JSON, nil when there is none yet.
func latest[Report any](read func(context.Context) (Report, error)) func(context.Context) (json.RawMessage, error) {
	return func(ctx context.Context) (json.RawMessage, error) {
		report, err := read(ctx)
		if errors.Is(err, tasks.ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return json.Marshal(report)
	}
}

// pending lists the oldest invalidations that are not applied everywhere.
func (r *rooms) pending(ctx context.Context, n int) ([]web.Pending, error) {
	records, err := r.log.Pending(ctx, n)
	if err != nil {
		return nil, err
	}
	var all []web.Pending
	for _, p := range records {
		targets := p.Record.Targets()
		row := web.Pending{Number: p.Number, Age: p.Age, Targets: len(targets), Sample: targets[:min(3, len(targets))]}
		if len(p.Record.Calls) > 0 {
			row.By = p.Record.Calls[0].By
		}
		all = append(all, row)
	}
	return all, nil
}

// outcome says what became of a call.
func (r *rooms) outcome(ctx context.Context, number int64) (tasks.Applied, web.Stage, error) {
	applied, pending, err := tasks.ReadApplied(ctx, r.queue, r.keys, number)
	if pending {
		return tasks.Applied{Number: number}, web.StagePending, nil
	}
	return applied, web.StageApplied, err
}

// runAll runs worker, scheduler and web in this process until ctx ends or one fails.
func (r *rooms) runAll(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, do := range []func(context.Context) error{r.runWorker, r.runScheduler, r.runWeb} {
		g.Go(func() error { return do(ctx) })
	}
	return g.Wait()
}
