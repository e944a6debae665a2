package redistest_test

import (
	"context"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

func TestGroupFailsOver(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	g := redistest.StartGroup(t, 1)
	client, err := tasks.Connect("STOKER_REDIS_URL", g.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Set(ctx, "k", "kept", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if n, err := g.Primary.Client.Wait(ctx, 1, 0).Result(); err != nil || n != 1 {
		t.Fatalf("%d replicas, %v", n, err)
	}
	if s := g.Failover(t); s != g.Replicas[0] {
		t.Errorf("promoted %s, want the replica", s.Addr)
	}
	redistest.Eventually(t, "the client to find the new primary", func() bool {
		return client.Set(ctx, "after", "1", 0).Err() == nil
	})
	if got := client.Get(ctx, "k").Val(); got != "kept" {
		t.Errorf("after the failover k = %q", got)
	}
}

func TestReplacedServerIsEmpty(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	if err := s.Client.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	s.Replace()
	if n, err := s.Client.DBSize(ctx).Result(); err != nil || n != 0 {
		t.Errorf("%d keys, %v; want none", n, err)
	}
}

func TestProxyLosesWhatItIsTold(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := redistest.Start(t)
	p := redistest.StartProxy(t, s)
	client := redis.NewClient(&redis.Options{Addr: p.Addr, MaxRetries: -1})
	defer client.Close()
	for _, c := range []struct {
		way  redistest.Way
		want int64 // how often INCR was carried out, of one
	}{{redistest.Requests, 0}, {redistest.Replies, 1}} {
		s.Client.Del(ctx, "n")
		if err := client.Ping(ctx).Err(); err != nil {
			t.Fatal(err)
		}
		p.Cut(c.way)
		if err := client.Incr(ctx, "n").Err(); err == nil {
			t.Errorf("%s: no error", c.way)
		}
		p.Heal()
		if n, _ := s.Client.Get(ctx, "n").Int64(); n != c.want {
			t.Errorf("%s were cut: carried out %d times, want %d", c.way, n, c.want)
		}
		redistest.Eventually(t, "new connections", func() bool { return client.Ping(ctx).Err() == nil })
	}
}
