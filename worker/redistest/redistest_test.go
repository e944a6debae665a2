package redistest_test

import (
	"context"
	"testing"

	"github.com/alphanode/stoker/worker/redistest"
)

func TestServerKeepsItsAddressAndData(t *testing.T) {
	ctx := context.Background()
	s := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	for _, down := range []struct {
		name string
		do   func()
	}{{"stop", s.Stop}, {"kill", s.Kill}, {"restart while up", func() {}}} {
		if err := s.Client.Set(ctx, down.name, "kept", 0).Err(); err != nil {
			t.Fatalf("set before %s: %v", down.name, err)
		}
		down.do()
		s.Restart()
		if got, err := s.Client.Get(ctx, down.name).Result(); err != nil || got != "kept" {
			t.Errorf("after %s: got %q, %v; want the value kept in the AOF", down.name, got, err)
		}
	}
	s.Stop()
	s.Stop() // a second stop is nothing
	if err := s.Client.Ping(ctx).Err(); err == nil {
		t.Error("a stopped server still answers")
	}
}

func TestDefaultsPersistNothing(t *testing.T) {
	ctx := context.Background()
	s := redistest.Start(t)
	if err := s.Client.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	s.Restart()
	if n, err := s.Client.DBSize(ctx).Result(); err != nil || n != 0 {
		t.Errorf("after a restart: %d keys, %v; want none", n, err)
	}
}

func TestServersAreApart(t *testing.T) {
	a, b := redistest.Start(t), redistest.Start(t)
	if a.Addr == b.Addr {
		t.Fatalf("two servers share %s", a.Addr)
	}
}

func TestMini(t *testing.T) {
	c := redistest.Mini(t)
	if got, err := c.Ping(context.Background()).Result(); err != nil || got != "PONG" {
		t.Fatalf("got %q, %v; want PONG", got, err)
	}
}
