package invalidation

import (
	"fmt"
	"testing"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

// TestOnACluster: the log and the cache on a Redis Cluster of three primaries.
func TestOnACluster(t *testing.T) {
	rdb := redistest.StartCluster(t, 3, 0).Client
	for _, text := range []string{tasks.DefaultTemplate, "<app>:<release>:{<key>}"} {
		t.Run(text, func(t *testing.T) {
			s := siteOn(t, rdb, "r1", "r2")
			tmpl, err := tasks.ParseTemplate(text, "site")
			s.check(err)
			s.tmpl, s.apply.tmpl, s.apply.ns = tmpl, tmpl, unlinker{rdb, tmpl}
			removesFromEveryLiveNamespace(s)

			const n = 3*slice + 7
			for i := range n {
				s.put("r1", fmt.Sprint("page:", i), "big")
			}
			p, err := s.apply.Preview(ctx, "r1", []tasks.Target{tag("big"), prefix("page:")})
			if err != nil || p.Entries != n {
				t.Errorf("a preview of %d entries counts %d, %v", n, p.Entries, err)
			}
			s.invalidate(tag("big"))
			for i := range n {
				if s.has("r1", fmt.Sprint("page:", i)) {
					t.Fatalf("page:%d is left", i)
				}
			}
			index := s.tmpl.Key("r1", "#tag:big")
			if marked := rdb.ZCount(ctx, index, "-inf", "-1").Val(); marked != n {
				t.Errorf("%d members are marked as gone, want %d", marked, n)
			}
			// A fill that listed its entry before the removal, and sets it after.
			s.check(rdb.Set(ctx, s.tmpl.Key("r1", "page:0"), "v", 0).Err())
			s.invalidate(tag("big"))
			if s.has("r1", "page:0") {
				t.Error("an entry set after the removal of its tag outlives the next one")
			}
		})
	}
}
