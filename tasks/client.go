package tasks

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// Client is what app servers, the command line and the console use: it records invalidations,
// reads the cache through, and enqueues work. It is safe for concurrent use by thousands of
// goroutines; make one a process.
type Client struct {
	cfg     Config
	keys    Keys
	tmpl    Template
	queue   redis.UniversalClient
	cache   redis.UniversalClient
	asynq   *asynq.Client
	journal *Journal
	commits *committer
	pointer *pointer
	lister  lister
	own     bool // the connections are the client's to close
}

// maxWaiting bounds the invalidations that wait in a client, in targets (about 100 bytes each).
const maxWaiting = 1_000_000

// NewClient connects to the Redises that cfg names. Nothing is dialled before the first call.
func NewClient(cfg Config) (*Client, error) {
	queue, err := Connect("STOKER_REDIS_URL", cfg.RedisURL)
	if err != nil {
		return nil, err
	}
	cache := queue
	if cfg.CacheURL != "" {
		if cache, err = Connect("STOKER_CACHE_URL", cfg.CacheURL); err != nil {
			return nil, errors.Join(err, queue.Close())
		}
	}
	c, err := NewClientFrom(queue, cache, cfg)
	if err != nil {
		return nil, errors.Join(err, queue.Close(), cache.Close())
	}
	c.own = true
	return c, nil
}

// NewClientFrom returns a client over connections that the caller keeps and closes.
func NewClientFrom(queue, cache redis.UniversalClient, cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	tmpl, err := cfg.Template()
	if err != nil {
		return nil, err
	}
	c := &Client{
		cfg: cfg, keys: cfg.Keys(), tmpl: tmpl, queue: queue, cache: cache,
		asynq:   asynq.NewClientFromRedisClient(queue),
		journal: NewJournal(queue, cfg.Keys(), cfg.OriginLag, cfg.LogReplicas),
		pointer: newPointer(queue, cfg.Keys(), cfg.Release),
	}
	c.commits = &committer{record: c.record, enqueue: c.announce, limit: maxWaiting}
	return c, nil
}

// Close ends the client. Calls under way may fail.
func (c *Client) Close() error {
	c.pointer.close()
	if !c.own {
		return nil
	}
	err := c.queue.Close()
	if c.cache != c.queue {
		err = errors.Join(err, c.cache.Close())
	}
	return err
}

// Release returns the release whose namespace this client reads and fills: the one it is pinned
// to, or the active one, as of the last message about it (at most [pointerAge] old). Before the
// first activation it returns [ErrNoRelease].
func (c *Client) Release(ctx context.Context) (string, error) { return c.pointer.release(ctx) }

// Receipt names a recorded call: no other has its number.
type Receipt struct {
	Number int64 `json:"number"`
}

// Invalidate records that what the targets name is no longer true. Once it returns nil no
// process's death can lose the call: its targets leave every live namespace (within
// milliseconds when a worker runs), and are absent from any namespace restored later.
//
// Call it after the change is committed at the origin. An error that wraps [ErrNotEnqueued]
// means that it is recorded and will be applied by a worker's sweep; any other error means
// that it may or may not be recorded: call again, which is harmless. [ErrNotReplicated]: fewer
// replicas than STOKER_LOG_REPLICAS held it after a second. [ErrNoRelease]: earlier calls reached
// a release and this one reaches none, because the queue Redis was emptied or replaced.
func (c *Client) Invalidate(ctx context.Context, call Invalidation) (Receipt, error) {
	if err := call.Validate(); err != nil {
		return Receipt{}, fmt.Errorf("invalidate: %w", err)
	}
	ctx, span := startSpan(ctx, trace.SpanKindInternal, "invalidate", c.cfg.App)
	call.Trace = traceOf(ctx)
	number, err := c.commits.submit(ctx, call)
	endSpan(span, err)
	return Receipt{number}, err
}

// commitTimeout bounds one record, and the enqueueing of one task.
const commitTimeout = 10 * time.Second

