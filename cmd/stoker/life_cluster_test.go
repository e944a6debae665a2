package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
	"github.com/alphanode/stoker/worker/release"
)

const (
	clusterPosts = 1800
	navs         = 20
)

// clusterShop is a shop whose cache is a Redis Cluster that it shares with others.
type clusterShop struct {
	*shop
	cluster *redistest.Cluster
	worker  *process
}

func newClusterShop(t *testing.T, c *redistest.Cluster, app, template string) *clusterShop {
	t.Helper()
	s := newShopOf(t, clusterPosts, "STOKER_APP="+app, "STOKER_CACHE_URL="+c.URL, "STOKER_KEY_TEMPLATE="+template, "STOKER_PACE=gentle")
	s.cache = c.Client
	tmpl, err := tasks.ParseTemplate(template, app)
	if err != nil {
		t.Fatal(err)
	}
	s.tmpl = tmpl
	return &clusterShop{s, c, s.start("worker")}
}

// fill sets the site's navigation as its app servers do.
func (s *clusterShop) fill() {
	s.Helper()
	cfg := tasks.Config{App: s.app, KeyTemplate: s.tmpl.String(), FillLimit: time.Second}
	client, err := tasks.NewClientFrom(s.redis.Client, s.cache, cfg)
	if err != nil {
		s.Fatal(err)
	}
	defer client.Close()
	for i := range navs {
		key := fmt.Sprint("nav:", i)
		f, err := client.FetchTagged(context.Background(), key, time.Hour, func(context.Context) ([]byte, []string, error) {
			return []byte("menu"), []string{key}, nil
		})
		if err != nil || !f.Stored {
			s.Fatalf("fill %s: stored %t, %v", key, f.Stored, err)
		}
	}
}

