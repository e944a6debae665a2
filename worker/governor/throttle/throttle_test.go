package throttle

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/governor"
	"github.com/alphanode/stoker/worker/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, d Deps) *Throttle {
	t.Helper()
	if d.Config.Pace == "" {
		d.Config = governor.Config{Pace: tasks.PaceNormal, MemoryHeadroom: 0.1}
	}
	th := New(d)
	t.Cleanup(th.Close)
	return th
}

// slice makes a slice that says it took so long.
func slice(t *testing.T, p *Pacer, took time.Duration) {
	t.Helper()
	if err := p.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.Done(took, 100)
}

var (
	reading = Work{Verb: "read"}
	copying = Work{Verb: "copy", Adds: true}
)

// TestWorksOfAPaceShareItsTime: four works at normal together take a third of the time, and each of
// their calls waits for the pause after the call before it.
func TestWorksOfAPaceShareItsTime(t *testing.T) {
	th := open(t, Deps{Cache: redistest.Mini(t)})
	const slices, took = 10, time.Millisecond
	begun := time.Now()
	var works sync.WaitGroup
	for range 4 {
		ctx := With(t.Context(), NewTask("", false))
		works.Go(func() {
			for range slices {
				slice(t, th.Pacer(ctx, reading), took)
			}
		})
	}
	works.Wait()
	// The first of each is free; the others cannot begin before what was taken is a third.
	if least := (4*slices - 8) * took * 10 / 3; time.Since(begun) < least {
		t.Errorf("%d slices of %v were over in %v, want %v at least", 4*slices, took, time.Since(begun), least)
	}
	figures := th.Report().Works
	if len(figures) != 1 || figures[0].Slices != 4*slices || figures[0].Pace != tasks.PaceNormal || figures[0].Items != 4*slices*100 || figures[0].Paused < 0.05 {
		t.Errorf("figures %+v", figures)
	}
}

// TestFullDoesNotWaitForNormal: a work at full never waits for the pauses of one at normal.
func TestFullDoesNotWaitForNormal(t *testing.T) {
	th := open(t, Deps{Cache: redistest.Mini(t)})
	normal := th.Pacer(t.Context(), reading)
	slice(t, normal, time.Hour) // its next one waits for seconds
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	full := th.Pacer(With(ctx, NewTask(tasks.PaceFull, false)), reading)
	for range 100 {
		if err := full.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		full.Done(time.Microsecond, 100)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if err := normal.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a wait whose context has ended: %v", err)
	}
}

// TestTaskKeepsItsSizes: the next call of a task begins with the size that the last one came to, and
// another kind of slices with its own.
func TestTaskKeepsItsSizes(t *testing.T) {
	th := open(t, Deps{Cache: redistest.Mini(t)})
	ctx := With(t.Context(), NewTask(tasks.PaceFull, false))
	for range 5 {
		slice(t, th.Pacer(ctx, reading), time.Microsecond)
	}
	if got := th.Pacer(ctx, reading).Size(); got <= governor.Start {
		t.Errorf("after five fast slices the next call begins with %d items", got)
	}
	for name, p := range map[string]*Pacer{"another kind": th.Pacer(ctx, copying), "another task": th.Pacer(t.Context(), reading)} {
		if got := p.Size(); got != governor.Start {
			t.Errorf("%s begins with %d items, want %d", name, got, governor.Start)
		}
	}
	Of(ctx).SetPace(tasks.PaceGentle)
	if p := th.Pacer(ctx, reading); p.pace != tasks.PaceGentle || p.Size() != governor.Start {
		t.Errorf("after the pace was changed: %s, %d items", p.pace, p.Size())
	}
}

// fill puts 18 MB into a server that is allowed 20. (It makes them itself: what is on its way to it
// takes memory too.)
func fill(t *testing.T, s *redistest.Server) {
	t.Helper()
	if err := s.Client.Eval(t.Context(), `for i = 1, 180 do redis.call('SET', 'large' .. i, string.rep('x', 100000)) end`, nil).Err(); err != nil && !errors.Is(err, redis.Nil) {
		t.Fatal(err)
	}
}

