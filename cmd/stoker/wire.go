package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker"
	"github.com/alphanode/stoker/worker/governor/throttle"
	"github.com/alphanode/stoker/worker/health"
	"github.com/alphanode/stoker/worker/health/freshness"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/notify"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/restore"
	"github.com/alphanode/stoker/worker/retire"
	"github.com/alphanode/stoker/worker/snapshot"
	"github.com/alphanode/stoker/worker/warm"
	"github.com/alphanode/stoker/worker/warm/origin"
	"github.com/alphanode/stoker/worker/warm/refresh"
)

// rooms is everything that stoker is made of, wired together. Wiring lives here and only here.
type rooms struct {
	set    *settings
	logger *slog.Logger

	queue, cache redis.UniversalClient
	keys         tasks.Keys
	tmpl         tasks.Template

	client   *tasks.Client
	ledger   *release.Ledger
	log      *invalidation.Log
	throttle *throttle.Throttle
	serves   atomic.Bool // lanes: others are to see how this process's work goes
	ns       *namespace.Cache
	applier  *invalidation.Applier
	store    snapshot.Store
	retirer  *retire.Retirer
	restorer *restore.Restorer
	warmer   *warm.Runner
	fresh    *freshness.Monitor
	refresh  *refresh.Refresher
	monitor  *health.Monitor
	sender   *notify.Sender
}

// with loads the settings, wires the rooms, and calls do with them. Both Redises must answer.
func (c *cli) with(ctx context.Context, do func(*rooms) error) error {
	return c.wired(slog.LevelError, func(r *rooms) error {
		if err := r.ping(ctx); err != nil {
			return err
		}
		return do(r)
	})
}

// serve is with, for a process that runs on and logs what it does: what it does about a Redis that does not answer is
// do's to decide.
func (c *cli) serve(do func(*rooms) error) error {
	return c.wired(slog.LevelInfo, do)
}

func (c *cli) wired(level slog.Level, do func(*rooms) error) error {
	set, err := loadSettings()
	if err != nil {
		return err
	}
	r, err := wire(set, c.log(level))
	if err != nil {
		return err
	}
	defer r.close()
	return do(r)
}

