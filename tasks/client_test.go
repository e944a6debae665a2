package tasks_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

var (
	ctx = context.Background()
	ann = tasks.By{Actor: "ann", Reason: "test"}
	cfg = tasks.Config{App: "site", KeyTemplate: tasks.DefaultTemplate, FillLimit: 30 * time.Second, Release: "r1"}
)

// newClient returns a client pinned to r1, which is live, over a Redis of its own.
func newClient(t *testing.T) (*tasks.Client, redis.UniversalClient) {
	t.Helper()
	rdb := redistest.Start(t).Client
	if err := rdb.SAdd(ctx, cfg.Keys().Live(), "r1").Err(); err != nil {
		t.Fatal(err)
	}
	c, err := tasks.NewClientFrom(rdb, rdb, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, rdb
}

func key(name string) tasks.Invalidation {
	return tasks.Invalidation{Targets: []tasks.Target{{Kind: tasks.KindKey, Name: tasks.Bytes(name)}}, By: ann}
}

func TestInvalidateRecordsBeforeItReturns(t *testing.T) {
	c, rdb := newClient(t)
	receipt, err := c.Invalidate(ctx, key("post:1"))
	if err != nil {
		t.Fatal(err)
	}
	score, err := rdb.ZScore(ctx, cfg.Keys().Log(), "k:post:1").Result()
	if err != nil || int64(score) != receipt.Number {
		t.Errorf("log holds %v, %v, want number %d", score, err, receipt.Number)
	}
	if n := rdb.ZCard(ctx, cfg.Keys().Pending()).Val(); n != 1 {
		t.Errorf("%d records pending, want 1", n)
	}
	queued, err := asynq.NewInspectorFromRedisClient(rdb).ListPendingTasks("site.invalidate")
	if err != nil || len(queued) != 1 || queued[0].Timeout < time.Second || queued[0].MaxRetry < 3 {
		t.Errorf("queued %+v, %v, want one task with a timeout and retries", queued, err)
	}
}

func TestInvalidationsAreNumberedInOrder(t *testing.T) {
	c, _ := newClient(t)
	var last int64
	for i := range 50 {
		r, err := c.Invalidate(ctx, key(fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		if r.Number <= last {
			t.Fatalf("number %d after %d", r.Number, last)
		}
		last = r.Number
	}
}

func TestGroupCommitSharesRoundTrips(t *testing.T) {
	c, rdb := newClient(t)
	const callers, each = 64, 20
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for j := range each {
				if _, err := c.Invalidate(ctx, key(fmt.Sprintf("post:%d:%d", i, j))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := rdb.ZCard(ctx, cfg.Keys().Log()).Val(); n != callers*each {
		t.Errorf("%d targets in the log, want %d", n, callers*each)
	}
	if records := rdb.ZCard(ctx, cfg.Keys().Pending()).Val(); records >= callers*each {
		t.Errorf("%d records for %d calls: nothing was grouped", records, callers*each)
	}
}

func TestInvalidateRefusesBeforeItTouchesAnything(t *testing.T) {
	c, rdb := newClient(t)
	for name, call := range map[string]tasks.Invalidation{
		"no targets":      {By: ann},
		"an empty prefix": {Targets: []tasks.Target{{Kind: tasks.KindPrefix}}, By: ann},
		"no actor":        {Targets: []tasks.Target{{Kind: tasks.KindKey, Name: "a"}}},
	} {
		if _, err := c.Invalidate(ctx, call); !errors.Is(err, tasks.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
	if n := rdb.Exists(ctx, cfg.Keys().Log(), cfg.Keys().Pending()).Val(); n != 0 {
		t.Error("a refused call left something behind")
	}
}

func TestFetchLoadsOnceAndThenHits(t *testing.T) {
	c, rdb := newClient(t)
	loads := 0
	load := func(context.Context) ([]byte, error) { loads++; return []byte("hello\x00"), nil }
	for i, want := range []tasks.Fetched{{Stored: true}, {Hit: true}} {
		got, err := c.Fetch(ctx, "post:1", []string{"author:ann"}, time.Hour, load)
		if err != nil || string(got.Value) != "hello\x00" || got.Hit != want.Hit || got.Stored != want.Stored {
			t.Errorf("fetch %d: got %+v, %v", i, got, err)
		}
	}
	if loads != 1 {
		t.Errorf("%d loads, want 1", loads)
	}
	if ttl := rdb.PTTL(ctx, "site:r1:post:1").Val(); ttl < 59*time.Minute || ttl > time.Hour {
		t.Errorf("entry expires in %v, want an hour", ttl)
	}
	if n := rdb.ZCard(ctx, "site:r1:#tag:author:ann").Val(); n != 1 {
		t.Errorf("%d entries under the tag, want 1", n)
	}
	if n := rdb.Exists(ctx, "site:r1:#lease:post:1").Val(); n != 0 {
		t.Error("the lease was not given back")
	}
}

func TestFetchWithoutExpiry(t *testing.T) {
	c, rdb := newClient(t)
	if _, err := c.Fetch(ctx, "post:1", nil, 0, func(context.Context) ([]byte, error) { return []byte("v"), nil }); err != nil {
		t.Fatal(err)
	}
	if ttl := rdb.PTTL(ctx, "site:r1:post:1").Val(); ttl != -1 {
		t.Errorf("entry expires in %v, want never", ttl)
	}
}

// A load that an invalidation overtakes is returned but not kept, whatever the target's kind.
func TestFetchDropsWhatAnInvalidationOvertook(t *testing.T) {
	for _, target := range []tasks.Target{
		{Kind: tasks.KindKey, Name: "post:1"}, {Kind: tasks.KindTag, Name: "author:ann"}, {Kind: tasks.KindPrefix, Name: "po"},
	} {
		t.Run(string(target.Kind), func(t *testing.T) {
			c, rdb := newClient(t)
			got, err := c.Fetch(ctx, "post:1", []string{"author:ann"}, time.Hour, func(context.Context) ([]byte, error) {
				_, err := c.Invalidate(ctx, tasks.Invalidation{Targets: []tasks.Target{target}, By: ann})
				return []byte("old"), err
			})
			if err != nil || got.Stored || string(got.Value) != "old" {
				t.Errorf("got %+v, %v, want the value, not stored", got, err)
			}
			if n := rdb.Exists(ctx, "site:r1:post:1").Val(); n != 0 {
				t.Error("the overtaken value was kept")
			}
		})
	}
}

// While an invalidation is pending, what was read before it may still be on its way; marks lie
// below it, so a fill that began after it is not trusted either.
func TestFetchBelowAPendingInvalidationIsNotKept(t *testing.T) {
	c, _ := newClient(t)
	if _, err := c.Invalidate(ctx, key("post:1")); err != nil {
		t.Fatal(err)
	}
	got, err := c.Fetch(ctx, "post:1", nil, time.Hour, func(context.Context) ([]byte, error) { return []byte("v"), nil })
	if err != nil || got.Stored {
		t.Errorf("got %+v, %v, want a value that is not stored", got, err)
	}
}

func TestFetchStoresNothingInANamespaceThatIsNotLive(t *testing.T) {
	c, rdb := newClient(t)
	rdb.SRem(ctx, cfg.Keys().Live(), "r1")
	got, err := c.Fetch(ctx, "post:1", nil, time.Hour, func(context.Context) ([]byte, error) { return []byte("v"), nil })
	if err != nil || got.Stored || string(got.Value) != "v" {
		t.Errorf("got %+v, %v, want a value that is not stored", got, err)
	}
	if n := rdb.Exists(ctx, "site:r1:post:1").Val(); n != 0 {
		t.Error("a value was kept where no invalidation reaches it")
	}
}

// A filler that dies between put and check leaves a value that vanishes by itself.
func TestFetchPutsOnProbation(t *testing.T) {
	_, rdb := newClient(t)
	cut := &cutter{UniversalClient: rdb}
	c, err := tasks.NewClientFrom(cut, rdb, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := c.Fetch(ctx, "post:1", nil, time.Hour, func(context.Context) ([]byte, error) {
		cut.dead = true // from here on the queue Redis does not answer: no check
		return []byte("v"), nil
	})
	if err != nil || got.Stored {
		t.Fatalf("got %+v, %v", got, err)
	}
	if ttl := rdb.PTTL(ctx, "site:r1:post:1").Val(); ttl <= 0 || ttl > cfg.FillLimit {
		t.Errorf("an unchecked value lives for %v, want at most the fill limit", ttl)
	}
}

// cutter is a queue Redis that stops answering scripts.
type cutter struct {
	redis.UniversalClient
	dead bool
}

func (c *cutter) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	if c.dead {
		cmd := redis.NewCmd(ctx)
		cmd.SetErr(errors.New("connection reset"))
		return cmd
	}
	return c.UniversalClient.EvalSha(ctx, sha, keys, args...)
}

func TestFetchServesWithoutRedis(t *testing.T) {
	server := redistest.Start(t)
	c, err := tasks.NewClientFrom(server.Client, server.Client, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	server.Kill()
	got, err := c.Fetch(ctx, "post:1", nil, time.Hour, func(context.Context) ([]byte, error) { return []byte("v"), nil })
	if err != nil || string(got.Value) != "v" {
		t.Errorf("got %+v, %v, want the loaded value", got, err)
	}
}

func TestOneLoaderAtATime(t *testing.T) {
	c, _ := newClient(t)
	var mu sync.Mutex
	loads := 0
	inside := make(chan struct{})
	load := func(context.Context) ([]byte, error) {
		mu.Lock()
		loads++
		mu.Unlock()
		<-inside
		return []byte("v"), nil
	}
	const readers = 20
	var wg sync.WaitGroup
	started := make(chan struct{}, readers)
	for range readers {
		wg.Go(func() {
			started <- struct{}{}
			if got, err := c.Fetch(ctx, "post:1", nil, time.Hour, load); err != nil || string(got.Value) != "v" {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	for range readers {
		<-started
	}
	close(inside)
	wg.Wait()
	if loads > readers/2 {
		t.Errorf("%d loads for %d readers of one missing entry", loads, readers)
	}
}

func TestClientFollowsTheActiveRelease(t *testing.T) {
	rdb := redistest.Start(t).Client
	follow := cfg
	follow.Release = ""
	c, err := tasks.NewClientFrom(rdb, rdb, follow)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Release(ctx); !errors.Is(err, tasks.ErrNoRelease) {
		t.Errorf("before the first activation: got %v, want ErrNoRelease", err)
	}
	rdb.Set(ctx, cfg.Keys().Active(), "r1", 0)
	if id, err := c.Release(ctx); err != nil || id != "r1" {
		t.Fatalf("got %q, %v, want r1", id, err)
	}
	redistest.Eventually(t, "the subscription", func() bool {
		return rdb.PubSubNumSub(ctx, cfg.Keys().ActiveChannel()).Val()[cfg.Keys().ActiveChannel()] > 0
	})
	rdb.Publish(ctx, cfg.Keys().ActiveChannel(), "r2")
	redistest.Eventually(t, "the message", func() bool {
		id, _ := c.Release(ctx)
		return id == "r2"
	})
}

func TestEnqueueIsIdempotentByID(t *testing.T) {
	c, rdb := newClient(t)
	for range 2 {
		if _, err := c.Enqueue(ctx, tasks.Health{By: ann}, asynq.TaskID("tick-1")); err != nil {
			t.Fatal(err)
		}
	}
	if q, err := asynq.NewInspectorFromRedisClient(rdb).GetQueueInfo("site.health"); err != nil || q.Size != 1 {
		t.Errorf("queue %+v, %v, want one task", q, err)
	}
}

func TestConnectNeverShowsAPassword(t *testing.T) {
	for _, url := range []string{"redis://ann:s3cret@host:port/0", "s3cret@host", "http://ann:s3cret@host/", "redis://:s3cret@h:6379/notanumber", "redis://ann:s3cret:x@h y/0", "redis://ann:s3c%ret@h/0", "redis-sentinel://h/0?password=s3cret&master_name=m&db=x"} {
		_, err := tasks.Connect("STOKER_REDIS_URL", url)
		if !errors.Is(err, tasks.ErrInvalid) {
			t.Errorf("%q: got %v, want ErrInvalid", url, err)
		} else if msg := err.Error(); strings.Contains(msg, "s3c") {
			t.Errorf("%q: the error shows the password: %s", url, msg)
		}
	}
}
