package retire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/snapshot"
)

// Ledger is what this room needs of release.Ledger.
type Ledger interface {
	Get(ctx context.Context, id string) (release.Record, error)
	List(ctx context.Context) ([]release.Record, error)
	Move(ctx context.Context, id string, from, to release.State, by tasks.By) error
	SetDoc(ctx context.Context, id string, d release.Doc, v any) error
}

// Log is what this room needs of invalidation.Log.
type Log interface {
	OpenReader(ctx context.Context, source, reader string) (invalidation.Mark, error)
	CloseReader(ctx context.Context, reader string) error
	Fresh(ctx context.Context, m invalidation.Mark) error
}

// Cache is what this room needs of namespace.Cache.
type Cache interface {
	ReadFrom(ctx context.Context, release, cursor string, fn func(entries []tasks.Entry, next string) error) error
	SetFence(ctx context.Context, release, token string) error
	Purge(ctx context.Context, release, token string, progress func(deleted int64)) (int64, error)
	Usage(ctx context.Context, release string) (namespace.Usage, error)
	FieldExpiries(ctx context.Context) (bool, error)
	Servers(ctx context.Context) (string, error)
}

// Applier is what this room needs of invalidation.Applier.
type Applier interface {
	Look(ctx context.Context) (removed int, err error)
}

var (
	_ Ledger = (*release.Ledger)(nil)
	_ Log    = (*invalidation.Log)(nil)
	_ Cache  = (*namespace.Cache)(nil)

	_ Applier = (*invalidation.Applier)(nil)
)

// Rooms is what a [Retirer] works with. All of it is shared and safe for concurrent use.
type Rooms struct {
	App      string
	Template tasks.Template
	Ledger   Ledger
	Log      Log
	Applier  Applier
	Cache    Cache
	Store    snapshot.Store
	Rule     release.Rule
	Server   func(context.Context) (string, error) // version of the cache Redis
	Now      func() time.Time                      // nil means time.Now
	Logger   *slog.Logger
}

// Retirer snapshots, archives and expires releases. It is safe for concurrent use.
type Retirer struct{ Rooms }

// New returns a Retirer.
func New(r Rooms) *Retirer {
	if r.Now == nil {
		r.Now = time.Now
	}
	return &Retirer{r}
}

// ServerVersion returns a func for [Rooms] that asks the server for its version, "" when it will
// not tell (an embedded server, or a user without the right to ask).
func ServerVersion(cache redis.UniversalClient) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		info, err := cache.Info(ctx, "server").Result() // of a Cluster, any one
		var refused redis.Error
		if errors.As(err, &refused) {
			return "", nil
		}
		if err != nil {
			return "", fmt.Errorf("read the server's version: %w", err)
		}
		version := ""
		for line := range strings.Lines(info) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			switch name {
			case "redis_version":
				version = value
			case "valkey_version": // it also reports the Redis version it is compatible with
				return "valkey " + value, nil
			}
		}
		return version, nil
	}
}

// sameTemplate refuses a release whose keys this worker's template does not find: its
// namespace would look empty.
func (r *Retirer) sameTemplate(rec release.Record) error {
	if rec.Template != "" && rec.Template != r.Template.String() {
		return fmt.Errorf("%w: release %q was made with the key template %q, this worker uses %q: set STOKER_KEY_TEMPLATE to the release's",
			tasks.ErrRefused, rec.ID, rec.Template, r.Template)
	}
	return nil
}

// interrupted reports why long work must stop now, or nil.
func interrupted(ctx context.Context, job tasks.Job) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	select {
	case <-job.Draining():
		return tasks.ErrDraining
	default:
		return nil
	}
}
