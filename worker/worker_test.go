package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"
	"github.com/kelseyhightower/envconfig"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

// sliced is a handler that works in slices: it shows where it begins, saves a cursor and goes on
// when it is told to, and hands over when its worker drains.
func sliced(begins chan<- int, finish <-chan struct{}) Handler {
	return func(ctx context.Context, j tasks.Job, _ []byte) (any, error) {
		var cursor struct{ At int }
		if _, err := j.Load(ctx, &cursor); err != nil {
			return nil, err
		}
		at := cursor.At
		begins <- at
		select {
		case <-finish:
			return map[string]int{"from": at}, nil
		case <-j.Draining():
			cursor.At++
			return nil, errors.Join(j.Save(ctx, cursor), fmt.Errorf("slice %d: %w", at, tasks.ErrDraining))
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// TestDrain: work under way is handed to the next worker with its cursor, at no cost.
func TestDrain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	begins, finish := make(chan int, 10), make(chan struct{})
	first := r.start(sliced(begins, finish))
	r.enqueue("long", asynq.Retention(time.Hour))
	receive(t, "the first worker", begins)
	begun := time.Now()
	first.Stop()
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("stopping took %v although the handler returned at once", took)
	}
	first.Stop() // twice is fine
	if got := r.state("long"); got != asynq.TaskStateRetry && got != asynq.TaskStatePending {
		t.Fatalf("after the stop the task is %v, want it waiting", got)
	}
	second := r.start(sliced(begins, finish))
	if at := receive(t, "the second worker", begins); at != 1 {
		t.Errorf("second worker began at %d, want 1, the cursor of the first", at)
	}
	close(finish)
	until(t, "completed", func() bool { return r.state("long") == asynq.TaskStateCompleted })
	info, err := r.inspector.GetTaskInfo(queue, "long")
	if err != nil || info.Retried != 0 || string(info.Result) != `{"from":1}` {
		t.Errorf("completed as %+v, %v; want no retry spent and the handler's result", info, err)
	}
	if n := r.redis.Client.Exists(context.Background(), second.keys.Cursor("long")).Val(); n != 1 {
		t.Error("the cursor is gone: a run after a lost ack would begin anew")
	}
}

// TestDrainOnLastTry: asynq archives a task on its last try for any error; one that was only
// handed on goes back to its queue instead.
func TestDrainOnLastTry(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	begins, finish := make(chan int, 10), make(chan struct{})
	quick := func(c *Config, _ *Deps) { c.GracePeriod = time.Second }
	first := r.start(sliced(begins, finish), quick)
	r.enqueue("last", asynq.MaxRetry(0))
	receive(t, "the first worker", begins)
	first.Stop()
	if got := r.state("last"); got != asynq.TaskStatePending {
		t.Fatalf("after the stop the task is %v, want pending", got)
	}
	r.start(sliced(begins, finish), quick)
	if at := receive(t, "the second worker", begins); at != 1 {
		t.Errorf("second worker began at %d, want 1", at)
	}
	close(finish)
	until(t, "gone", func() bool { return r.state("last") == 0 })
}

// TestStraggler: a handler that does not hand over in time loses its task, then its context.
func TestStraggler(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	begun, ended := make(chan struct{}, 1), make(chan error, 1)
	w := r.start(func(ctx context.Context, _ tasks.Job, _ []byte) (any, error) {
		begun <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	}, func(c *Config, _ *Deps) { c.GracePeriod = time.Second })
	r.enqueue("slow")
	receive(t, "the handler", begun)
	w.Stop()
	select {
	case <-ended:
	default:
		t.Errorf("Stop returned while the handler was running")
	}
	info, err := r.inspector.GetTaskInfo(queue, "slow")
	if err != nil || info.State != asynq.TaskStatePending || info.Retried != 0 {
		t.Errorf("after the stop: %+v, %v; want it pending with no retry spent", info, err)
	}
}

// TestDrainingTakesNothing: a worker that stops gives back what it took at the last moment.
func TestDrainingTakesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w, err := New(testConfig(tasks.LaneRelease), Deps{App: app, Queue: r.redis.Client, Dial: r.dial, Log: discard,
		Handlers: Handlers{tasks.TypeRollback: func(context.Context, tasks.Job, []byte) (any, error) {
			return nil, errors.New("must not run")
		}}})
	if err != nil {
		t.Fatal(err)
	}
	w.Stop() // never started: fine
	err = runner{lanes[1], w}.run(context.Background(), "a", asynq.NewTask(tasks.TypeRollback, nil))
	if !errors.Is(err, tasks.ErrDraining) {
		t.Errorf("run while draining: %v, want %v", err, tasks.ErrDraining)
	}
	if err := w.Start(context.Background()); err == nil {
		t.Error("a stopped worker was started")
	}
}

