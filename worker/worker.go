package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// How asynq's servers are set beyond what the lanes differ in.
const (
	forwardEvery = time.Second     // how soon a task that is due again returns to its queue
	stragglers   = time.Second     // how long Stop waits for handlers that outlived the grace period
	shutdownRest = 5 * time.Second // what asynq may take to stop beyond the grace period
)

// Deps is what a worker works with.
type Deps struct {
	App   string
	Queue redis.UniversalClient // the queue Redis, for cursors and counters; stays the caller's
	// Dial makes one more connection to the queue Redis, for asynq alone: the worker adds
	// hooks to it and closes it.
	Dial     func() (redis.UniversalClient, error)
	Handlers Handlers
	Applier  Applier        // nil: this worker applies nothing but by its tasks
	Reaper   Reaper         // nil: this worker does not reap
	Refresh  RefreshSweeper // nil: this worker refreshes only what it has tasks for
	Witness  Witness        // nil: this worker does not look for losses of the log
	Lookout  Lookout        // nil: this worker does not look for failovers of the cache Redis
	Log      *slog.Logger
}

// Worker serves lanes. Make one with [New]; it can be started once.
type Worker struct {
	cfg    Config
	deps   Deps
	keys   tasks.Keys
	starts starts

	draining chan struct{}  // closed when Stop begins
	running  sync.WaitGroup // handlers that have not returned
	left     lefts          // what was left for a newer worker

	mu         sync.Mutex // guards what follows
	started    bool
	stopped    bool
	own        redis.UniversalClient // from Dial
	servers    []*asynq.Server
	cancel     context.CancelFunc // ends the handlers' contexts and the rounds
	background sync.WaitGroup
}

// lefts counts how often each task was left for a newer worker. It is safe for concurrent use.
type lefts struct{ times sync.Map } // task → *atomic.Int64

// add counts one more time and returns how many there are now.
func (l *lefts) add(id string) int {
	n, _ := l.times.LoadOrStore(id, new(atomic.Int64))
	return int(n.(*atomic.Int64).Add(1))
}

// New returns a worker that has not been started.
func New(cfg Config, deps Deps) (*Worker, error) {
	if err := errors.Join(cfg.Validate(), tasks.ValidateApp(deps.App)); err != nil {
		return nil, fmt.Errorf("worker: %w", err)
	}
	for taskType := range deps.Handlers {
		if _, err := tasks.LaneOf(taskType); err != nil {
			return nil, fmt.Errorf("worker: handler: %w", err)
		}
	}
	keys := tasks.KeysOf(deps.App)
	return &Worker{
		cfg:      cfg,
		deps:     deps,
		keys:     keys,
		starts:   starts{deps.Queue, keys},
		draining: make(chan struct{}),
	}, nil
}

// Start checks the queue Redis and starts the lanes; it returns when they run. A worker can be
// started once.
func (w *Worker) Start(ctx context.Context) error {
	if err := CheckQueueRedis(ctx, w.deps.Queue, w.cfg.AllowQueueEvictionAndLoseInvalidations, w.deps.Log); err != nil {
		return fmt.Errorf("start worker: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.started || w.stopped {
		return errors.New("start worker: it was started or stopped before")
	}
	own, err := w.deps.Dial()
	if err != nil {
		return fmt.Errorf("start worker: %w", err)
	}
	own.AddHook(ackHook{})
	own.AddHook(newBackoffHook(w.draining))
	base, cancel := context.WithCancel(context.Background())
	w.started, w.own, w.cancel = true, own, cancel
	for _, l := range lanes {
		if !slices.Contains(w.cfg.Lanes, l.lane) {
			continue
		}
		s := asynq.NewServerFromRedisClient(own, w.serverConfig(l, base))
		if err := s.Start(runner{l, w}); err != nil {
			w.halt()
			return fmt.Errorf("start lane %s: %w", l.lane, err)
		}
		w.servers = append(w.servers, s)
	}
	w.background.Go(func() { w.rounds(base) })
	w.deps.Log.Info("worker started", "app", w.deps.App, "lanes", w.cfg.Lanes)
	return nil
}

func (w *Worker) serverConfig(l lane, base context.Context) asynq.Config {
	return asynq.Config{
		Queues:                   map[string]int{l.lane.Queue(w.deps.App): 1},
		Concurrency:              l.concurrency(w.cfg),
		TaskCheckInterval:        l.poll,
		DelayedTaskCheckInterval: forwardEvery,
		ShutdownTimeout:          w.cfg.GracePeriod,
		BaseContext:              func() context.Context { return base },
		RetryDelayFunc:           retryDelay,
		IsFailure:                isFailure,
		Logger:                   asynqLog{w.deps.Log},
	}
}

// Stop drains the worker and returns when it has stopped: at most the grace period and a few
// seconds later. Calling it again, or without a start, is fine.
func (w *Worker) Stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	w.stopped = true
	if !w.started {
		close(w.draining)
		return
	}
	w.halt()
	w.deps.Log.Info("worker stopped", "app", w.deps.App)
}

// halt ends whatever has been started. The caller holds mu.
func (w *Worker) halt() {
	w.stopped = true
	close(w.draining)
	var lanes sync.WaitGroup
	for _, s := range w.servers {
		lanes.Go(s.Shutdown)
	}
	if !wait(&lanes, w.cfg.GracePeriod+shutdownRest) {
		w.deps.Log.Error("lanes did not stop in time", "grace", w.cfg.GracePeriod)
	}
	// Handlers that outlived the grace period have lost their tasks: end them.
	w.cancel()
	if !wait(&w.running, stragglers) {
		w.deps.Log.Error("handlers did not stop in time", "grace", w.cfg.GracePeriod)
	}
	w.background.Wait()
	if err := w.own.Close(); err != nil {
		w.deps.Log.Warn("connection not closed", "error", err)
	}
}

// wait waits for g, at most d; it reports whether g ended in time.
func wait(g *sync.WaitGroup, d time.Duration) bool {
	done := make(chan struct{})
	go func() { g.Wait(); close(done) }()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}