func TestWorkThatAddsEndsBeforeTheServerIsFull(t *testing.T) {
	s := redistest.Start(t, "--maxmemory", "20mb")
	th := open(t, Deps{Cache: s.Client})
	ctx := With(t.Context(), NewTask(tasks.PaceFull, false))
	adds, frees := th.Pacer(ctx, copying), th.Pacer(ctx, Work{Verb: "delete"})
	slice(t, adds, time.Microsecond)
	fill(t, s)
	var err error
	redistest.Eventually(t, "a refusal", func() bool {
		if err = adds.Wait(t.Context()); err == nil {
			adds.Done(time.Microsecond, 100)
		}
		return err != nil
	})
	if !errors.Is(err, tasks.ErrRefused) || !strings.Contains(err.Error(), "STOKER_MEMORY_HEADROOM") {
		t.Errorf("got %v", err)
	}
	if _, b := Of(ctx).Pace(); b.Why != governor.Full {
		t.Errorf("the task is braked by %+v", b)
	}
	slice(t, frees, time.Microsecond)
	if err := s.Client.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	redistest.Eventually(t, "room again", func() bool { return adds.Wait(t.Context()) == nil })
	adds.Done(time.Microsecond, 100)
}

// TestFirstSliceKnowsTheMemory: work that adds does not begin before the server's memory is known.
func TestFirstSliceKnowsTheMemory(t *testing.T) {
	s := redistest.Start(t, "--maxmemory", "20mb")
	fill(t, s)
	if err := open(t, Deps{Cache: s.Client}).Pacer(t.Context(), copying).Wait(t.Context()); !errors.Is(err, tasks.ErrRefused) {
		t.Errorf("got %v", err)
	}
	blind := open(t, Deps{Cache: s.Client, Config: governor.Config{Pace: tasks.PaceNormal}})
	if err := blind.Pacer(t.Context(), copying).Wait(t.Context()); err != nil {
		t.Errorf("without a headroom: %v", err)
	}
}

// TestEachServerIsItsOwn: of two servers one is full; work on the other goes on, work on both ends.
func TestEachServerIsItsOwn(t *testing.T) {
	full, other := redistest.Start(t, "--maxmemory", "20mb"), redistest.Start(t, "--maxmemory", "20mb")
	fill(t, full)
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": full.Addr, "b": other.Addr}})
	defer ring.Close()
	th := open(t, Deps{Cache: ring})
	for node, refused := range map[string]bool{full.Addr: true, other.Addr: false, "": true, "127.0.0.1:1": true} {
		p := th.Pacer(t.Context(), Work{Verb: "copy", Adds: true, Node: node})
		if err := p.Wait(t.Context()); errors.Is(err, tasks.ErrRefused) != refused || err != nil && !refused {
			t.Errorf("work on %q: %v", node, err)
		}
	}
	if r := th.Report(); len(r.Servers) != 2 || r.Servers[0].Limit != 20<<20 {
		t.Errorf("servers %+v", r.Servers)
	}
	all, err := Memory(t.Context(), ring)
	if err != nil || len(all) != 2 {
		t.Errorf("memory %+v, %v", all, err)
	}
}

