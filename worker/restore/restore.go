package restore

import (
	"context"
	"log/slog"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/governor"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/snapshot"
)

// AbandonedAfter is how long a restore may show no sign of life before another takes over.
const AbandonedAfter = 10 * time.Minute

// Ledger is what this room needs of release.Ledger.
type Ledger interface {
	Get(ctx context.Context, id string) (release.Record, error)
	List(ctx context.Context) ([]release.Record, error)
	Active(ctx context.Context) (string, error)
	History(ctx context.Context, id string) ([]release.Move, error)
	Move(ctx context.Context, id string, from, to release.State, by tasks.By) error
	Flip(ctx context.Context, id string, from release.State, by tasks.By) (previous string, err error)
	SetDoc(ctx context.Context, id string, d release.Doc, v any) error
}

// Log is what this room needs of invalidation.Log.
type Log interface {
	Mark(ctx context.Context) (invalidation.Mark, error)
	Fresh(ctx context.Context, m invalidation.Mark) error
	Check(ctx context.Context, m invalidation.Mark, entries []tasks.Tagged) ([]bool, error)
	OpenMarkAt(ctx context.Context, release, writer string, m invalidation.Mark) error
	OpenMarks(ctx context.Context, release string) (map[string]invalidation.Mark, error)
	CloseMark(ctx context.Context, release, writer string) error
}

// Applier is what this room needs of invalidation.Applier.
type Applier interface {
	Sweep(ctx context.Context, olderThan time.Duration) (int, error)
	Replay(ctx context.Context, release string, m invalidation.Mark) (invalidation.Replayed, error)
}

// Cache is what this room needs of namespace.Cache.
type Cache interface {
	SetFence(ctx context.Context, release, token string) error
	Purge(ctx context.Context, release, token string, progress func(deleted int64)) (int64, error)
	Write(ctx context.Context, release string, entries []tasks.Entry) error
	Lookup(ctx context.Context, release string, keys []string) ([]namespace.Found, error)
	Get(ctx context.Context, release string, keys []string) ([]tasks.Entry, error)
	FieldExpiries(ctx context.Context) (bool, error)
	Servers(ctx context.Context) (string, error)
	Replicated(ctx context.Context) (servers string, err error)
}

var (
	_ Ledger  = (*release.Ledger)(nil)
	_ Log     = (*invalidation.Log)(nil)
	_ Applier = (*invalidation.Applier)(nil)
	_ Cache   = (*namespace.Cache)(nil)
)

// Rooms is what a [Restorer] works with. All of it is shared and safe for concurrent use.
type Rooms struct {
	Template  tasks.Template
	Ledger    Ledger
	Log       Log
	Applier   Applier
	Cache     Cache
	Store     snapshot.Store
	Server    Server
	Scratches Scratches
	Headroom  governor.Headroom
	Now       func() time.Time // nil means time.Now
	Logger    *slog.Logger
}

// Restorer rolls back. It is safe for concurrent use.
type Restorer struct{ Rooms }

// New returns a Restorer.
func New(r Rooms) *Restorer {
	if r.Now == nil {
		r.Now = time.Now
	}
	return &Restorer{r}
}

// The ways a release comes back.
const (
	ViaStandby = "standby"
	ViaArchive = "archive"
)

// Report says what a rollback did. Entries, ExpiredLeftOut and Replayed are those of a restore
// from an archive.
type Report struct {
	From           string  `json:"from"` // "" when no release was active
	To             string  `json:"to"`
	Via            string  `json:"via"`
	FreshAsOf      int64   `json:"fresh_as_of"`      // number of the log up to which nothing stale is left
	Entries        int64   `json:"entries"`          // written, less those that the replay removed
	ExpiredLeftOut int64   `json:"expired_left_out"` // of the archive's, because their time was up
	Replayed       int64   `json:"replayed"`         // targets invalidated since the snapshot
	Seconds        float64 `json:"seconds"`          // since the first try began

	// Salvaged says what came back of a damaged archive, and what not; nil when it was whole.
	Salvaged *snapshot.Salvaged `json:"salvaged,omitempty"`
	Lost     int64              `json:"lost,omitempty"` // entries of the archive that did not
}

// State is the ledger's document about the last rollback to a release (release.DocRestore): a
// sign of life while its archive is being restored, then the report.
type State struct {
	Task   string    `json:"task"`
	Block  int       `json:"block,omitempty"` // of the archive, the last one written
	At     time.Time `json:"at"`
	Report *Report   `json:"report,omitempty"`
}

// phase says how far a restore from an archive has come.
type phase int

const (
	chosen  phase = iota // nothing changed yet, as far as is known
	moved                // the release is restoring, by this task
	cleared              // leftovers are purged; blocks up to Block are written
	proved               // everything is written, replayed and proved, and the replicas have it
)

// cursor is what a rollback keeps for its retry.
type cursor struct {
	Report      Report    `json:"report"`
	Started     time.Time `json:"started"`
	ActivatedAt time.Time `json:"activated_at"` // of the target, when it was chosen
	Phase       phase     `json:"phase"`
	Archive     string    `json:"archive,omitempty"`
	Block       int       `json:"block,omitempty"`
	Servers     string    `json:"servers,omitempty"` // of the cache Redis, where all of it was written
	Empty       string    `json:"empty,omitempty"`   // those that were proved to have no key of it, before this restore
	Prior       string    `json:"prior,omitempty"`   // the task it was taken over from
}

// interrupted reports why long work must stop now, or nil.
func interrupted(ctx context.Context, job tasks.Job) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case <-job.Draining():
		return tasks.ErrDraining
	default:
		return nil
	}
}