// wire connects to the Redises that the settings name and makes every room. Nothing is dialled.
func wire(set *settings, logger *slog.Logger) (*rooms, error) {
	redis.SetLogger(&redisLog{logger: logger}) // its own would write to stderr past ours
	queue, err := tasks.Connect("STOKER_REDIS_URL", set.Tasks.RedisURL)
	if err != nil {
		return nil, err
	}
	cache := queue
	if set.Tasks.CacheURL != "" {
		if cache, err = tasks.Connect("STOKER_CACHE_URL", set.Tasks.CacheURL); err != nil {
			return nil, errors.Join(err, queue.Close())
		}
	}
	r := &rooms{set: set, logger: logger, queue: queue, cache: cache, keys: set.Tasks.Keys()}
	if err := r.make(); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *rooms) make() (err error) {
	if r.tmpl, err = r.set.Tasks.Template(); err != nil {
		return err
	}
	if r.client, err = tasks.NewClientFrom(r.queue, r.cache, r.set.Tasks); err != nil {
		return err
	}
	if r.store, err = r.set.Snapshot.Store(); err != nil {
		return err
	}
	r.ledger = release.Open(r.queue, r.keys)
	r.log = invalidation.Open(r.queue, r.keys, invalidation.Config{OriginLag: r.set.Tasks.OriginLag, FillLimit: r.set.Tasks.FillLimit, LogReplicas: r.set.Tasks.LogReplicas})
	r.throttle = throttle.New(throttle.Deps{Config: r.set.Governor, Cache: r.cache, Waiting: r.waiting, Publish: r.publish})
	r.ns = namespace.New(r.cache, r.tmpl, r.keys, r.pacer)
	r.applier = invalidation.NewApplier(r.log, r.cache, r.tmpl, r.ledger.Live, r.ns)
	r.applier.Enqueue = func(ctx context.Context, p tasks.InvalidateBulk) error {
		_, err := r.client.Enqueue(ctx, p, asynq.TaskID(tasks.BulkTaskID(p.Number)))
		return err
	}
	r.applier.Left = func(err error) { r.logger.Warn("invalidations left for a newer worker", "error", err) }
	r.retirer = retire.New(retire.Rooms{
		App: r.set.Tasks.App, Template: r.tmpl, Ledger: r.ledger, Log: r.log, Applier: r.applier, Cache: r.ns, Store: r.store,
		Rule: r.set.Retain.Rule(), Server: retire.ServerVersion(r.cache), Logger: r.logger,
	})
	r.restorer = restore.New(restore.Rooms{
		Template: r.tmpl, Ledger: r.ledger, Log: r.log, Applier: r.applier, Cache: r.ns, Store: r.store, Logger: r.logger,
		Server: restore.RedisServer{Client: r.cache, Keys: r.keys}, Headroom: r.set.Governor.Headroom(),
		Scratches: restore.Scratches{Queue: r.queue, Keys: r.keys},
	})
	origins := origin.New(r.set.Origin, origin.Deps{Share: origin.Shared{Queue: r.queue, Keys: r.keys, Worker: rand.Text()}, Brake: r.brake})
	r.warmer, err = warm.New(r.set.Warm, warm.Deps{
		Queue: r.queue, Keys: r.keys, Ledger: r.ledger, Log: r.log, Check: r.log.Journal, Replay: r.applier,
		Cache: r.ns, Tasks: r.client, Version: version, Origins: origins, Room: throttle.Room{Cache: r.cache, Headroom: r.set.Governor.Headroom()},
		Failed: func(ctx context.Context, id string, c warm.Certificate) error {
			return r.monitor.CertificateFailed(ctx, id, c.Run, string(c.Verdict), c.Reasons)
		},
	})
	if err != nil {
		return err
	}
	r.fresh = freshness.New(freshness.Deps{
		Keys: r.keys, Queue: r.queue, Ledger: r.ledger, Log: r.log, Cache: r.ns, Store: r.store, Origin: planOrigin{r.warmer},
		OriginLag: r.set.Tasks.OriginLag, Enqueue: r.client.Enqueue, Logger: r.logger,
	}, r.set.Freshness)
	r.refresh, err = refresh.New(r.set.Refresh, refresh.Deps{
		Queue: r.queue, Cache: r.cache, Keys: r.keys, Template: r.tmpl, Live: r.ledger.Live, Sources: r.sources,
		Fill: tasks.NewFiller(r.log.Journal, r.cache, r.tmpl, r.set.Tasks.FillLimit), Check: r.log.Journal,
		Tasks: r.client, Log: r.logger,
	})
	if err != nil {
		return err
	}
	r.applier.Refresh = r.refresh
	if r.sender, err = notify.New(r.set.Notify); err != nil {
		return err
	}
	deps := health.Deps{
		App: r.set.Tasks.App, Keys: r.keys, Queue: r.queue, Cache: r.cache, Ledger: r.ledger, Log: r.log, Logger: r.logger,
		Count: func(ctx context.Context, id string) (int64, error) {
			u, err := r.ns.Usage(ctx, id)
			return u.Entries, err
		},
		Rollback:  r.rollbackReady,
		Freshness: r.fresh.Latest,
		Probes:    r.probes,
		Enqueue:   r.client.Enqueue,
	}
	if r.set.Notify.Enabled() {
		deps.Tell = r.client.Enqueue
	}
	r.monitor = health.New(deps, r.set.Health)
	return nil
}

// pacer paces a work on namespaces.
func (r *rooms) pacer(ctx context.Context, w namespace.Work) namespace.Pacer {
	return r.throttle.Pacer(ctx, throttle.Work(w))
}

// brake returns by how much origins are asked less than they bear, for what they fill.
func (r *rooms) brake(ctx context.Context) (float64, error) {
	b, err := r.throttle.Look(ctx)
	return b.Factor, err
}

// waiting counts the invalidations that are not applied everywhere, and the switches and rollbacks
// that wait for a worker.
func (r *rooms) waiting(ctx context.Context) (int, error) {
	pending, err := r.queue.ZCard(ctx, r.keys.Pending()).Result()
	if err != nil {
		return 0, fmt.Errorf("count pending invalidations: %w", err)
	}
	queued, err := r.queues().Waiting(ctx, tasks.LaneRelease)
	return int(pending + queued), err
}

