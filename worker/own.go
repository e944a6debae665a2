package worker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"

	"github.com/hibiken/asynq"
	"github.com/kelseyhightower/envconfig"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/governor"
	"github.com/alphanode/stoker/worker/governor/throttle"
	"github.com/alphanode/stoker/worker/health"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/notify"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/warm"
	"github.com/alphanode/stoker/worker/warm/origin"
	"github.com/alphanode/stoker/worker/warm/source"
)

// ServeWarm is the worker of a site that is written in Go and warms from sources of its own, which a
// plan names as custom. It serves the warm lane, with these sources beside stoker's own, until ctx
// ends, and drains then. Settings come from the environment, as the stoker program's do
// (STOKER_REDIS_URL and the rest; files of secrets are not read); what happens is logged to
// [slog.Default].
//
// A batch runs on any worker of its lane, so the stoker program's workers must leave the warm lane to
// this one: STOKER_LANES=invalidate,bulk,release,refresh,upkeep,health,notify. Any number of either may run.
func ServeWarm(ctx context.Context, sources map[string]source.Opener) error {
	var s ownSettings
	if err := s.load(); err != nil {
		return err
	}
	queue, cache, err := s.connect()
	if err != nil {
		return err
	}
	defer queue.Close()
	if cache != queue {
		defer cache.Close()
	}
	handlers, closeClient, err := s.handlers(queue, cache, sources)
	if err != nil {
		return err
	}
	defer closeClient()
	w, err := New(s.Worker, Deps{
		App: s.Tasks.App, Queue: queue, Handlers: handlers, Log: slog.Default(),
		Dial: func() (redis.UniversalClient, error) { return tasks.Connect("STOKER_REDIS_URL", s.Tasks.RedisURL) },
	})
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

// ownSettings are those that warming needs.
type ownSettings struct {
	Tasks  tasks.Config
	Worker Config
	Warm   warm.Config
	Origin origin.Config
	Pace   governor.Config
	Notify notify.Config
}

func (s *ownSettings) load() error {
	for _, room := range []interface{ Validate() error }{&s.Tasks, &s.Worker, &s.Warm, &s.Origin, &s.Pace, &s.Notify} {
		if err := envconfig.Process("STOKER", room); err != nil {
			return fmt.Errorf("%w: %v", tasks.ErrInvalid, err)
		}
		if err := room.Validate(); err != nil {
			return err
		}
	}
	s.Worker.Lanes = []tasks.Lane{tasks.LaneWarm}
	return nil
}

func (s *ownSettings) connect() (queue, cache redis.UniversalClient, err error) {
	if queue, err = tasks.Connect("STOKER_REDIS_URL", s.Tasks.RedisURL); err != nil || s.Tasks.CacheURL == "" {
		return queue, queue, err
	}
	if cache, err = tasks.Connect("STOKER_CACHE_URL", s.Tasks.CacheURL); err != nil {
		return nil, nil, errors.Join(err, queue.Close())
	}
	return queue, cache, nil
}

// handlers wires what warming needs.
func (s *ownSettings) handlers(queue, cache redis.UniversalClient, sources map[string]source.Opener) (Handlers, func() error, error) {
	tmpl, err := s.Tasks.Template()
	if err != nil {
		return nil, nil, err
	}
	client, err := tasks.NewClientFrom(queue, cache, s.Tasks)
	if err != nil {
		return nil, nil, err
	}
	keys := s.Tasks.Keys()
	ledger := release.Open(queue, keys)
	log := invalidation.Open(queue, keys, invalidation.Config{OriginLag: s.Tasks.OriginLag, FillLimit: s.Tasks.FillLimit, LogReplicas: s.Tasks.LogReplicas})
	lanes := Queues{App: s.Tasks.App, Queue: queue}
	reports := throttle.Reports{Queue: queue, Keys: keys}
	pacer := throttle.New(throttle.Deps{Config: s.Pace, Cache: cache, Publish: reports.Put, Waiting: func(ctx context.Context) (int, error) {
		pending, err := queue.ZCard(ctx, keys.Pending()).Result()
		queued, queuedErr := lanes.Waiting(ctx, tasks.LaneRelease)
		return int(pending + queued), errors.Join(err, queuedErr)
	}})
	ns := namespace.New(cache, tmpl, keys, func(ctx context.Context, w namespace.Work) namespace.Pacer {
		return pacer.Pacer(ctx, throttle.Work(w))
	})
	applier := invalidation.NewApplier(log, cache, tmpl, ledger.Live, ns)
	applier.Enqueue = func(ctx context.Context, p tasks.InvalidateBulk) error {
		_, err := client.Enqueue(ctx, p, asynq.TaskID(tasks.BulkTaskID(p.Number)))
		return err
	}
	origins := origin.New(s.Origin, origin.Deps{Share: origin.Shared{Queue: queue, Keys: keys, Worker: rand.Text()}, Brake: func(ctx context.Context) (float64, error) {
		b, err := pacer.Look(ctx)
		return b.Factor, err
	}})
	runner, err := warm.New(s.Warm, warm.Deps{
		Queue: queue, Keys: keys, Ledger: ledger, Log: log, Check: log.Journal, Replay: applier,
		Cache: ns, Tasks: client, Version: "dev", Sources: sources, Origins: origins, Room: throttle.Room{Cache: cache, Headroom: s.Pace.Headroom()},
		Failed: s.teller(queue, client),
	})
	if err != nil {
		pacer.Close()
		return nil, nil, errors.Join(err, client.Close())
	}
	closeAll := func() error {
		runner.Close()
		pacer.Close()
		return client.Close()
	}
	return Handlers{tasks.TypeWarmRun: WarmRun(runner), tasks.TypeWarmBatch: WarmBatch(runner)}, closeAll, nil
}

// teller has people told of a certificate that did not pass; nil where there is nobody to tell.
func (s *ownSettings) teller(queue redis.UniversalClient, client *tasks.Client) func(context.Context, string, warm.Certificate) error {
	if !s.Notify.Enabled() {
		return nil
	}
	monitor := health.New(health.Deps{App: s.Tasks.App, Queue: queue, Tell: client.Enqueue}, health.Config{})
	return func(ctx context.Context, id string, c warm.Certificate) error {
		return monitor.CertificateFailed(ctx, id, c.Run, string(c.Verdict), c.Reasons)
	}
}
