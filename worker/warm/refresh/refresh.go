package refresh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm"
)

// Config is the refresh room's part of the environment.
type Config struct {
	RefreshLimit int `split_words:"true" default:"10000" desc:"entries of a release that one invalidation reloads at most, the hottest first, 1 to 100000"`
}

// Validate implements the limits of the settings.
func (c Config) Validate() error {
	if c.RefreshLimit < 1 || c.RefreshLimit > 100_000 {
		return fmt.Errorf("%w: STOKER_REFRESH_LIMIT %d: use 1 to 100000", tasks.ErrInvalid, c.RefreshLimit)
	}
	return nil
}

// Sources asks the sources of one release's plan for single entries: a [warm.Lookup].
type Sources interface {
	Owners(key string) []string
	Kind(source string) string
	Find(ctx context.Context, keys []string, fn func(warm.Found) error) error
	Close() error
}

// A Filler fills entries of a namespace that its caller loads. tasks.Filler is one.
type Filler interface {
	Begin(ctx context.Context, release string, keys []string) (*tasks.Filling, error)
}

// A Checker says which entries were invalidated after a mark.
type Checker interface {
	Check(ctx context.Context, release string, m tasks.Mark, entries []tasks.Tagged) ([]bool, error)
}

// An Enqueuer puts tasks into their lane.
type Enqueuer interface {
	Enqueue(ctx context.Context, p tasks.Payload, opts ...asynq.Option) (taskID string, err error)
}

var (
	_ Sources  = (*warm.Lookup)(nil)
	_ Filler   = (*tasks.Filler)(nil)
	_ Checker  = (*tasks.Journal)(nil)
	_ Enqueuer = (*tasks.Client)(nil)
)

// Deps is what a Refresher works with.
type Deps struct {
	Queue    redis.UniversalClient
	Cache    redis.UniversalClient
	Keys     tasks.Keys
	Template tasks.Template
	Live     func(context.Context) ([]string, error)
	// Sources returns what asks for a release's entries; [tasks.ErrNotFound] when it has no plan.
	Sources func(ctx context.Context, release string) (Sources, error)
	Fill    Filler
	Check   Checker
	Tasks   Enqueuer
	Log     *slog.Logger
}

// Refresher reloads what invalidations removed. It is safe for concurrent use, in any number of
// processes.
type Refresher struct {
	cfg  Config
	deps Deps
	rest time.Duration // of a key between two loads
}

// New returns a refresher.
func New(cfg Config, deps Deps) (*Refresher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Refresher{cfg, deps, rest}, nil
}

func (r *Refresher) dirty(release string) dirtySet {
	return dirtySet{r.deps.Queue, r.deps.Keys, release}
}

func (r *Refresher) collect(ctx context.Context, release string, targets []tasks.Target) (*collector, error) {
	c := &collector{cache: r.deps.Cache, tmpl: r.deps.Template, release: release, limit: r.cfg.RefreshLimit, dirty: r.dirty(release)}
	return c, c.collect(ctx, targets)
}

// Note makes the keys of targets dirty in a release, before the invalidation with that number removes
// them. Noting again is harmless. A key that cannot be noted is not refreshed, which is logged; the
// removal must not wait for it.
func (r *Refresher) Note(ctx context.Context, release string, number int64, targets []tasks.Target) {
	n, beyond, err := r.note(ctx, release, number, targets)
	switch {
	case err != nil:
		r.deps.Log.Warn("refresh not noted: the site fills what is removed", "release", release, "number", number, "error", err)
	case beyond:
		r.deps.Log.Info("refresh bounded: the site fills the rest", "release", release, "number", number, "keys", n, "limit", r.cfg.RefreshLimit)
	}
}

func (r *Refresher) note(ctx context.Context, release string, number int64, targets []tasks.Target) (noted int64, beyond bool, err error) {
	c, err := r.collect(ctx, release, targets)
	if err != nil {
		return 0, false, err
	}
	for found := c.found; len(found) > 0; {
		part := found[:min(slice, len(found))]
		found = found[len(part):]
		n, err := r.dirty(release).note(ctx, number, part)
		if err != nil {
			return noted, c.beyond, err
		}
		noted += n
	}
	return noted, c.beyond, nil
}

// askOnce is how long a task that was asked for keeps others for the same release from being
// enqueued, if it does not end before.
const askOnce = time.Hour

// Ask has a release's dirty keys loaded soon, by a task, unless one is at it. Call it after the
// removal. What it fails to ask for the sweep does.
func (r *Refresher) Ask(ctx context.Context, release string) error {
	held, err := r.deps.Queue.Exists(ctx, r.deps.Keys.DirtyLease(release)).Result()
	if err != nil || held == 1 {
		return err
	}
	_, err = r.deps.Tasks.Enqueue(ctx, tasks.Refresh{Release: release}, asynq.Unique(askOnce))
	if errors.Is(err, asynq.ErrDuplicateTask) {
		return nil
	}
	return err
}

// Sweep asks for every release that has dirty keys and no drain, whoever died, and returns how many
// have. It is one command where nothing is dirty.
func (r *Refresher) Sweep(ctx context.Context) (int, error) {
	releases, err := r.deps.Queue.SMembers(ctx, r.deps.Keys.DirtyReleases()).Result()
	if err != nil {
		return 0, fmt.Errorf("sweep refreshes: %w", err)
	}
	for _, release := range releases {
		if err := r.Ask(ctx, release); err != nil {
			return 0, fmt.Errorf("sweep refreshes: release %q: %w", release, err)
		}
	}
	return len(releases), nil
}

// Preview is what an invalidation would refresh in one release.
type Preview struct {
	Keys    int           `json:"keys"`              // that sources of the plan own
	Unowned int           `json:"unowned,omitempty"` // keys that no source owns: left to the site
	Beyond  bool          `json:"beyond,omitempty"`  // there are more, which the limit leaves to the site
	NoPlan  bool          `json:"no_plan,omitempty"` // the release has no plan
	Sample  []tasks.Bytes `json:"sample,omitempty"`  // the hottest
}

// previewed bounds the keys that a preview shows.
const previewed = 10

// Preview tells what an invalidation of targets would refresh in a release. It changes nothing.
func (r *Refresher) Preview(ctx context.Context, release string, targets []tasks.Target) (Preview, error) {
	c, err := r.collect(ctx, release, targets)
	if err != nil {
		return Preview{}, fmt.Errorf("preview refresh of release %q: %w", release, err)
	}
	p := Preview{Beyond: c.beyond}
	look, err := r.deps.Sources(ctx, release)
	if errors.Is(err, tasks.ErrNotFound) {
		p.NoPlan = true
		return p, nil
	}
	if err != nil {
		return p, err
	}
	for _, f := range c.found {
		switch {
		case f.only:
		case len(look.Owners(f.key)) == 0:
			p.Unowned++
		default:
			if p.Keys++; len(p.Sample) < previewed {
				p.Sample = append(p.Sample, tasks.Bytes(f.key))
			}
		}
	}
	return p, look.Close()
}
