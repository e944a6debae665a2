package redistest_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

func TestClusterServesAndMovesASlot(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	c := redistest.StartCluster(t, 3, 0, "--requirepass", "s3cret")
	client, err := tasks.Connect("STOKER_CACHE_URL", c.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	owners := map[*redistest.Server]bool{}
	for i := range 100 {
		key := fmt.Sprint("k", i)
		if err := client.Set(ctx, key, i, 0).Err(); err != nil {
			t.Fatal(err)
		}
		owners[c.Owner(key)] = true
	}
	if len(owners) != 3 || len(c.Primaries()) != 3 {
		t.Errorf("%d of %d primaries own one of 100 keys, want 3 of 3", len(owners), len(c.Primaries()))
	}

	for i := range 150 {
		if err := c.Client.Set(ctx, fmt.Sprintf("{tag}%d", i), i, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	from, to := c.Owner("{tag}"), c.AddPrimary()
	m := c.StartMove(c.Slot("{tag}"), to)
	if n := m.Keys(20); n != 20 {
		t.Errorf("moved %d keys, want 20", n)
	}
	in := func(s *redistest.Server) int64 { return s.Client.ClusterCountKeysInSlot(ctx, m.Slot).Val() }
	if a, b := in(from), in(to); a != 130 || b != 20 {
		t.Errorf("half way: %d keys at the source, %d at the target; want 130, 20", a, b)
	}
	if n := m.Keys(-1); n != 130 {
		t.Errorf("moved the last %d keys, want 130", n)
	}
	m.Finish()
	if s := c.Owner("{tag}"); s != to {
		t.Errorf("%s owns the slot, want %s", s.Addr, to.Addr)
	}
	for i := range 150 {
		if got, err := c.Client.Get(ctx, fmt.Sprintf("{tag}%d", i)).Int(); err != nil || got != i {
			t.Fatalf("key %d: got %d, %v", i, got, err)
		}
	}
}

func TestClusterFailsOver(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	c := redistest.StartCluster(t, 3, 1)
	for i := range 100 {
		if err := c.Client.Set(ctx, fmt.Sprint("k", i), i, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string, old, heir *redistest.Server) {
		t.Helper()
		if heir == old || c.Owner("k1") != heir {
			t.Errorf("%s: %s owns the key, want %s", what, c.Owner("k1").Addr, heir.Addr)
		}
		for i := range 100 {
			redistest.Eventually(t, "the client to find its way", func() bool { return c.Client.Get(ctx, fmt.Sprint("k", i)).Val() == fmt.Sprint(i) })
		}
	}
	first := c.Owner("k1")
	if n, err := first.Client.Wait(ctx, 1, 0).Result(); err != nil || n != 1 {
		t.Fatalf("%d replicas, %v", n, err)
	}
	second := c.Promote(first)
	check("promoted", first, second)
	if third := c.KillPrimary(second); third != first {
		t.Errorf("%s was promoted, want the old primary %s", third.Addr, first.Addr)
	}
	check("killed", second, first)
	second.Restart()
	redistest.Eventually(t, "the killed server to come back as a replica", func() bool { return len(c.Primaries()) == 3 })
}