// TestSlowServerBrakes: what others do to the server slows the work down, until they have done.
func TestSlowServerBrakes(t *testing.T) {
	s := redistest.Start(t)
	th := open(t, Deps{Cache: s.Client})
	ctx := With(t.Context(), NewTask("", false))
	p := th.Pacer(ctx, reading)
	braked := func() bool {
		slice(t, p, 100*time.Microsecond)
		_, b := Of(ctx).Pace()
		return b.Why == governor.Latency && b.Factor > 1
	}
	slice(t, p, 100*time.Microsecond)
	redistest.Eventually(t, "the idle round trips", func() bool { return len(th.Report().Servers) == 1 })
	busy, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-busy:
				return
			default:
				s.Client.Eval(context.Background(), `local t = redis.call('TIME') while true do local n = redis.call('TIME') if (n[1] - t[1]) * 1000000 + n[2] - t[2] > 20000 then return 1 end end`, nil)
			}
		}
	}()
	redistest.Eventually(t, "the brake", braked)
	close(busy)
	<-done
	redistest.Eventually(t, "its end", func() bool { return !braked() })
	if got := th.Report().Works[0].Braked[governor.Latency]; got == 0 {
		t.Error("no slice counts as braked")
	}
}

// TestWhoWaitsBrakes: pending invalidations slow work down that is not urgent.
func TestWhoWaitsBrakes(t *testing.T) {
	var fails atomic.Bool
	th := open(t, Deps{Cache: redistest.Mini(t), Waiting: func(context.Context) (int, error) {
		if fails.Load() {
			return 0, errors.New("no answer")
		}
		return 500, nil
	}})
	plain, urgent := With(t.Context(), NewTask("", false)), With(t.Context(), NewTask("", true))
	braked := func(ctx context.Context) governor.Reason {
		slice(t, th.Pacer(ctx, reading), time.Microsecond)
		_, b := Of(ctx).Pace()
		return b.Why
	}
	redistest.Eventually(t, "the brake", func() bool { return braked(plain) == governor.Queue })
	fails.Store(true)
	for range 10 {
		if why := braked(plain); why != governor.Queue {
			t.Fatalf("braked by %q once the queue did not answer", why)
		}
	}
	if why := braked(urgent); why == governor.Queue {
		t.Error("urgent work is braked by those who wait")
	}
}

// TestFailuresRest: a slice that failed keeps its own work waiting and no other.
func TestFailuresRest(t *testing.T) {
	th := open(t, Deps{Cache: redistest.Mini(t)})
	fails, other := With(t.Context(), NewTask("", false)), With(t.Context(), NewTask("", false))
	p := th.Pacer(fails, reading)
	slice(t, p, 0)
	for range 8 {
		p.Done(0, 0)
	}
	ctx, cancel := context.WithTimeout(other, 4*time.Second)
	defer cancel()
	if err := th.Pacer(ctx, reading).Wait(ctx); err != nil {
		t.Errorf("another work waits as well: %v", err)
	}
	if rest := time.Until(p.flow.rest); rest < 4*time.Second {
		t.Errorf("after eight failures the next slice may begin in %v", rest)
	}
}

// TestSamplingEndsByItself: without work nothing is sampled; the next work begins it again.
func TestSamplingEndsByItself(t *testing.T) {
	th := open(t, Deps{Cache: redistest.Mini(t)})
	sampled := func() bool {
		th.mu.Lock()
		defer th.mu.Unlock()
		th.used = th.used.Add(-linger) // as if it had been so long
		return th.now != nil
	}
	slice(t, th.Pacer(t.Context(), reading), time.Microsecond)
	redistest.Eventually(t, "its end", func() bool { return !sampled() })
	slice(t, th.Pacer(t.Context(), reading), time.Microsecond)
	if !sampled() {
		t.Error("nothing is sampled while work is under way")
	}
	th.Close()
	if err := th.Pacer(t.Context(), copying).Wait(t.Context()); err != nil {
		t.Errorf("after Close: %v", err)
	}
}

// TestServerThatDoesNotAnswer: work goes on without readings, after a moment.
func TestServerThatDoesNotAnswer(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1})
	defer client.Close()
	th := open(t, Deps{Cache: client})
	if err := th.Pacer(t.Context(), copying).Wait(t.Context()); err != nil {
		t.Errorf("got %v", err)
	}
	if _, err := Memory(t.Context(), client); err == nil {
		t.Error("the memory of a server that is not there")
	}
}
