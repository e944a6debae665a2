package invalidation_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"golang.org/x/time/rate"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/redistest"
)

// The peers: stoker with a worker, and plain asynq with one task a key. Both remove a key from
// two namespaces of a real Redis on loopback.
type peer struct {
	name string
	// invalidate announces keys; it returns when they are durable.
	invalidate func(ctx context.Context, keys ...string) error
	// settle returns when everything announced is removed.
	settle func()
}

var live = []string{"r1", "r2"}

func benchRedis(b *testing.B) *redis.Client {
	b.Helper()
	return redistest.Start(b).Client
}

func stokerPeer(b *testing.B) (peer, *redis.Client) {
	b.Helper()
	rdb := benchRedis(b)
	ctx := context.Background()
	cfg := tasks.Config{App: "site", KeyTemplate: tasks.DefaultTemplate, FillLimit: 30 * time.Second, Release: "r1"}
	rdb.SAdd(ctx, cfg.Keys().Live(), "r1", "r2")
	tmpl, err := cfg.Template()
	if err != nil {
		b.Fatal(err)
	}
	client, err := tasks.NewClientFrom(rdb, rdb, cfg)
	if err != nil {
		b.Fatal(err)
	}
	log := invalidation.Open(rdb, cfg.Keys(), invalidation.Config{FillLimit: cfg.FillLimit})
	applier := invalidation.NewApplier(log, rdb, tmpl, func(context.Context) ([]string, error) { return live, nil }, namespace.New(rdb, tmpl, cfg.Keys(), nil))
	w, err := worker.New(worker.Config{
		Lanes: tasks.Lanes(), InvalidateConcurrency: 8, BulkConcurrency: 1, ReleaseConcurrency: 1, RefreshConcurrency: 1, WarmConcurrency: 1,
		UpkeepConcurrency: 1, HealthConcurrency: 1, NotifyConcurrency: 1, GracePeriod: time.Second,
	}, worker.Deps{
		App: "site", Queue: rdb, Dial: func() (redis.UniversalClient, error) {
			return redis.NewClient(&redis.Options{Addr: rdb.Options().Addr}), nil
		},
		Handlers: worker.Handlers{tasks.TypeInvalidate: worker.Invalidate(applier), tasks.TypeInvalidateBulk: worker.InvalidateBulk(applier)}, Applier: applier,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err == nil {
		err = w.Start(ctx)
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { w.Stop(); client.Close() })
	return peer{
		name: "stoker",
		invalidate: func(ctx context.Context, keys ...string) error {
			call := tasks.Invalidation{By: tasks.By{Actor: "bench"}}
			for _, k := range keys {
				call.Targets = append(call.Targets, tasks.Target{Kind: tasks.KindKey, Name: tasks.Bytes(k)})
			}
			_, err := client.Invalidate(ctx, call)
			return err
		},
		settle: func() {
			for rdb.ZCard(ctx, cfg.Keys().Pending()).Val() > 0 {
				time.Sleep(time.Millisecond)
			}
		},
	}, rdb
}

func asynqPeer(b *testing.B) (peer, *redis.Client) {
	b.Helper()
	rdb := benchRedis(b)
	client := asynq.NewClientFromRedisClient(rdb)
	var announced, removed atomic.Int64
	server := asynq.NewServerFromRedisClient(redis.NewClient(&redis.Options{Addr: rdb.Options().Addr}), asynq.Config{Concurrency: 8, LogLevel: asynq.FatalLevel})
	err := server.Start(asynq.HandlerFunc(func(ctx context.Context, t *asynq.Task) error {
		for _, release := range live {
			if err := rdb.Unlink(ctx, "site:"+release+":"+string(t.Payload())).Err(); err != nil {
				return err
			}
		}
		removed.Add(1)
		return nil
	}))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(server.Shutdown)
	return peer{
		name: "asynq",
		invalidate: func(ctx context.Context, keys ...string) error {
			for _, k := range keys {
				if _, err := client.EnqueueContext(ctx, asynq.NewTask("del", []byte(k))); err != nil {
					return err
				}
				announced.Add(1)
			}
			return nil
		},
		settle: func() {
			for removed.Load() < announced.Load() {
				time.Sleep(time.Millisecond)
			}
		},
	}, rdb
}

// BenchmarkCallToGone: from the call to the key's absence in both namespaces, nothing else going
// on.
func BenchmarkCallToGone(b *testing.B) {
	for _, make := range []func(*testing.B) (peer, *redis.Client){stokerPeer, asynqPeer} {
		p, rdb := make(b)
		b.Run(p.name, func(b *testing.B) {
			ctx := context.Background()
			h := hdrhistogram.New(1, time.Minute.Microseconds(), 3)
			const calls = 100
			for b.Loop() {
				for range calls {
					rdb.MSet(ctx, "site:r1:a", "v", "site:r2:a", "v")
					began := time.Now()
					if err := p.invalidate(ctx, "a"); err != nil {
						b.Fatal(err)
					}
					for rdb.Exists(ctx, "site:r1:a", "site:r2:a").Val() > 0 {
					}
					if err := h.RecordValue(time.Since(began).Microseconds()); err != nil {
						b.Fatal(err)
					}
					if p.name == "asynq" && h.TotalCount() >= 10 {
						break // a second each
					}
				}
			}
			b.ReportMetric(float64(h.ValueAtQuantile(50))/1000, "p50-ms")
			b.ReportMetric(float64(h.ValueAtQuantile(99))/1000, "p99-ms")
		})
	}
}

// BenchmarkCalls: calls a second, recorded durably and removed from both namespaces.
func BenchmarkCalls(b *testing.B) {
	for _, c := range []struct{ callers, targets, calls int }{{64, 1, 20_000}, {512, 1, 50_000}, {8, 1000, 200}} {
		rate := map[string]float64{}
		for _, make := range []func(*testing.B) (peer, *redis.Client){stokerPeer, asynqPeer} {
			p, _ := make(b)
			b.Run(fmt.Sprintf("callers=%d/targets=%d/%s", c.callers, c.targets, p.name), func(b *testing.B) {
				calls := c.calls
				if p.name == "asynq" {
					calls = min(calls, 8_000/c.targets) // enough to know its rate
				}
				var done time.Duration
				total := 0
				for b.Loop() {
					began := time.Now()
					flood(b, p, c.callers, calls, c.targets)
					p.settle()
					done += time.Since(began)
					total += calls * c.targets
				}
				rate[p.name] = float64(total) / done.Seconds()
				b.ReportMetric(rate[p.name], "targets/s")
				if p.name == "asynq" {
					b.ReportMetric(rate["stoker"]/rate["asynq"], "stoker/asynq")
				}
			})
		}
	}
}

// BenchmarkHalfLoad: from the call to the key's absence in both namespaces, while 64 callers keep
// half of the rate that they reached just before.
func BenchmarkHalfLoad(b *testing.B) {
	p, rdb := stokerPeer(b)
	const callers, calls, probes = 64, 20_000, 200
	began := time.Now()
	flood(b, p, callers, calls, 1)
	p.settle()
	top := float64(calls) / time.Since(began).Seconds()
	load, stop := context.WithCancel(context.Background())
	limit := rate.NewLimiter(rate.Limit(top/2), callers)
	var wg sync.WaitGroup
	var made atomic.Int64
	for range callers {
		wg.Go(func() {
			for limit.Wait(load) == nil {
				if err := p.invalidate(context.Background(), fmt.Sprintf("post:%d", made.Add(1))); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	h := hdrhistogram.New(1, time.Minute.Microseconds(), 3)
	began = time.Now()
	for b.Loop() {
		for range probes {
			rdb.MSet(load, "site:r1:a", "v", "site:r2:a", "v")
			called := time.Now()
			if err := p.invalidate(load, "a"); err != nil {
				b.Fatal(err)
			}
			for rdb.Exists(load, "site:r1:a", "site:r2:a").Val() > 0 {
			}
			if err := h.RecordValue(time.Since(called).Microseconds()); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(made.Load())/time.Since(began).Seconds(), "load/s")
	stop()
	wg.Wait()
	b.ReportMetric(top, "top/s")
	b.ReportMetric(float64(h.ValueAtQuantile(50))/1000, "p50-ms")
	b.ReportMetric(float64(h.ValueAtQuantile(99))/1000, "p99-ms")
}

// BenchmarkIdle: what a worker with nothing to do costs the queue Redis.
func BenchmarkIdle(b *testing.B) {
	_, rdb := stokerPeer(b)
	processed := func() float64 {
		_, after, _ := strings.Cut(rdb.Info(context.Background(), "stats").Val(), "total_commands_processed:")
		n, err := strconv.ParseFloat(strings.TrimSpace(strings.SplitN(after, "\n", 2)[0]), 64)
		if err != nil {
			b.Fatal(err)
		}
		return n
	}
	rate := 0.0
	for b.Loop() {
		before, began := processed(), time.Now()
		<-time.After(3 * time.Second)
		rate = (processed() - before) / time.Since(began).Seconds()
	}
	b.ReportMetric(rate, "commands/s")
}

// flood makes calls from many goroutines, each call with keys of its own.
func flood(b *testing.B, p peer, callers, calls, targets int) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			keys := make([]string, targets)
			for {
				n := int(next.Add(1)) - 1
				if n >= calls {
					return
				}
				for i := range keys {
					keys[i] = fmt.Sprintf("post:%d", n*targets+i)
				}
				if err := p.invalidate(context.Background(), keys...); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkLogSize: bytes of the log for each distinct target.
func BenchmarkLogSize(b *testing.B) {
	p, rdb := stokerPeer(b)
	const targets = 100_000
	for b.Loop() {
		flood(b, p, 8, targets/1000, 1000)
	}
	p.settle()
	key := tasks.KeysOf("site").Log()
	ctx := context.Background()
	bytes := rdb.MemoryUsage(ctx, key).Val()
	b.ReportMetric(float64(bytes)/float64(rdb.ZCard(ctx, key).Val()), "bytes/target")
}