// publish lets others see how a worker's work goes. A command's own is not their concern.
func (r *rooms) publish(ctx context.Context, report throttle.Report) error {
	if !r.serves.Load() {
		return nil
	}
	return r.reports().Put(ctx, report)
}

// reports are those of every process's work.
func (r *rooms) reports() throttle.Reports { return throttle.Reports{Queue: r.queue, Keys: r.keys} }

// braked says which work goes slower than its pace.
func (r *rooms) braked(ctx context.Context) ([]string, error) {
	all, err := r.reports().All(ctx)
	return throttle.Braked(all, time.Now()), err
}

func (r *rooms) queues() worker.Queues {
	return worker.Queues{App: r.set.Tasks.App, Queue: r.queue, MaxCompleted: 1000, MaxArchived: 1000}
}

// sources returns what asks the sources of a release's plan for single entries.
func (r *rooms) sources(ctx context.Context, id string) (refresh.Sources, error) {
	look, err := r.warmer.Lookup(ctx, id)
	if err != nil {
		return nil, err // and not an interface that holds none
	}
	return look, nil
}

// close ends what the rooms hold.
func (r *rooms) close() error {
	var errs []error
	if r.monitor != nil {
		r.monitor.Close()
	}
	if r.sender != nil {
		r.sender.Close()
	}
	if r.warmer != nil {
		r.warmer.Close()
	}
	if r.throttle != nil {
		r.throttle.Close()
	}
	if r.client != nil {
		errs = append(errs, r.client.Close())
	}
	errs = append(errs, r.queue.Close())
	if r.cache != r.queue {
		errs = append(errs, r.cache.Close())
	}
	return errors.Join(errs...)
}

const pingLimit = 5 * time.Second

// ping reports which Redis does not answer.
func (r *rooms) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingLimit)
	defer cancel()
	if err := r.queue.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("the queue Redis at %s does not answer: %w (does it run, and is STOKER_REDIS_URL right?)", redact(r.set.Tasks.RedisURL), err)
	}
	if err := r.cache.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("the cache Redis at %s does not answer: %w (does it run, and is STOKER_CACHE_URL right?)", redact(r.set.Tasks.CacheURL), err)
	}
	return nil
}

// rollbackReady says how a rollback would be done now, or why it would not.
func (r *rooms) rollbackReady(ctx context.Context) (string, error) {
	ok, why, to := r.restorer.Ready(ctx)
	if !ok {
		return "", errors.New(why)
	}
	return "flip to " + to + ", which is on standby and fresh", nil
}

// probes returns the pages that stand for the site: those of the plan that the release was
// warmed with last, else of the worker's own.
func (r *rooms) probes(ctx context.Context, id string) (health.Probes, error) {
	text, err := r.planOf(ctx, id)
	if err != nil {
		return health.Probes{}, err
	}
	plan, err := warm.ParsePlan(text)
	if err != nil {
		return health.Probes{}, err
	}
	if plan.Probes == nil {
		return health.Probes{}, fmt.Errorf("%w: the plan has no probes: add `probes: {base: …, paths: […]}` to say which pages stand for the site", tasks.ErrInvalid)
	}
	return health.Probes{Base: plan.Probes.Base, Paths: plan.Probes.Paths, Count: plan.Probes.Count}, nil
}