// TestPanic: a panicking handler is an error of its task; the log has the stack.
func TestPanic(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(func(context.Context, tasks.Job, []byte) (any, error) { panic("out of coal") })
	r.enqueue("a")
	until(t, "retry", func() bool { return r.state("a") == asynq.TaskStateRetry })
	info, err := r.inspector.GetTaskInfo(queue, "a")
	if err != nil || info.Retried != 1 || !strings.Contains(info.LastErr, "out of coal") {
		t.Errorf("after a panic: %+v, %v", info, err)
	}
	if log := r.log.String(); !strings.Contains(log, "handler panicked") || !strings.Contains(log, "worker_test.go") {
		t.Errorf("the log holds no stack of the panic:\n%s", log)
	}
}

// TestGiveUp: what cannot get better is archived at once, with its own words.
func TestGiveUp(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(func(context.Context, tasks.Job, []byte) (any, error) {
		return nil, fmt.Errorf("roll back: %w: no standby", tasks.ErrRefused)
	})
	r.enqueue("a")
	until(t, "archived", func() bool { return r.state("a") == asynq.TaskStateArchived })
	info, err := r.inspector.GetTaskInfo(queue, "a")
	if err != nil || info.LastErr != "roll back: refused: no standby" {
		t.Errorf("archived with %q, %v", info.LastErr, err)
	}
	if err := tasks.Failed(info.LastErr, info.Result); !errors.Is(err, tasks.ErrRefused) || err.Error() != info.LastErr {
		t.Errorf("whoever waits finds %v in result %s", err, info.Result)
	}
}

