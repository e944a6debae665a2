package demo

import (
	"context"
	"time"

	"github.com/alphanode/stoker/worker/release"
)

// Cache is what an app server asks of its cache. [tasks.Client] serves it through an adapter;
// the plain deploy that the demo compares with has its own.
//
// All methods are safe for concurrent use.
type Cache interface {
	// Fetch returns the entry under key, or what load returns, which it stores under key
	// with the tags for ttl. hit tells which. An error of load is returned wrapped, and
	// nothing is stored. load may run in another goroutine, but not after Fetch has returned.
	Fetch(ctx context.Context, key string, tags []string, ttl time.Duration, load func(context.Context) ([]byte, error)) (value []byte, hit bool, err error)
	// Invalidate records that everything labelled with one of the tags has changed. The
	// change must be committed before the call. settled blocks until no cache serves a value
	// from before the call.
	Invalidate(ctx context.Context, tags []string, reason string) (settled func(context.Context) error, err error)
}

// Watch is told how far long work has come: done of total, total 0 while unknown. It returns
// at once and may be called from any goroutine, but not after the call it was given to returned.
type Watch func(done, total int64)

// Operator is what the story asks of stoker: each method is one step that an operator would
// take on the command line with --wait. A step returns when it is complete, and an error when
// it failed or was refused; the story then ends. The demo holds the content site; the caller
// of [Run] holds the processes (worker, scheduler, web) and this.
type Operator interface {
	// Create records a new release with its notes: `stoker release create ID`.
	Create(ctx context.Context, id string, notes release.Notes) error
	// Warm fills the release's namespace by the plan (YAML) and waits for the certificate:
	// `stoker warm ID --plan F --sample S --wait`. sample is a share in (0, 1); 0 means all
	// entries, and only then may the release become ready. A failed certificate is no error.
	Warm(ctx context.Context, id string, plan []byte, sample float64, watch Watch) (Warmed, error)
	// Activate makes a ready release the active one: `stoker release activate ID`. It returns
	// when [Wiring.Active] tells of the change.
	Activate(ctx context.Context, id, reason string) error
	// Rollback brings a release back that was active before, from standby or from its archive,
	// and waits: `stoker rollback --to ID --wait`. It returns when [Wiring.Active] tells of the
	// change.
	Rollback(ctx context.Context, to, reason string, watch Watch) (RolledBack, error)
	// Archive takes a verified snapshot of a standby release and then removes its keys from
	// Redis: `stoker expire --release ID --wait`. The release is archived afterwards.
	Archive(ctx context.Context, id, reason string, watch Watch) (Archived, error)
	// Baseline measures how the site behaves under the release and keeps it: `stoker baseline ID`.
	Baseline(ctx context.Context, id string) error
	// Compare returns the verdict over two baselines in one line: `stoker compare BEFORE AFTER`.
	Compare(ctx context.Context, before, after string) (verdict string, err error)
	// Note returns the release's final note in Markdown: `stoker release note ID`.
	Note(ctx context.Context, id string) (string, error)
	// State returns the release's state and how many entries its namespace holds in Redis.
	State(ctx context.Context, id string) (state release.State, entries int64, err error)
}

// Warmed is the outcome of a warm run.
type Warmed struct {
	Verdict  string  // of the certificate: pass, fail, inconclusive, or "sample" for a sample
	Entries  int64   // written by the run
	Coverage float64 // share of the plan's entries found afterwards, 0 to 1
	Detail   string  // one line for a person: what each source did, or why it failed
}

// Where a release may come back from.
const (
	fromStandby = "standby"
	fromArchive = "archive"
)

// RolledBack is the outcome of a rollback.
type RolledBack struct {
	From     string // "standby" or "archive"
	FreshAs  int64  // the number of the log up to which the namespace is proved fresh
	Restored int64  // entries brought back from the archive
	Replayed int64  // invalidations replayed over them
}

// Archived is the outcome of an archive and the expiry that follows it.
type Archived struct {
	Entries int64 // in the snapshot
	Bytes   int64 // of the archive
	Removed int64 // keys deleted from Redis
}
