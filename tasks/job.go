package tasks

import "context"

// Job is what long work knows of the task it runs in. The worker gives every handler one;
// [Alone] is the job of work that runs outside a task.
type Job interface {
	// ID names the task. A retry of the task has the same ID.
	ID() string
	// Load reads the cursor that an earlier try saved into v, a pointer; false when there is none. One that only
	// a newer worker can read is ErrNewer.
	Load(ctx context.Context, v any) (bool, error)
	// Save keeps a cursor for the next try: what becomes a JSON object without a field v, which says
	// its version. Call it after the slice it speaks of.
	Save(ctx context.Context, v any) error
	// Progress shows how far the work has come; total 0 means unknown. It never blocks for
	// long and never fails: it is for eyes only.
	Progress(phase string, done, total int64)
	// Draining is closed when the worker is asked to stop: finish the running slice, save
	// the cursor, return ErrDraining.
	Draining() <-chan struct{}
}

// Alone is a Job with that ID, without a cursor, progress or an end.
type Alone string

var _ Job = Alone("")

// ID implements [Job].
func (a Alone) ID() string { return string(a) }

// Load implements [Job]: there is never a cursor.
func (Alone) Load(context.Context, any) (bool, error) { return false, nil }

// Save implements [Job]: the cursor is dropped.
func (Alone) Save(context.Context, any) error { return nil }

// Progress implements [Job].
func (Alone) Progress(string, int64, int64) {}

// Draining implements [Job].
func (Alone) Draining() <-chan struct{} { return nil }
