package scheduler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"

	"github.com/alphanode/stoker/tasks"
)

// How a scheduler passes its time.
const (
	lookEvery    = 2 * time.Second  // at the file
	catchUpEvery = 30 * time.Second // missed ticks
	early        = time.Second      // a clock that rings may be ahead of the tick by as much
	fireLimit    = 15 * time.Second // for one tick
)

// A Client enqueues tasks; [tasks.Client] is one.
type Client interface {
	// Enqueue puts a task into its lane. A task ID in use already counts as success, and the
	// ID stays in use for at least ten minutes after the task has succeeded.
	Enqueue(ctx context.Context, p tasks.Payload, opts ...asynq.Option) (string, error)
	// Release returns the active release, or an error that wraps tasks.ErrNoRelease.
	Release(ctx context.Context) (string, error)
}

// Deps is what a scheduler works with.
type Deps struct {
	App   string
	Queue redis.UniversalClient // the queue Redis; stays the caller's
	// Dial makes one more connection to the queue Redis, for asynq alone; it is closed by
	// the scheduler.
	Dial   func() (redis.UniversalClient, error)
	Client Client
	// Warm starts the warm run with that ID. Starting one that exists already does nothing.
	// nil: entries that warm are refused.
	Warm   func(ctx context.Context, run string, r tasks.WarmRequest) error
	Tracer trace.Tracer // nil: ticks make no spans
	Log    *slog.Logger
}

// Scheduler enqueues the tasks of a schedule. Make one with [New]; it can be started once.
type Scheduler struct {
	path  string
	deps  Deps
	ticks ticks
	now   func() time.Time

	mu      sync.Mutex // guards what follows
	current Schedule   // taken over last
	seen    []byte     // the file's text when it was looked at last
	clock   *asynq.Scheduler
	cancel  context.CancelFunc
	loop    sync.WaitGroup
	stopped bool
}

// New reads the schedule and returns a scheduler that has not been started. A file that is
// missing or wrong is an error here; once the scheduler runs it keeps the last good one.
func New(cfg Config, deps Deps) (*Scheduler, error) {
	s := &Scheduler{path: cfg.Schedule, deps: deps, now: time.Now, ticks: ticks{deps.Queue, tasks.KeysOf(deps.App)}}
	if err := tasks.ValidateApp(deps.App); err != nil {
		return nil, err
	}
	if s.path != "" {
		s.seen, _ = os.ReadFile(s.path) // an error shows again in load
	}
	current, err := s.load()
	s.current = current
	return s, err
}

// load reads the schedule and checks that this process can serve it.
func (s *Scheduler) load() (Schedule, error) {
	plan, err := Load(s.path)
	if err != nil {
		return Schedule{}, err
	}
	for _, e := range plan.Entries {
		if e.Task == tasks.TypeWarmRun && s.deps.Warm == nil {
			return Schedule{}, fmt.Errorf("schedule %q: %w: entry %q warms, and this process knows no warm plan", s.path, tasks.ErrInvalid, e.Name)
		}
	}
	return plan, nil
}

// Start starts the clock and catches up with what was missed. It returns when the scheduler
// runs; a Redis that does not answer is waited for.
func (s *Scheduler) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clock != nil || s.stopped {
		return errors.New("start scheduler: it was started or stopped before")
	}
	if err := s.ring(s.current); err != nil {
		return fmt.Errorf("start scheduler: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.loop.Go(func() { s.run(ctx) })
	s.deps.Log.Info("scheduler started", "app", s.deps.App, "file", s.path, "entries", len(s.current.Entries))
	return nil
}

// Stop stops the scheduler and returns when it has: a tick that is being enqueued is ended
// first. Calling it again, or without a start, is fine.
func (s *Scheduler) Stop() {
	s.mu.Lock()
	cancel := s.cancel
	s.stopped, s.cancel = true, nil
	s.mu.Unlock()
	if cancel == nil {
		return
	}
	cancel()
	s.loop.Wait()
	s.clock.Shutdown()
	s.deps.Log.Info("scheduler stopped", "app", s.deps.App)
}

// Schedule returns the entries that are in force.
func (s *Scheduler) Schedule() Schedule {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// run looks at the file and for missed ticks until ctx ends.
func (s *Scheduler) run(ctx context.Context) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	late := time.NewTicker(catchUpEvery)
	defer late.Stop()
	s.catchUp(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-late.C:
			s.catchUp(ctx)
		case <-look.C:
			if s.reload() {
				s.catchUp(ctx)
			}
		}
	}
}