// carry begins to carry the active release's entries to another, slots of which are being moved.
func (s *clusterShop) carry(release string) (moves []*redistest.Move) {
	s.Helper()
	plan := filepath.Join(s.dir, "carry.yaml")
	text := `version: 1
sources:
  - name: unchanged
    carry: {from: active, families: ["post:", "nav:"]}
`
	if err := os.WriteFile(plan, []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
	for i := range 3 {
		moves = append(moves, s.startMove(fmt.Sprintf("post:post-%05d", 500*(i+1))))
	}
	s.must("warm", release, "--plan", plan)
	return moves
}

// startMove begins to move the slot of an entry of r1 to another server.
func (s *clusterShop) startMove(logical string) *redistest.Move {
	s.Helper()
	slot := s.cluster.Slot(s.tmpl.Key("r1", logical))
	owner := s.cluster.OwnerOf(slot)
	for _, to := range s.cluster.Primaries() {
		if to != owner {
			return s.cluster.StartMove(slot, to)
		}
	}
	s.Fatal("no server to move a slot to")
	return nil
}

// freeze stops the worker when something is half done; the function it returns lets it go on.
func (s *clusterShop) freeze(what string, half func() bool) (thaw func()) {
	s.Helper()
	redistest.Eventually(s.T, what, half)
	_ = s.worker.cmd.Process.Signal(syscall.SIGSTOP)
	return func() { _ = s.worker.cmd.Process.Signal(syscall.SIGCONT) }
}

// neighbours are keys of others on the Cluster, some of them with names that are nearly a release's.
func neighbours(t *testing.T, c *redistest.Cluster) (unchanged func()) {
	t.Helper()
	ctx := context.Background()
	var keys []string
	for i := range 100 {
		keys = append(keys, fmt.Sprint("other:", i), fmt.Sprint("apart:r10:", i), fmt.Sprintf("within:r10:{%d}", i), fmt.Sprint("apart:r", i+100))
	}
	for _, key := range keys {
		if err := c.Client.Set(ctx, key, "of "+key, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		t.Helper()
		for _, key := range keys {
			if got, err := c.Client.Get(ctx, key).Result(); got != "of "+key {
				t.Errorf("%s holds %q, %v", key, got, err)
			}
		}
	}
}

// TestLifeOnACluster takes two sites, whose key templates are of both kinds, through the whole life on one
// Redis Cluster. Slots move while entries are carried, and a primary dies while a release expires and
// while it is restored.
func TestLifeOnACluster(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 3, 1)
	unchanged := neighbours(t, c)
	sites := []*clusterShop{
		newClusterShop(t, c, "apart", tasks.DefaultTemplate),
		newClusterShop(t, c, "within", "<app>:<release>:{<key>}"),
	}
	for _, s := range sites {
		s.must("release", "create", "r1")
		s.must("warm", "r1", "--wait")
		s.must("release", "activate", "r1", "--wait")
		s.fill()
		s.wantEntries("r1", clusterPosts, navs)
	}

	var moves []*redistest.Move
	for _, s := range sites {
		s.must("release", "create", "r2")
		moves = append(moves, s.carry("r2")...)
	}
	for i, m := range moves {
		m.Keys(1)
		sites[i%2].edit(10*i, 10)
		m.Keys(-1)
		m.Finish()
	}
	for _, s := range sites {
		redistest.Eventually(t, "the carry to end", func() bool {
			rec, err := release.Open(s.redis.Client, tasks.KeysOf(s.app)).Get(context.Background(), "r2")
			return err == nil && rec.State == release.Ready
		})
		s.must("release", "activate", "r2", "--wait")
		for _, id := range []string{"r1", "r2"} {
			s.wantEntries(id, clusterPosts-30, navs)
		}
		s.must("invalidate", "--dry-run", "--tag", "nav:2", "--prefix", "nav:1")
		s.must("invalidate", "--wait", "--key", "nav:0", "--prefix", "nav:1", "--tag", "nav:2")
		for _, id := range []string{"r1", "r2"} {
			s.wantEntries(id, clusterPosts-30, navs-13)
		}
		s.must("snapshot", "r1", "--wait")
		s.must("snapshot", "verify", "r1")
	}

	die(t, c, 0, sites, tasks.LaneUpkeep, func(s *clusterShop) string {
		return field[string](t, s.must("expire", "--release", "r1", "--json"), "task")
	}, func(s *clusterShop) bool { return s.keys("r1") < clusterPosts })
	for _, s := range sites {
		if got, n := s.state("r1"), s.keys("r1"); got != "archived" || n != 0 {
			t.Errorf("%s: after its expiry r1 is %s with %d keys", s.app, got, n)
		}
		s.edit(1000, 30)
		s.wantEntries("r2", clusterPosts-60, navs-13)
	}
	die(t, c, 1, sites, tasks.LaneRelease, func(s *clusterShop) string {
		return field[string](t, s.must("rollback", "--to", "r1", "--json"), "task")
	}, func(s *clusterShop) bool { return s.keys("r1") > 200 })
	for _, s := range sites {
		if got := s.state("r1"); got != "active" {
			t.Errorf("%s: after the rollback r1 is %s", s.app, got)
		}
		for _, id := range []string{"r1", "r2"} {
			s.wantEntries(id, clusterPosts-60, navs-13)
		}
	}
	sites[0].must("drill", "r1", "--wait")
	sites[1].must("expire", "--release", "r2", "--wait")
	if n := sites[1].keys("r2"); n != 0 {
		t.Errorf("%d keys of r2 are left after its expiry", n)
	}
	for _, s := range sites {
		s.wantEntries("r1", clusterPosts-60, navs-13)
	}
	unchanged()
}

// wantEntries fails the test unless a release has that many posts, none of them stale, and menus.
func (s *clusterShop) wantEntries(release string, posts, menus int) {
	s.Helper()
	if n, m := s.assertFresh(release), len(s.list(release, "nav:")); n != posts || m != menus {
		s.Errorf("%s: %s has %d posts and %d menus, want %d and %d", s.app, release, n, m, posts, menus)
	}
}

// die has each of the sites begin a task, and the nth server die when all are half done.
func die(t *testing.T, c *redistest.Cluster, n int, sites []*clusterShop, lane tasks.Lane, begin func(*clusterShop) string, half func(*clusterShop) bool) {
	t.Helper()
	ids := make([]string, len(sites))
	thaws := make([]func(), len(sites))
	for i, s := range sites {
		ids[i] = begin(s)
		thaws[i] = s.freeze("it to be half done", func() bool { return half(s) })
	}
	for _, s := range sites {
		if n := s.keys("r1"); n == 0 || n > 2*clusterPosts {
			t.Errorf("%s: %d keys of r1, which is not the middle of anything", s.app, n)
		}
	}
	victim := c.Primaries()[n]
	c.KillPrimary(victim)
	for i, s := range sites {
		thaws[i]()
		s.awaitTask(lane, ids[i])
	}
	victim.Restart()
	c.InStep()
}
