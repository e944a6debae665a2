package invalidation

import (
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

// TestOnACluster removes what tags, keys and prefixes name from a Cluster, with both kinds of template.
func TestOnACluster(t *testing.T) {
	c := redistest.StartCluster(t, 3, 0)
	queue := redistest.Start(t).Client
	for _, text := range []string{tasks.DefaultTemplate, "<app>:<release>:{<key>}"} {
		site := func(t *testing.T, live ...string) *site {
			t.Helper()
			for _, s := range append(c.Primaries(), &redistest.Server{Client: queue}) {
				if err := s.Client.FlushAll(ctx).Err(); err != nil {
					t.Fatal(err)
				}
			}
			s := siteOn(t, queue, live...)
			tmpl, err := tasks.ParseTemplate(text, "site")
			s.check(err)
			s.rdb, s.tmpl = c.Client, tmpl
			s.apply = NewApplier(s.log, c.Client, tmpl, s.apply.live, unlinker{c.Client, tmpl})
			return s
		}
		t.Run("removes "+text, func(t *testing.T) { removesFromEveryLiveNamespace(site(t, "r1", "r2")) })
		t.Run("previews "+text, func(t *testing.T) { previews(site(t, "r1")) })
		t.Run("moves "+text, func(t *testing.T) { indexMoves(site(t, "r1", "r2"), c) })
	}
}

// indexMoves has a tag's index move to another server while a removal, a preview and a look at another
// namespace's index are going through it: a cursor of the one means nothing to the other.
func indexMoves(s *site, c *redistest.Cluster) {
	const n = 4*slice + 7
	index := s.tmpl.Key("r1", tasks.TagIndex("big"))
	fill := func(release string) {
		_, err := s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i := range n {
				p.ZAdd(ctx, index, redis.Z{Score: 1e18, Member: fmt.Sprint("page:", i)})
				p.Set(ctx, s.tmpl.Key(release, fmt.Sprint("page:", i)), "v", 0)
			}
			return nil
		})
		s.check(err)
	}
	move := func() {
		slot := c.Slot(index)
		for _, to := range c.Primaries() {
			if to != c.OwnerOf(slot) {
				c.Move(slot, to)
				return
			}
		}
	}
	left := func(release string) (count int64) {
		cmds, err := s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i := range n {
				p.Exists(ctx, s.tmpl.Key(release, fmt.Sprint("page:", i)))
			}
			return nil
		})
		s.check(err)
		for _, cmd := range cmds {
			count += cmd.(*redis.IntCmd).Val()
		}
		return count
	}
	// drain takes slices until the end, with a move in between.
	drain := func(release string, own bool) (removed int64) {
		for cursor, slices := "0", 1; ; slices++ {
			found, err := s.apply.slicesApart(ctx, release, []string{index}, []string{cursor}, own)
			s.check(err)
			removed += found[0].removed
			if cursor = found[0].cursor; cursor == "0" {
				return removed
			}
			if slices == 2 {
				move()
			}
		}
	}
	fill("r1")
	p, err := s.apply.Preview(ctx, "r1", []tasks.Target{tag("big"), prefix("page:")})
	if err != nil || p.Entries != n {
		s.Errorf("a preview of %d entries counts %d, %v", n, p.Entries, err)
	}
	fill("r2")
	if got := drain("r2", false); got != n || left("r2") != 0 || left("r1") != n {
		s.Errorf("by another's index: removed %d of %d, left %d, and %d of the other", got, n, left("r2"), left("r1"))
	}
	if marked := s.rdb.ZCount(ctx, index, "-inf", "-1").Val(); marked != 0 {
		s.Errorf("%d members are marked, of entries that are there", marked)
	}
	if got := drain("r1", true); got != n || left("r1") != 0 {
		s.Errorf("removed %d of %d, left %d", got, n, left("r1"))
	}
	if marked := s.rdb.ZCount(ctx, index, "-inf", "-1").Val(); marked != n {
		s.Errorf("%d members are marked as gone, want %d", marked, n)
	}
	// A fill that listed its entry before the removal, and sets it after.
	s.check(s.rdb.Set(ctx, s.tmpl.Key("r1", "page:0"), "v", 0).Err())
	before := s.rdb.ZScore(ctx, index, "page:1").Val()
	s.record(tag("big"))
	if _, err := s.apply.Sweep(ctx, 0); err != nil || s.has("r1", "page:0") {
		s.Errorf("an entry set after the removal of its tag outlives the next one: %v", err)
	}
	if after := s.rdb.ZScore(ctx, index, "page:1").Val(); after != before {
		s.Errorf("the mark of what was gone already moved from %v to %v: it would never grow old", before, after)
	}
	if renewed := s.rdb.ZScore(ctx, index, "page:0").Val(); renewed >= before {
		s.Errorf("the mark of what had come back is %v, want a later one than %v", renewed, before)
	}
}