// reload takes over a file that has changed; true when there are new entries to serve.
func (s *Scheduler) reload() bool {
	if s.path == "" {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	raw, err := os.ReadFile(s.path)
	if err == nil && bytes.Equal(raw, s.seen) || err != nil && s.seen == nil {
		return false
	}
	s.seen = raw
	plan, err := s.load()
	if err != nil {
		s.deps.Log.Error("schedule refused, the last good one stays in force", "error", err)
		return false
	}
	old := s.clock
	if err := s.ring(plan); err != nil {
		s.deps.Log.Error("schedule not taken over, the last good one stays in force", "error", err)
		s.seen = nil // look again
		return false
	}
	old.Shutdown()
	s.current = plan
	s.deps.Log.Info("schedule taken over", "file", s.path, "entries", len(plan.Entries))
	return true
}

// catchUp enqueues the latest tick of every entry that has missed it.
func (s *Scheduler) catchUp(ctx context.Context) {
	plan, now := s.Schedule(), s.now()
	last, err := s.ticks.all(ctx)
	if err != nil {
		s.deps.Log.Error("missed ticks not looked for", "error", err)
		return
	}
	for _, e := range plan.Entries {
		due, ok := plan.Latest(e, now)
		if !ok {
			continue
		}
		seen, known := last[e.Name]
		switch {
		case !known: // it starts with its next tick
			err = s.ticks.advance(ctx, e.Name, due)
		case due.After(seen):
			s.deps.Log.Info("tick was missed", "entry", e.Name, "tick", due)
			err = s.fire(ctx, e, due)
		}
		if err != nil {
			s.deps.Log.Error("tick not enqueued", "entry", e.Name, "tick", due, "error", err)
		}
	}
}

// fire deals with one tick of an entry, whoever else does so at the same time.
func (s *Scheduler) fire(ctx context.Context, e Entry, tick time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, fireLimit)
	defer cancel()
	last, known, err := s.ticks.last(ctx, e.Name)
	if err != nil || known && !last.Before(tick) {
		return err
	}
	if s.deps.Tracer != nil {
		var span trace.Span
		ctx, span = s.deps.Tracer.Start(ctx, "tick "+e.Name)
		defer span.End()
	}
	id, err := s.enqueue(ctx, e, tick)
	switch {
	case errors.Is(err, tasks.ErrNoRelease):
		s.deps.Log.Info("tick skipped: no release is active yet", "entry", e.Name, "tick", tick)
	case err != nil:
		return err
	default:
		s.deps.Log.Debug("tick enqueued", "entry", e.Name, "tick", tick, "task", id)
	}
	return s.ticks.advance(ctx, e.Name, tick)
}

func (s *Scheduler) enqueue(ctx context.Context, e Entry, tick time.Time) (id string, err error) {
	release := ""
	if e.follows() {
		if release, err = s.deps.Client.Release(ctx); err != nil {
			return "", err
		}
	}
	id = TaskID(e.Name, tick)
	p, err := e.payload(release, id)
	if err != nil {
		return "", err
	}
	if w, ok := p.(*tasks.WarmRun); ok {
		return id, s.deps.Warm(ctx, id, tasks.WarmRequest{Release: w.Release, Sources: w.Sources, Sample: w.Sample, Pace: w.Pace, By: w.By})
	}
	return s.deps.Client.Enqueue(ctx, p, asynq.TaskID(id))
}

// TaskID is the ID of the task that one tick of an entry enqueues, the same in every scheduler.
func TaskID(entry string, tick time.Time) string {
	return entry + "@" + tick.UTC().Format("20060102T1504Z")
}