// TestLimitsAlwaysSet: every task that the client enqueues has a timeout that asynq takes as it is
// and a limit of retries above the three that lost leases may need.
func TestLimitsAlwaysSet(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c, err := tasks.NewClientFrom(r.redis.Client, r.redis.Client, tasks.Config{App: app, FillLimit: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for _, p := range []tasks.Payload{
		tasks.Invalidate{Numbers: []int64{1}, Targets: 1}, tasks.InvalidateBulk{Number: 1, Targets: 1}, tasks.Rollback{By: by}, tasks.Activate{Release: "r1", By: by},
		tasks.WarmRun{Run: "a", Release: "r1", By: by}, tasks.WarmBatch{Run: "a", Release: "r1", Source: "s"},
		tasks.Snapshot{Release: "r1", By: by}, tasks.Expire{By: by}, tasks.Prune{By: by},
		tasks.Health{By: by}, tasks.Freshness{By: by}, tasks.Baseline{Release: "r1", By: by}, tasks.Watch{Release: "r1", By: by},
	} {
		id, err := c.Enqueue(context.Background(), p)
		if err != nil {
			t.Fatal(err)
		}
		l, err := tasks.LaneOf(p.TaskType())
		if err != nil {
			t.Fatal(err)
		}
		info, err := r.inspector.GetTaskInfo(l.Queue(app), id)
		if err != nil || info.Timeout < time.Second || info.Timeout > 24*time.Hour || info.MaxRetry < 3 || info.MaxRetry > 10 {
			t.Errorf("%s: timeout %v, %d retries, %v", p.TaskType(), info.Timeout, info.MaxRetry, err)
		}
	}
}

func TestVerdicts(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want verdict
	}{
		{errors.New("boom"), retryLater},
		{context.DeadlineExceeded, retryLater},
		{asynq.ErrLeaseExpired, retryNow},
		{fmt.Errorf("copy: %w", tasks.ErrDraining), retryNow},
		{fmt.Errorf("copy: %w", tasks.ErrInvalid), giveUp},
		{tasks.ErrRefused, giveUp},
		{tasks.ErrNotFound, giveUp},
		{tasks.ErrNotFresh, giveUp},
		{tasks.ErrNoRelease, giveUp},
		{errPoison, giveUp},
		{final{errors.New("boom")}, giveUp},
	} {
		if got := verdictOf(tt.err); got != tt.want {
			t.Errorf("verdict of %v: %s, want %s", tt.err, got, tt.want)
		}
		if got := isFailure(tt.err); got != (tt.want != retryNow) {
			t.Errorf("%v costs a retry: %v", tt.err, got)
		}
	}
	last := time.Duration(0)
	for n := range 100 {
		d := retryDelay(n, errors.New("boom"), nil)
		if d < firstRetry || d > lastRetry*5/4 || n > 0 && n < 7 && d <= last {
			t.Errorf("delay before retry %d is %v after %v", n, d, last)
		}
		last = d
	}
	if d := retryDelay(3, tasks.ErrDraining, nil); d != 0 {
		t.Errorf("delay while draining %v, want 0", d)
	}
}

// TestEmbedded: a worker runs on an embedded Redis as well, with a warning.
func TestEmbedded(t *testing.T) {
	t.Parallel()
	c := redistest.Mini(t)
	r := &rig{t: t, redis: &redistest.Server{Addr: c.Options().Addr, Client: c}, log: &logBuffer{},
		asynq: asynq.NewClientFromRedisClient(c), inspector: asynq.NewInspectorFromRedisClient(c)}
	retried := make(chan int, 1)
	r.enqueue("a", asynq.Retention(time.Hour))
	r.lose("a")
	r.start(func(ctx context.Context, j tasks.Job, _ []byte) (any, error) {
		n, _ := asynq.GetRetryCount(ctx)
		retried <- n
		return "done", j.Save(ctx, struct{}{})
	})
	if n := receive(t, "the task", retried); n != 0 {
		t.Errorf("lost task came back with %d retries spent", n)
	}
	until(t, "completed", func() bool { return r.state("a") == asynq.TaskStateCompleted })
	if log := r.log.String(); !strings.Contains(log, "eviction policy of the queue Redis unknown") {
		t.Errorf("no warning in the log:\n%s", log)
	}
	if _, err := (Queues{App: app, Queue: c}).Prune(context.Background()); err != nil || r.state("a") != 0 {
		t.Errorf("pruned with %v, task is %v", err, r.state("a"))
	}
}

func TestConfig(t *testing.T) {
	var byDefault Config
	if err := envconfig.Process("STOKER", &byDefault); err != nil || byDefault.Validate() != nil || len(byDefault.Lanes) != len(tasks.Lanes()) {
		t.Errorf("defaults: %+v, %v, %v", byDefault, err, byDefault.Validate())
	}
	good := testConfig(tasks.Lanes()...)
	if err := good.Validate(); err != nil {
		t.Errorf("good configuration: %v", err)
	}
	for want, change := range map[string]func(*Config){
		`"warn"`:          func(c *Config) { c.Lanes = append(c.Lanes, "warn") },
		"no lanes":        func(c *Config) { c.Lanes = nil },
		"of lane warm":    func(c *Config) { c.WarmConcurrency = 0 },
		"of lane upkeep":  func(c *Config) { c.UpkeepConcurrency = 100_000 },
		"grace period 0s": func(c *Config) { c.GracePeriod = 0 },
	} {
		c := good
		c.Lanes = append([]tasks.Lane(nil), good.Lanes...)
		change(&c)
		if err := c.Validate(); !errors.Is(err, tasks.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that says %s", err, want)
		}
	}
	var named []tasks.Lane
	for _, l := range lanes {
		named = append(named, l.lane)
	}
	if diff := cmp.Diff(tasks.Lanes(), named); diff != "" {
		t.Errorf("lanes without a server (-want +got):\n%s", diff)
	}
	if _, err := New(good, Deps{App: app, Handlers: Handlers{"cache:warn": nil}}); !errors.Is(err, tasks.ErrInvalid) {
		t.Errorf("handler of an unknown type: %v", err)
	}
}

func TestCheckQueueRedis(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := newRig(t)
	for _, tt := range []struct {
		policy  string
		allow   bool
		refused bool
	}{
		{"noeviction", false, false},
		{"allkeys-lru", false, true},
		{"volatile-ttl", false, true},
		{"allkeys-lru", true, false},
	} {
		if err := r.redis.Client.ConfigSet(ctx, "maxmemory-policy", tt.policy).Err(); err != nil {
			t.Fatal(err)
		}
		err := CheckQueueRedis(ctx, r.redis.Client, tt.allow, r.logger())
		if errors.Is(err, tasks.ErrRefused) != tt.refused || !tt.refused && err != nil {
			t.Errorf("policy %s, allowed %v: %v", tt.policy, tt.allow, err)
		}
		if err != nil && !strings.Contains(err.Error(), tt.policy) {
			t.Errorf("%v does not name %s", err, tt.policy)
		}
	}
	if log := r.log.String(); !strings.Contains(log, "may evict") {
		t.Errorf("a risk that was taken is not in the log:\n%s", log)
	}
	// A server that withholds INFO is taken, with a warning.
	if err := r.redis.Client.Do(ctx, "acl", "setuser", "default", "-info").Err(); err != nil {
		t.Fatal(err)
	}
	if err := CheckQueueRedis(ctx, r.redis.Client, false, r.logger()); err != nil {
		t.Errorf("unknown policy: %v", err)
	}
	r.redis.Stop()
	if err := CheckQueueRedis(ctx, r.redis.Client, true, discard); err == nil {
		t.Error("a server that is down passed")
	}
}

// TestPause: a running warm yields when its lane is paused, keeps its cursor, and goes on when that is
// over, on its last try as well. Tasks of other lanes finish.
func TestPause(t *testing.T) {
	t.Parallel()
	for name, retries := range map[string]int{"some tries left": 3, "last try": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			begins, finish := make(chan int, 10), make(chan struct{})
			r.start(nil, func(c *Config, d *Deps) {
				c.Lanes = []tasks.Lane{tasks.LaneWarm}
				d.Handlers = Handlers{tasks.TypeWarmRun: sliced(begins, finish)}
			})
			warm := tasks.LaneWarm.Queue(app)
			if _, err := r.asynq.Enqueue(asynq.NewTask(tasks.TypeWarmRun, nil), asynq.Queue(warm), asynq.TaskID("run"), asynq.MaxRetry(retries), asynq.Timeout(time.Minute), asynq.Retention(time.Hour)); err != nil {
				t.Fatal(err)
			}
			for at := range 2 {
				if got := receive(t, "the handler", begins); got != at {
					t.Fatalf("began at %d, want %d", got, at)
				}
				begun := time.Now()
				if err := r.inspector.PauseQueue(warm); err != nil {
					t.Fatal(err)
				}
				cursor := tasks.KeysOf(app).Cursor("run")
				until(t, "cursor", func() bool {
					return r.redis.Client.Get(context.Background(), cursor).Val() == fmt.Sprintf(`{"v":1,"At":%d}`, at+1)
				})
				if took := time.Since(begun); took > time.Second {
					t.Errorf("stopped %v after the pause", took)
				}
				select {
				case got := <-begins:
					t.Errorf("began at %d although its lane is paused", got)
				case <-time.After(2 * pauseEvery):
				}
				if err := r.inspector.UnpauseQueue(warm); err != nil {
					t.Fatal(err)
				}
			}
			if got := receive(t, "the handler", begins); got != 2 {
				t.Errorf("began at %d, want 2", got)
			}
			close(finish)
			until(t, "completed", func() bool {
				info, err := r.inspector.GetTaskInfo(warm, "run")
				return err == nil && info.State == asynq.TaskStateCompleted && info.Retried == 0
			})
		})
	}
}