// record is the committer's first stage: one record for a group of calls.
func (c *Client) record(g *group) (int64, error) {
	ctx, cancel := context.WithTimeout(tracedContext(g), commitTimeout)
	defer cancel()
	return c.journal.Record(ctx, Record{ID: rand.Text(), Calls: g.calls})
}

// announce is the committer's second stage: one task for some records.
func (c *Client) announce(groups []*group) error {
	ctx, cancel := context.WithTimeout(tracedContext(groups...), commitTimeout)
	defer cancel()
	task := Invalidate{Numbers: make([]int64, len(groups))}
	for i, g := range groups {
		task.Numbers[i] = g.number
		task.Targets += g.targets
		for _, call := range g.calls[:min(len(g.calls), sampleTargets)] {
			room := min(len(call.Targets), sampleTargets-len(task.Sample))
			task.Sample = append(task.Sample, call.Targets[:room]...)
		}
	}
	_, err := c.Enqueue(ctx, task, asynq.TaskID(InvalidationTaskID(task.Numbers[0])))
	return err
}

// Wait returns when the receipt's call is applied in every live namespace, with what it removed,
// or when ctx ends. It asks at growing intervals of up to 100 ms. A call that was applied so
// long ago that its outcome is forgotten is [ErrNotFound].
func (c *Client) Wait(ctx context.Context, r Receipt) (Applied, error) {
	pause := time.Millisecond
	for {
		applied, pending, err := ReadApplied(ctx, c.queue, c.keys, r.Number)
		if err != nil || !pending {
			return applied, err
		}
		select {
		case <-ctx.Done():
			return Applied{}, fmt.Errorf("wait for invalidation %d: %w (is a worker running?)", r.Number, ctx.Err())
		case <-time.After(pause):
		}
		pause = min(2*pause, 100*time.Millisecond)
	}
}

// taskOptions are the limits of each lane's tasks. asynq turns a timeout under a second into
// half an hour and no limit on retries into 25, so both are always set. Results are kept only
// where somebody reads them.
var taskOptions = map[Lane][]asynq.Option{
	LaneInvalidate: {asynq.Timeout(5 * time.Minute), asynq.MaxRetry(10)},
	LaneBulk:       {asynq.Timeout(time.Hour), asynq.MaxRetry(10)},
	LaneRelease:    {asynq.Timeout(6 * time.Hour), asynq.MaxRetry(5), asynq.Retention(24 * time.Hour)},
	LaneWarm:       {asynq.Timeout(6 * time.Hour), asynq.MaxRetry(5), asynq.Retention(time.Hour)},
	LaneRefresh:    {asynq.Timeout(10 * time.Minute), asynq.MaxRetry(10), asynq.Retention(15 * time.Minute)},
	LaneUpkeep:     {asynq.Timeout(6 * time.Hour), asynq.MaxRetry(5), asynq.Retention(24 * time.Hour)},
	LaneHealth:     {asynq.Timeout(15 * time.Minute), asynq.MaxRetry(3), asynq.Retention(15 * time.Minute)},
	// Half an hour of growing pauses; the ID of what was told keeps it from being told again.
	LaneNotify: {asynq.Timeout(time.Minute), asynq.MaxRetry(12), asynq.Retention(24 * time.Hour)},
}

// Enqueue puts a task into its lane and returns its ID: a fresh one unless opts set it. An ID
// in use already counts as success: it was made by an earlier try whose reply was lost, or by
// another process for the same work.
func (c *Client) Enqueue(ctx context.Context, p Payload, opts ...asynq.Option) (taskID string, err error) {
	lane, err := LaneOf(p.TaskType())
	if err != nil {
		return "", err
	}
	body, err := Encode(p)
	if err != nil {
		return "", err
	}
	id := p.TaskType() + ":" + rand.Text()
	all := append([]asynq.Option{asynq.Queue(lane.Queue(c.cfg.App)), asynq.TaskID(id)}, taskOptions[lane]...)
	all = append(all, opts...)
	for _, o := range all {
		if o.Type() == asynq.TaskIDOpt {
			id = o.Value().(string)
		}
	}
	ctx, span := startSpan(ctx, trace.SpanKindProducer, "enqueue", p.TaskType())
	if span != nil {
		span.SetAttributes(attribute.String("messaging.system", "asynq"), attribute.String("messaging.destination.name", lane.Queue(c.cfg.App)),
			attribute.String("messaging.message.id", id))
		defer func() { endSpan(span, err) }()
	}
	// One more try under the same ID, which cannot enqueue twice.
	task := asynq.NewTaskWithHeaders(p.TaskType(), body, traceHeaders(ctx))
	for try := 0; ; try++ {
		_, err = c.asynq.EnqueueContext(ctx, task, all...)
		switch {
		case err == nil, errors.Is(err, asynq.ErrTaskIDConflict):
			return id, nil
		case try == 1 || ctx.Err() != nil:
			return id, fmt.Errorf("enqueue %s: %w", p.TaskType(), err)
		}
	}
}

