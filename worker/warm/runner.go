package warm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/warm/carry"
	"github.com/alphanode/stoker/worker/warm/crawl"
	"github.com/alphanode/stoker/worker/warm/origin"
	"github.com/alphanode/stoker/worker/warm/query"
	"github.com/alphanode/stoker/worker/warm/source"
)

// Config is the warm room's part of the environment.
type Config struct {
	Plan      string `split_words:"true" desc:"the warm plan's file, for runs that bring none"`
	WarmBatch int    `split_words:"true" default:"100" desc:"addresses in one batch of a crawl, 1 to 10000"`
}

// Validate implements the limits of the settings.
func (c Config) Validate() error {
	if c.WarmBatch < 1 || c.WarmBatch > 10_000 {
		return fmt.Errorf("%w: STOKER_WARM_BATCH %d: use 1 to 10000", tasks.ErrInvalid, c.WarmBatch)
	}
	return nil
}

// A Ledger is what a run needs of the record of releases.
type Ledger interface {
	Get(ctx context.Context, id string) (release.Record, error)
	List(ctx context.Context) ([]release.Record, error)
	Active(ctx context.Context) (string, error)
	Move(ctx context.Context, id string, from, to release.State, by tasks.By) error
	SetDoc(ctx context.Context, id string, d release.Doc, v any) error
	SetRun(ctx context.Context, id, run string) error
}

// A Log registers a batch as a writer.
type Log interface {
	OpenMark(ctx context.Context, release, writer string) (tasks.Mark, error)
	OpenMarkFrom(ctx context.Context, release, writer, source string) (tasks.Mark, error)
	CloseMark(ctx context.Context, release, writer string) error
	Fresh(ctx context.Context, m tasks.Mark) error
}

// A Checker says which entries were invalidated after a mark; all of them when the release is
// not live.
type Checker interface {
	Check(ctx context.Context, release string, m tasks.Mark, entries []tasks.Tagged) ([]bool, error)
}

// A Replayer applies to a namespace what was invalidated after a mark, or to all what is pending.
type Replayer interface {
	Replay(ctx context.Context, release string, m tasks.Mark) (invalidation.Replayed, error)
	// ReplayRest does it with what the log still holds, however old the mark is.
	ReplayRest(ctx context.Context, release string, m tasks.Mark) (invalidation.Replayed, error)
	// Sweep applies what has been pending for so long; 0 means everything.
	Sweep(ctx context.Context, olderThan time.Duration) (int, error)
}

// A Cache is what a run needs of the namespaces.
type Cache interface {
	carry.Cache
	Put(ctx context.Context, release string, entries []namespace.Put) error
	Remove(ctx context.Context, release string, keys []string) (int64, error)
	Lookup(ctx context.Context, release string, keys []string) ([]namespace.Found, error)
	Get(ctx context.Context, release string, keys []string) ([]tasks.Entry, error)
	Uses(ctx context.Context, release string, fn func(counted bool, uses []namespace.Use) error) error
	// Servers names the servers of the cache Redis; Replicated does so when their replicas have all that
	// was written before.
	Servers(ctx context.Context) (string, error)
	Replicated(ctx context.Context) (servers string, err error)
}

// An Enqueuer puts batches into the warm lane. An ID in use already is success.
type Enqueuer interface {
	Enqueue(ctx context.Context, p tasks.Payload, opts ...asynq.Option) (taskID string, err error)
}

var (
	_ Ledger   = (*release.Ledger)(nil)
	_ Log      = (*invalidation.Log)(nil)
	_ Checker  = (*tasks.Journal)(nil)
	_ Replayer = (*invalidation.Applier)(nil)
	_ Cache    = (*namespace.Cache)(nil)
	_ Enqueuer = (*tasks.Client)(nil)
)

// Deps is what a Runner works with.
type Deps struct {
	Queue   redis.UniversalClient // for the runs' records
	Keys    tasks.Keys
	Ledger  Ledger
	Log     Log
	Check   Checker
	Replay  Replayer
	Cache   Cache
	Tasks   Enqueuer
	Room    Room                     // nil means that there is always some
	Getenv  func(string) string      // gives the DSNs that plans name; nil means the process's environment
	Version string                   // stoker's, for the crawl's User-Agent
	Sources map[string]source.Opener // what a plan's custom sources name; nil where there are none
	Origins *origin.Limiters         // keep origins from too many requests; nil: this process's own, with the defaults
	// Failed has people told of a certificate that did not pass; it may be called again for the same
	// run. Optional.
	Failed func(ctx context.Context, release string, c Certificate) error
}

