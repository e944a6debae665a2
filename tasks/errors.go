package tasks

import "errors"

// The causes that callers branch on. Every error that leaves this package or a room of the
// worker wraps at most one of them; cmd/stoker holds the one table from cause to exit code.
var (
	// ErrInvalid: the input is wrong; nothing was changed. Retrying cannot help.
	ErrInvalid = errors.New("invalid input")
	// ErrRefused: a guard says no (a state, a missing certificate, an archive that is not
	// fresh). Nothing was changed; the message names the way out.
	ErrRefused = errors.New("refused")
	// ErrNotFound: the named thing does not exist.
	ErrNotFound = errors.New("not found")
	// ErrNotFresh: an archive cannot be proved fresh against the log.
	ErrNotFresh = errors.New("not fresh")
	// ErrNoRelease: no release is active yet and the client is not pinned to one.
	ErrNoRelease = errors.New("no active release")
	// ErrNotEnqueued: an invalidation is recorded and will be applied by a worker's next round, but
	// its task could not be enqueued.
	ErrNotEnqueued = errors.New("recorded, but its task was not enqueued")
	// ErrNotReplicated: an invalidation is recorded, but fewer replicas of the queue Redis than
	// asked for held it in time. It will be applied unless a failover loses it; calling again is
	// harmless.
	ErrNotReplicated = errors.New("recorded, but not replicated")
	// ErrFull: the client holds as many unsent invalidations as it may.
	ErrFull = errors.New("too many invalidations waiting")
	// ErrNewer: what was found was written by a newer stoker, and this one would misread it. Nothing was
	// changed. A task that meets it is left for a newer worker.
	ErrNewer = errors.New("written by a newer stoker")
	// ErrDraining: the worker is stopping; the work goes on elsewhere from its cursor.
	ErrDraining = errors.New("worker is draining")
)