// WarmRequest asks for a warm run.
type WarmRequest struct {
	Release string
	Plan    []byte   // YAML; empty means the worker's own (STOKER_PLAN)
	Sources []string // empty means all of the plan's
	Sample  float64  // share of the entries, (0, 1]; 0 means all
	Pace    Pace     // "" means the workers' own
	By
}

// Warm starts a warm run and returns its ID and the ID of its first task. The run keeps its own
// copy of the plan: changing the file does not change a run under way.
func (c *Client) Warm(ctx context.Context, r WarmRequest) (run, taskID string, err error) {
	run = rand.Text()
	taskID, err = c.WarmAs(ctx, run, r)
	return run, taskID, err
}

// keepRun is how long a warm run's record stays.
const keepRun = 30 * 24 * time.Hour

// WarmAs is [Client.Warm] for a run whose ID the caller gives. Starting it again changes nothing.
func (c *Client) WarmAs(ctx context.Context, run string, r WarmRequest) (taskID string, err error) {
	payload := WarmRun{Run: run, Release: r.Release, Sources: r.Sources, Sample: r.Sample, Pace: r.Pace, By: r.By}
	if err := payload.Validate(); err != nil {
		return "", fmt.Errorf("warm: %w", err)
	}
	now := time.Now().UnixMicro()
	_, err = c.queue.Pipelined(ctx, func(p redis.Pipeliner) error {
		key := c.keys.Run(run)
		for field, value := range map[string]any{
			"release": r.Release, "plan": r.Plan, "sample": r.Sample, "status": "queued", "created_at": now, "version": Runs.For(1),
		} {
			p.HSetNX(ctx, key, field, value)
		}
		p.Expire(ctx, key, keepRun)
		p.ZAddNX(ctx, c.keys.Runs(r.Release), redis.Z{Score: float64(now), Member: run})
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("warm release %q: %w", r.Release, err)
	}
	return c.Enqueue(ctx, payload, asynq.TaskID(TypeWarmRun+":"+run))
}

// Rollback brings back an earlier release and returns the task's ID.
func (c *Client) Rollback(ctx context.Context, to string, by By) (string, error) {
	return c.Enqueue(ctx, Rollback{To: to, By: by})
}

// Activate makes a ready release the active one and returns the task's ID.
func (c *Client) Activate(ctx context.Context, release string, force bool, by By) (string, error) {
	return c.Enqueue(ctx, Activate{Release: release, Force: force, By: by})
}

// Snapshot archives a release's namespace and returns the task's ID.
func (c *Client) Snapshot(ctx context.Context, release string, by By) (string, error) {
	return c.Enqueue(ctx, Snapshot{Release: release, By: by})
}

// Drill tries whether an archive would come back, the named release's or the newest, and returns
// the task's ID.
func (c *Client) Drill(ctx context.Context, release string, by By) (string, error) {
	return c.Enqueue(ctx, Drill{Release: release, By: by})
}

// Expire removes one release's namespace, or those that the retention rule gives up when
// release is "", and returns the task's ID.
func (c *Client) Expire(ctx context.Context, release string, noSnapshot bool, by By) (string, error) {
	return c.Enqueue(ctx, Expire{Release: release, NoSnapshot: noSnapshot, By: by})
}
