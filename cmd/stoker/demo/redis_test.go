package demo

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

func start(t *testing.T, wantKind string) *redis.Client {
	t.Helper()
	url, kind, stop, err := StartRedis(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	if kind != wantKind {
		t.Fatalf("started %q, want %q", kind, wantKind)
	}
	opts, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(opts)
	t.Cleanup(func() { client.Close() })
	return client
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("still not so: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestEmbeddedRedisKeepsTime(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	client := start(t, EmbeddedRedis)
	if err := client.Set(t.Context(), "k", "v", 3*clockStep).Err(); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(time.Minute).UnixMilli()
	if err := client.Do(t.Context(), "SET", "exact", "v", "PXAT", at).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the key has expired", func() bool {
		if got := client.Do(t.Context(), "PEXPIRETIME", "exact").Val(); got != at {
			t.Fatalf("an expiry of %d reads back as %v", at, got)
		}
		return client.Exists(t.Context(), "k").Val() == 0
	})
}

func TestRealRedis(t *testing.T) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("no redis-server on the PATH")
	}
	url, kind, stop, err := StartRedis(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	client, err := tasks.Connect("test", url)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	policy, err := client.ConfigGet(t.Context(), "maxmemory-policy").Result()
	if err != nil || policy["maxmemory-policy"] != "noeviction" || kind != RealRedis {
		t.Errorf("kind %q, policy %v, %v", kind, policy, err)
	}
	stop()
	if err := client.Ping(t.Context()).Err(); err == nil {
		t.Error("it still answers after its stop")
	}
}

func TestRealRedisThatWillNotStart(t *testing.T) {
	_, _, err := startServer(t.Context(), "false", t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "it ended") {
		t.Errorf("got %v", err)
	}
}

func TestPlainCache(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	ctx := t.Context()
	client := start(t, EmbeddedRedis)
	if err := client.Set(ctx, "neighbour", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	p := NewPlain(client)
	load := func(context.Context) ([]byte, error) { return []byte("v"), nil }
	for i, want := range []bool{false, true} {
		value, hit, err := p.Fetch(ctx, "page:/a", nil, time.Hour, load)
		if err != nil || hit != want || string(value) != "v" {
			t.Errorf("fetch %d: %q, hit %v, %v", i, value, hit, err)
		}
	}
	if _, _, err := p.Fetch(ctx, "page:/none", nil, time.Hour, func(context.Context) ([]byte, error) { return nil, errAbsent }); err == nil {
		t.Error("the load's error is lost")
	}
	if _, _, err := p.Fetch(ctx, "nav:tags", nil, time.Hour, load); err != nil {
		t.Fatal(err)
	}
	count := func(want int64) {
		t.Helper()
		if n, err := p.Count(ctx); err != nil || n != want {
			t.Errorf("%d entries, %v; want %d", n, err, want)
		}
	}
	count(2)
	if _, err := p.Invalidate(ctx, []string{"post:a", "latest"}, ""); err != nil {
		t.Fatal(err)
	}
	count(1)
	d := plainDeploy{cache: p}
	if _, err := d.active(ctx); err == nil {
		t.Error("a release is active before the first deploy")
	}
	if _, err := d.deploy(ctx, "r2"); err != nil {
		t.Fatal(err)
	}
	if id, err := d.active(ctx); id != "r2" || err != nil {
		t.Errorf("active %q, %v", id, err)
	}
	count(0)
	if n := client.DBSize(ctx).Val(); n != 1 {
		t.Errorf("%d keys after the flush, want the neighbour alone", n)
	}
}