// worker makes this process's worker.
func (r *rooms) worker() (*worker.Worker, error) {
	r.serves.Store(true)
	queues := r.queues()
	activator := &worker.Activator{Ledger: r.ledger, Sweeper: r.applier, Enqueue: r.client.Enqueue}
	return worker.New(r.set.Worker, worker.Deps{
		App: r.set.Tasks.App, Queue: r.queue,
		Dial: func() (redis.UniversalClient, error) {
			return tasks.Connect("STOKER_REDIS_URL", r.set.Tasks.RedisURL)
		},
		Handlers: worker.Handlers{
			tasks.TypeInvalidate:     worker.Invalidate(r.applier),
			tasks.TypeInvalidateBulk: worker.InvalidateBulk(r.applier),
			tasks.TypeActivate:       worker.Activate(activator),
			tasks.TypeRollback:       worker.Rollback(watchedRollback{r.restorer, r.monitor}),
			tasks.TypeWarmRun:        worker.WarmRun(r.warmer),
			tasks.TypeWarmBatch:      worker.WarmBatch(r.warmer),
			tasks.TypeRefresh:        worker.Refresh(r.refresh),
			tasks.TypeSnapshot:       worker.Snapshot(snapshotter{r.retirer}),
			tasks.TypeDrill:          worker.Drill(r.restorer),
			tasks.TypeExpire:         worker.Expire(r.retirer),
			tasks.TypePrune:          worker.Prune(r.pruner(queues)),
			tasks.TypeHealth:         worker.Health(r.monitor),
			tasks.TypeFreshness:      worker.Freshness(r.fresh),
			tasks.TypeBaseline:       worker.Baseline(r.monitor),
			tasks.TypeWatch:          worker.Watch(r.monitor),
			tasks.TypeNotify:         worker.Notify(r.sender),
		},
		Applier: r.applier,
		Reaper:  worker.Marks{Ledger: r.ledger, Log: r.log, Applier: r.applier, Tags: r.ns, Gone: queues.Gone, Forsake: r.retirer.Forsake},
		Refresh: r.refresh,
		Witness: r.log,
		Lookout: r.applier,
		Log:     r.logger,
	})
}

// watchedRollback is a rollback whose outcome the watch that asked for it learns.
type watchedRollback struct {
	*restore.Restorer
	monitor *health.Monitor
}

// Rollback implements [worker.Roller].
func (w watchedRollback) Rollback(ctx context.Context, j tasks.Job, p tasks.Rollback) (restore.Report, error) {
	report, err := w.Restorer.Rollback(ctx, j, p)
	if p.From == "" || err != nil && !worker.Final(ctx, err) {
		return report, err
	}
	detail := fmt.Sprintf("by way of %s, fresh as of number %d", report.Via, report.FreshAsOf)
	return report, errors.Join(err, w.monitor.RolledBack(ctx, p, detail, err))
}

// pruner is the daily housekeeping.
func (r *rooms) pruner(queues worker.Queues) worker.Pruner {
	return worker.Pruner{
		{Name: "tag indexes", Run: r.pruneTags},
		{Name: "finished tasks", Run: queues.Prune},
		{Name: "reports of work", Run: r.reports().Prune},
		{Name: "scratch namespaces", Run: r.restorer.DropScratches},
		{Name: "invalidation log", Run: r.trimLog},
	}
}

func (r *rooms) pruneTags(ctx context.Context) (int64, error) {
	live, err := r.ledger.Live(ctx)
	if err != nil {
		return 0, err
	}
	var gone int64
	for _, id := range live {
		n, err := r.ns.PruneTags(ctx, id, time.Now())
		gone += n
		if err != nil {
			return gone, err
		}
	}
	return gone, nil
}

func (r *rooms) trimLog(ctx context.Context) (int64, error) {
	records, err := r.ledger.List(ctx)
	if err != nil {
		return 0, err
	}
	var ids []string
	for _, rec := range records {
		ids = append(ids, rec.ID)
	}
	return r.log.Trim(ctx, ids, r.restorableMarks)
}

// restorableMarks returns the marks of the snapshots that a rollback may go back to.
func (r *rooms) restorableMarks(ctx context.Context) ([]int64, error) {
	records, err := r.ledger.List(ctx)
	if err != nil {
		return nil, err
	}
	var marks []int64
	for _, rec := range records {
		var d snapshot.Descriptor
		ok, err := rec.Doc(release.DocSnapshot, &d)
		if err != nil {
			return nil, err
		}
		if ok && d.DeletedAt.IsZero() && rec.State != release.Expired {
			marks = append(marks, d.Mark)
		}
	}
	return marks, nil
}

// snapshotter is the retirer's snapshot as a task asks for it.
type snapshotter struct{ retirer *retire.Retirer }

func (s snapshotter) Snapshot(ctx context.Context, j tasks.Job, p tasks.Snapshot) (snapshot.Descriptor, error) {
	return s.retirer.Snapshot(ctx, j, p.Release)
}
