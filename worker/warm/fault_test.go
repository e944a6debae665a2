package warm

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

var errFault = errors.New("injected fault")

// faults makes one call to Redis fail: before it reached the server (a lost write), or after (a
// lost reply).
type faults struct {
	mu    sync.Mutex
	on    bool
	calls int
	at    int
	lost  string // "write" or "reply"
	hit   bool
}

var _ redis.Hook = (*faults)(nil)

func (f *faults) arm(at int, lost string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.on, f.calls, f.at, f.lost, f.hit = true, 0, at, lost, false
}

// disarm reports whether a fault was injected.
func (f *faults) disarm() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.on = false
	return f.hit
}

func (f *faults) next() (before, after error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.on {
		return nil, nil
	}
	if f.calls++; f.calls != f.at {
		return nil, nil
	}
	f.hit = true
	if f.lost == "write" {
		return errFault, nil
	}
	return nil, errFault
}

func (f *faults) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (f *faults) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		before, after := f.next()
		if before != nil {
			cmd.SetErr(before)
			return before
		}
		err := next(ctx, cmd)
		if after != nil {
			cmd.SetErr(after)
			return after
		}
		return err
	}
}

func (f *faults) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		before, after := f.next()
		if before == nil {
			if err := next(ctx, cmds); err != nil {
				return err
			}
		}
		if err := errors.Join(before, after); err != nil {
			for _, cmd := range cmds {
				cmd.SetErr(err)
			}
			return err
		}
		return nil
	}
}

// TestFaults lets every single call to Redis fail once, both ways, tries again as asynq would,
// and holds the whole outcome against that of an undisturbed run.
func TestFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("a run for each call to Redis")
	}
	for _, lost := range []string{"write", "reply"} {
		t.Run("lost "+lost, func(t *testing.T) {
			t.Parallel()
			g := newRig(t)
			f := &faults{}
			g.client.AddHook(f)
			calls := 0
			for g.runWithFault(f, calls+1, lost) {
				calls++
			}
			if calls < 50 {
				t.Errorf("only %d calls failed", calls)
			}
			t.Logf("%d calls failed once each", calls)
		})
	}
}

// TestHotFaults does the same, at every few calls, to a run that has a hot list.
func TestHotFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("a run for every few calls to Redis")
	}
	const step = 7
	for _, lost := range []string{"write", "reply"} {
		t.Run("lost "+lost, func(t *testing.T) {
			t.Parallel()
			g := newRig(t)
			f := &faults{}
			g.client.AddHook(f)
			plan := g.hotPlan(logOf(accessLog(t, map[string]int{"/p7": 9, "/posts/a30": 8, "/p3": 7, "/posts/a200": 6})))
			for at := 1; ; at += step {
				g.reset()
				p := g.start("run1", "r1", plan)
				f.arm(at, lost)
				g.untilDone(p)
				hit := f.disarm()
				s := g.status("run1")
				if !hit {
					break
				}
				if s.Status == string(Fail) && s.Sources[1].Failed == 1 {
					continue // the site's own write failed
				}
				if f := s.Certificate.Figures; s.Status != string(Pass) || f.Stored != articles+pages+assets || g.entries("r1") != articles+pages+assets || s.Certificate.Hot.Coverage != 1 {
					t.Fatalf("lost %s at call %d: %+v, %+v", lost, at, s, s.Certificate)
				}
			}
		})
	}
}

// runWithFault does a whole run in which one call fails; false when there are fewer calls.
func (g *rig) runWithFault(f *faults, at int, lost string) bool {
	g.t.Helper()
	g.reset()
	p := g.start("run1", "r1", g.plan())
	f.arm(at, lost)
	g.untilDone(p)
	hit := f.disarm()
	// Where the site's own write failed, so did its page, and that is all.
	if s := g.status("run1"); hit && s.Status == string(Fail) && s.Sources[1].Failed == 1 {
		return true
	}
	g.checkWarm(g.status("run1"))
	if g.t.Failed() {
		g.t.Fatalf("lost %s at call %d", lost, at)
	}
	return hit
}

// untilDone does a whole run as a queue would: a task that fails is tried again under its ID.
func (g *rig) untilDone(p tasks.WarmRun) {
	g.t.Helper()
	try := func(work func() error) {
		g.t.Helper()
		for range 3 {
			err := work()
			if err == nil {
				return
			}
			if !errors.Is(err, errFault) {
				g.t.Fatal(err)
			}
		}
		g.t.Fatal("a task failed three times")
	}
	try(func() error {
		_, err := g.Run(g.t.Context(), g.jobs.job("run"), p)
		return err
	})
	for _, b := range g.tasks.batches() {
		try(func() error {
			_, err := g.Batch(g.t.Context(), g.jobs.job(BatchTaskID(b)), b)
			return err
		})
	}
}

// TestEnqueueFaults: a run whose enqueueing breaks off anywhere is resumed, and makes no batch
// twice.
func TestEnqueueFaults(t *testing.T) {
	g := newRig(t)
	for at := 1; at <= 5; at++ {
		for _, lost := range []string{"write", "reply"} {
			g.reset()
			start := g.tasks.calls
			g.tasks.broken = func(call int) (before, after error) {
				if call-start != at {
					return nil, nil
				}
				if lost == "write" {
					return errFault, nil
				}
				return nil, errFault
			}
			g.untilDone(g.start("run1", "r1", g.plan()))
			g.checkWarm(g.status("run1"))
		}
	}
}
