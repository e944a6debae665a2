package health

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/health/freshness"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/release"
)

// Deps is what a [Monitor] looks at. All fields are needed, except those said to be optional.
type Deps struct {
	App          string
	Keys         tasks.Keys
	Queue, Cache redis.UniversalClient
	Ledger       *release.Ledger
	Log          *invalidation.Log
	Logger       *slog.Logger

	// Count returns how many entries a release's namespace holds. Optional.
	Count func(ctx context.Context, release string) (int64, error)
	// Rollback says how a rollback would be done now, or the error it would end with,
	// without doing it. Optional.
	Rollback func(ctx context.Context) (string, error)
	// Freshness returns the newest report of the freshness monitor, or an error that wraps
	// [tasks.ErrNotFound]. Optional.
	Freshness func(ctx context.Context) (freshness.Report, error)
	// Probes returns the pages that stand for the site under a release. Optional; without it
	// nothing can be measured.
	Probes func(ctx context.Context, release string) (Probes, error)
	// Enqueue asks for a watch's next look, and for the rollback that it wants; tasks.Client.Enqueue
	// is one. Optional; without it a watch is one look.
	Enqueue func(ctx context.Context, p tasks.Payload, opts ...asynq.Option) (string, error)
	// Tell is Enqueue where people are told of events; nil where there is nobody to tell.
	Tell func(ctx context.Context, p tasks.Payload, opts ...asynq.Option) (string, error)
}

// Monitor runs the checks and measurements of one app. It is safe for concurrent use; two
// checks at once give two reports.
type Monitor struct {
	d         Deps
	cfg       Config
	inspector *asynq.Inspector
	http      *http.Client
	now       func() time.Time
	since     func(time.Time) time.Duration // how long a probe took
}

// New returns a monitor; cfg must be valid. It opens no connection of its own to either Redis.
func New(d Deps, cfg Config) *Monitor {
	return &Monitor{
		d:         d,
		cfg:       cfg,
		inspector: asynq.NewInspectorFromRedisClient(d.Queue),
		http:      probeClient(cfg),
		now:       time.Now,
		since:     time.Since,
	}
}

// Close ends the probes' idle connections. The Redis clients stay open: they are the caller's.
func (m *Monitor) Close() { m.http.CloseIdleConnections() }

// Check gathers, judges and stores one report. An answer that does not come is a check that
// says so; the only error is a report that could not be stored, and the report is returned with it.
func (m *Monitor) Check(ctx context.Context, job tasks.Job, _ tasks.Health) (Report, error) {
	job.Progress("gather", 0, 2)
	s := m.Gather(ctx)
	job.Progress("judge", 1, 2)
	r := Report{At: s.At, Checks: Judge(s, m.cfg), Facts: s.facts()}
	r.Status = Worst(r.Checks)
	for _, c := range r.Checks {
		if c.Status == Fail {
			m.d.Logger.WarnContext(ctx, "health check failed", "check", c.Name, "detail", c.Detail, "remedy", c.Remedy)
		}
	}
	storeCtx, cancel := context.WithTimeout(ctx, m.cfg.HealthTimeout)
	defer cancel()
	if err := m.keep(storeCtx, r); err != nil {
		return r, err
	}
	if err := m.tellHealth(storeCtx, r); err != nil {
		m.d.Logger.WarnContext(ctx, "health not told", "error", err)
	}
	job.Progress("judge", 2, 2)
	return r, nil
}

// CheckCacheRedis refuses a cache Redis that may evict tag indexes, under which invalidations by
// tag would miss entries without a sound. A policy that the server does not tell passes; the
// health report shows it as unknown. A server that does not answer is an error.
func CheckCacheRedis(ctx context.Context, cache redis.UniversalClient, cfg Config) error {
	servers, err := readRedis(ctx, cache)
	if err != nil {
		return fmt.Errorf("reach the cache Redis: %w", err)
	}
	if c := judgeTagSafety(Redis{Servers: servers}, cfg); c.Status == Fail {
		return fmt.Errorf("%w: %s: %s", tasks.ErrRefused, c.Detail, c.Remedy)
	}
	return nil
}
