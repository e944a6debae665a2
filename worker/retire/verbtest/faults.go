package verbtest

import (
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/snapshot"
)

// ErrFault is the error of a call that was made to fail.
var ErrFault = errors.New("injected fault")

// Mode is how a call fails.
type Mode struct {
	Name  string
	After bool // the call has its effect, its reply is lost
	Dead  bool // so does every later call of this try: the process was killed
}

// Modes lists every way of failing.
var Modes = []Mode{
	{Name: "lost write"},
	{Name: "lost reply", After: true},
	{Name: "killed before", Dead: true},
	{Name: "killed after", After: true, Dead: true},
}

// Faults makes one call of a try fail. The zero value makes none. Calls may be made side by side.
type Faults struct {
	Mode
	At    int    // which call, from 1; 0 for none
	Fired string // the call that failed; to be read after the try
	calls atomic.Int64
}

// Do makes a call, or fails it.
func (f *Faults) Do(name string, call func() error) error {
	n := int(f.calls.Add(1))
	switch {
	case f.At == 0 || n < f.At || n > f.At && !f.Dead:
		return call()
	case n > f.At:
		return ErrFault
	}
	f.Fired = name
	if f.After {
		if err := call(); err != nil {
			return err
		}
	}
	return ErrFault
}

// EachFault runs try once for every call that it makes and every way in which that can fail,
// until a run gets through without meeting its fault.
func EachFault(t *testing.T, try func(t *testing.T, f *Faults)) {
	for _, mode := range Modes {
		t.Run(mode.Name, func(t *testing.T) {
			for at := 1; ; at++ {
				f := &Faults{Mode: mode, At: at}
				try(t, f)
				if t.Failed() {
					t.Fatalf("with call %d, %s, failing as %q", at, f.Fired, mode.Name)
				}
				if f.Fired == "" {
					t.Logf("%d calls", at-1)
					return
				}
			}
		})
	}
}

// Job is a task's job whose cursor outlives the try.
type Job struct {
	Name   string
	Cursor []byte
	Drain  chan struct{}
	F      *Faults
}

var _ tasks.Job = (*Job)(nil)

// NewJob returns a job without a cursor or faults.
func NewJob(name string) *Job {
	return &Job{Name: name, Drain: make(chan struct{}), F: &Faults{}}
}

// ID implements tasks.Job.
func (j *Job) ID() string { return j.Name }

// Load implements tasks.Job.
func (j *Job) Load(_ context.Context, v any) (bool, error) {
	if j.Cursor == nil {
		return false, nil
	}
	return true, json.Unmarshal(j.Cursor, v)
}

// Save implements tasks.Job.
func (j *Job) Save(_ context.Context, v any) error {
	return j.F.Do("Job.Save", func() (err error) {
		j.Cursor, err = json.Marshal(v)
		return err
	})
}

// Progress implements tasks.Job.
func (j *Job) Progress(string, int64, int64) {}

// Draining implements tasks.Job.
func (j *Job) Draining() <-chan struct{} { return j.Drain }

// Ledger is release.Ledger with faults.
type Ledger struct {
	*release.Ledger
	F *Faults
}

// Get fails as told.
func (l Ledger) Get(ctx context.Context, id string) (rec release.Record, err error) {
	err = l.F.Do("Ledger.Get", func() error { rec, err = l.Ledger.Get(ctx, id); return err })
	return rec, err
}

// Move fails as told.
func (l Ledger) Move(ctx context.Context, id string, from, to release.State, by tasks.By) error {
	return l.F.Do("Ledger.Move to "+string(to), func() error { return l.Ledger.Move(ctx, id, from, to, by) })
}

// Flip fails as told.
func (l Ledger) Flip(ctx context.Context, id string, from release.State, by tasks.By) (previous string, err error) {
	err = l.F.Do("Ledger.Flip", func() error { previous, err = l.Ledger.Flip(ctx, id, from, by); return err })
	return previous, err
}

// SetDoc fails as told.
func (l Ledger) SetDoc(ctx context.Context, id string, d release.Doc, v any) error {
	return l.F.Do("Ledger.SetDoc "+string(d), func() error { return l.Ledger.SetDoc(ctx, id, d, v) })
}

// Log is invalidation.Log with faults.
type Log struct {
	*invalidation.Log
	F *Faults
}

// OpenReader fails as told.
func (l Log) OpenReader(ctx context.Context, source, reader string) (m invalidation.Mark, err error) {
	err = l.F.Do("Log.OpenReader", func() error { m, err = l.Log.OpenReader(ctx, source, reader); return err })
	return m, err
}

// CloseReader fails as told.
func (l Log) CloseReader(ctx context.Context, reader string) error {
	return l.F.Do("Log.CloseReader", func() error { return l.Log.CloseReader(ctx, reader) })
}

// OpenMarkAt fails as told.
func (l Log) OpenMarkAt(ctx context.Context, id, writer string, m invalidation.Mark) error {
	return l.F.Do("Log.OpenMarkAt", func() error { return l.Log.OpenMarkAt(ctx, id, writer, m) })
}

// CloseMark fails as told.
func (l Log) CloseMark(ctx context.Context, id, writer string) error {
	return l.F.Do("Log.CloseMark", func() error { return l.Log.CloseMark(ctx, id, writer) })
}

// Mark fails as told.
func (l Log) Mark(ctx context.Context) (m invalidation.Mark, err error) {
	err = l.F.Do("Log.Mark", func() error { m, err = l.Log.Mark(ctx); return err })
	return m, err
}