// Runner carries out warm runs and their batches. It is safe for concurrent use.
type Runner struct {
	cfg  Config
	deps Deps
	now  func() time.Time
	open opener
	web  *crawl.Client
}

// opener makes the source of one batch; from is the release that a carry reads.
type opener func(s Source, release, from string) (source.Source, func() error, error)

// New returns a runner.
func New(cfg Config, deps Deps) (*Runner, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Getenv == nil {
		deps.Getenv = os.Getenv
	}
	if deps.Origins == nil {
		deps.Origins = origin.New(origin.Default(), origin.Deps{})
	}
	limits := deps.Origins.Config()
	r := &Runner{cfg: cfg, deps: deps, now: time.Now, web: crawl.NewClient(limits.OriginConcurrency, limits.CrawlNetworks)}
	r.open = r.openSource
	return r, nil
}

// Close drops idle connections to origins, after all runs.
func (r *Runner) Close() { r.web.Close() }

func (r *Runner) openSource(s Source, release, from string) (source.Source, func() error, error) {
	switch {
	case s.Query != nil:
		src, err := query.New(*s.Query, *s.Entry, release, r.deps.Getenv, r.now)
		if err != nil {
			return nil, nil, err
		}
		return src, src.Close, nil
	case s.Crawl != nil:
		var expect crawl.Expect
		if s.Expect != nil {
			expect = *s.Expect
		}
		src, err := crawl.New(*s.Crawl, expect, release, crawl.Deps{
			Version: r.deps.Version, Client: r.web, Origins: r.deps.Origins,
			Exist: func(ctx context.Context, keys []string) ([]bool, error) { return r.exist(ctx, release, keys) },
		})
		if err != nil {
			return nil, nil, err
		}
		return src, src.Close, nil
	case s.Custom != nil:
		return r.openCustom(*s.Custom, release)
	}
	src, err := carry.New(r.deps.Cache, from, release, s.Carry.Families)
	return src, func() error { return nil }, err
}

func (r *Runner) openCustom(c Custom, release string) (source.Source, func() error, error) {
	open, ok := r.deps.Sources[c.Source]
	if !ok {
		return nil, nil, fmt.Errorf("%w: this worker has no source %q: it has %q; the site's own worker brings it along, and must be the one that serves the warm lane", tasks.ErrInvalid, c.Source, slices.Sorted(maps.Keys(r.deps.Sources)))
	}
	src, err := open(release, c.With)
	if err != nil {
		return nil, nil, err
	}
	if closer, ok := src.(io.Closer); ok {
		return src, closer.Close, nil
	}
	return src, func() error { return nil }, nil
}

// carryFrom resolves the release that a carry reads: "" when there is none yet.
func (r *Runner) carryFrom(ctx context.Context, s Source, to string) (string, error) {
	if s.Carry == nil {
		return "", nil
	}
	from, err := r.liveRelease(ctx, s.Carry.From, carry.Active)
	if err == nil && from == to && s.Carry.From == carry.Active {
		from = "" // a warm of the active release itself
	}
	return from, err
}

// ownPlan returns the text of the worker's own plan.
func (r *Runner) ownPlan() ([]byte, error) {
	if r.cfg.Plan == "" {
		return nil, fmt.Errorf("%w: no plan: bring one with --plan FILE, or set STOKER_PLAN where the worker runs", tasks.ErrInvalid)
	}
	text, err := os.ReadFile(r.cfg.Plan)
	if err != nil {
		return nil, fmt.Errorf("%w: STOKER_PLAN: %v", tasks.ErrInvalid, err)
	}
	return text, nil
}

// hopeless reports whether trying the task again cannot help.
func hopeless(err error) bool {
	for _, cause := range []error{tasks.ErrInvalid, tasks.ErrRefused, tasks.ErrNotFound, tasks.ErrNotFresh} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}

// lastTry reports whether the task that ctx belongs to will not be tried again after a failure.
func lastTry(ctx context.Context) bool {
	tried, ok := asynq.GetRetryCount(ctx)
	most, has := asynq.GetMaxRetry(ctx)
	return ok && has && tried >= most && !errors.Is(ctx.Err(), context.Canceled)
}

// givesUp reports whether err ends the run that the task of ctx belongs to.
func givesUp(ctx context.Context, err error) bool {
	if errors.Is(err, tasks.ErrDraining) || errors.Is(err, tasks.ErrNewer) {
		return false
	}
	return err != nil && (hopeless(err) || lastTry(ctx))
}

func isDraining(job tasks.Job) bool {
	select {
	case <-job.Draining():
		return true
	default:
		return false
	}
}