// Applier is invalidation.Applier with faults.
type Applier struct {
	*invalidation.Applier
	F *Faults
}

// Sweep fails as told.
func (a Applier) Sweep(ctx context.Context, olderThan time.Duration) (n int, err error) {
	err = a.F.Do("Applier.Sweep", func() error { n, err = a.Applier.Sweep(ctx, olderThan); return err })
	return n, err
}

// Look fails as told.
func (a Applier) Look(ctx context.Context) (n int, err error) {
	err = a.F.Do("Applier.Look", func() error { n, err = a.Applier.Look(ctx); return err })
	return n, err
}

// Replay fails as told.
func (a Applier) Replay(ctx context.Context, id string, m invalidation.Mark) (r invalidation.Replayed, err error) {
	err = a.F.Do("Applier.Replay", func() error { r, err = a.Applier.Replay(ctx, id, m); return err })
	return r, err
}

// Cache is namespace.Cache with faults: whole-namespace work that fails "after" has been done
// by half.
type Cache struct {
	*namespace.Cache
	W *World
	F *Faults
}

// Read fails as told, at any slice.
func (c Cache) Read(ctx context.Context, id string, fn func([]tasks.Entry) error) error {
	return c.Cache.Read(ctx, id, func(entries []tasks.Entry) error {
		return c.F.Do("Cache.Read", func() error { return fn(entries) })
	})
}

// ReadFrom fails as told, at every slice.
func (c Cache) ReadFrom(ctx context.Context, id, cursor string, fn func([]tasks.Entry, string) error) error {
	return c.Cache.ReadFrom(ctx, id, cursor, func(entries []tasks.Entry, next string) error {
		return c.F.Do("Cache.ReadFrom", func() error { return fn(entries, next) })
	})
}

// Write fails as told, after half of the entries.
func (c Cache) Write(ctx context.Context, id string, entries []tasks.Entry) error {
	half := entries[len(entries)/2:]
	err := c.F.Do("Cache.Write", func() error { return c.Cache.Write(ctx, id, entries[:len(entries)/2]) })
	if err != nil {
		return err
	}
	return c.Cache.Write(ctx, id, half)
}

// SetFence fails as told.
func (c Cache) SetFence(ctx context.Context, id, token string) error {
	return c.F.Do("Cache.SetFence", func() error { return c.Cache.SetFence(ctx, id, token) })
}

// FieldExpiries fails as told.
func (c Cache) FieldExpiries(ctx context.Context) (knows bool, err error) {
	err = c.F.Do("Cache.FieldExpiries", func() (err error) {
		knows, err = c.Cache.FieldExpiries(ctx)
		return err
	})
	return knows, err
}

// Replicated fails as told.
func (c Cache) Replicated(ctx context.Context) (servers string, err error) {
	err = c.F.Do("Cache.Replicated", func() (err error) { servers, err = c.Cache.Replicated(ctx); return err })
	return servers, err
}

// Purge fails as told, after some of the keys.
func (c Cache) Purge(ctx context.Context, id, token string, progress func(int64)) (n int64, err error) {
	half := func() error {
		if int(c.F.calls.Load()) != c.F.At {
			return nil
		}
		_, err := c.Cache.Remove(ctx, id, []string{"post:1", "post:2", "hash", "set"})
		return err
	}
	if err := c.F.Do("Cache.Purge", half); err != nil {
		return 0, err
	}
	err = c.F.Do("Cache.Purge", func() error { n, err = c.Cache.Purge(ctx, id, token, progress); return err })
	return n, err
}

// Store is a store with faults.
type Store struct {
	snapshot.Store
	F *Faults
}

// Create fails as told.
func (s Store) Create(ctx context.Context, name string) (d snapshot.Draft, err error) {
	err = s.F.Do("Store.Create", func() error { d, err = s.Store.Create(ctx, name); return err })
	return draft{d, s.F}, err
}

// Resume fails as told.
func (s Store) Resume(ctx context.Context, name string, at json.RawMessage) (d snapshot.Draft, err error) {
	err = s.F.Do("Store.Resume", func() error { d, err = s.Store.Resume(ctx, name, at); return err })
	return draft{d, s.F}, err
}

// Discard fails as told.
func (s Store) Discard(ctx context.Context, name string) error {
	return s.F.Do("Store.Discard", func() error { return s.Store.Discard(ctx, name) })
}

// Open fails as told.
func (s Store) Open(ctx context.Context, name string) (r snapshot.Source, err error) {
	err = s.F.Do("Store.Open", func() error { r, err = s.Store.Open(ctx, name); return err })
	return r, err
}

// Delete fails as told.
func (s Store) Delete(ctx context.Context, name string) error {
	return s.F.Do("Store.Delete", func() error { return s.Store.Delete(ctx, name) })
}

// draft is a draft with faults, of which a checkpoint is always due.
type draft struct {
	snapshot.Draft
	f *Faults
}

func (d draft) Commit() error { return d.f.Do("Draft.Commit", d.Draft.Commit) }

func (d draft) Due() bool { return true }

func (d draft) Checkpoint() (at json.RawMessage, err error) {
	err = d.f.Do("Draft.Checkpoint", func() error { at, err = d.Draft.Checkpoint(); return err })
	return at, err
}

func (d draft) Abort() error {
	if d.Draft == nil {
		return nil
	}
	return d.Draft.Abort()
}
