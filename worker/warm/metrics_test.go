package warm

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestCollector: the newest run of each live release, under way and over; none of one that was never warmed.
func TestCollector(t *testing.T) {
	g := newRig(t)
	c := Collector{Queue: g.client, Keys: g.keys, Live: g.ledger.Live}
	if n := testutil.CollectAndCount(c); n != 0 {
		t.Errorf("%d metrics before the first run", n)
	}
	run := g.start("run1", "r1", g.plan())
	if err := testutil.CollectAndCompare(c, strings.NewReader(`
# HELP stoker_warm_running 1 while the newest warm run of a live release is under way.
# TYPE stoker_warm_running gauge
stoker_warm_running{release="r1"} 1
`), "stoker_warm_running"); err != nil {
		t.Error(err)
	}
	g.warm(run)
	if err := testutil.CollectAndCompare(c, strings.NewReader(`
# HELP stoker_warm_entries_total Entries that a live release's newest warm run has dealt with: stored, invalidated or failed. It begins again with each run; its rate is that of the warm.
# TYPE stoker_warm_entries_total counter
stoker_warm_entries_total{outcome="failed",release="r1",source="articles"} 0
stoker_warm_entries_total{outcome="failed",release="r1",source="assets"} 0
stoker_warm_entries_total{outcome="failed",release="r1",source="pages"} 0
stoker_warm_entries_total{outcome="invalidated",release="r1",source="articles"} 0
stoker_warm_entries_total{outcome="invalidated",release="r1",source="assets"} 0
stoker_warm_entries_total{outcome="invalidated",release="r1",source="pages"} 0
stoker_warm_entries_total{outcome="stored",release="r1",source="articles"} 240
stoker_warm_entries_total{outcome="stored",release="r1",source="assets"} 40
stoker_warm_entries_total{outcome="stored",release="r1",source="pages"} 24
# HELP stoker_warm_open_batches Batches of a live release's newest warm run that have not finished.
# TYPE stoker_warm_open_batches gauge
stoker_warm_open_batches{release="r1"} 0
# HELP stoker_warm_planned_entries Entries that the sources of a live release's newest warm run have; absent while it is not known.
# TYPE stoker_warm_planned_entries gauge
stoker_warm_planned_entries{release="r1",source="articles"} 240
stoker_warm_planned_entries{release="r1",source="assets"} 40
stoker_warm_planned_entries{release="r1",source="pages"} 24
# HELP stoker_warm_running 1 while the newest warm run of a live release is under way.
# TYPE stoker_warm_running gauge
stoker_warm_running{release="r1"} 0
`)); err != nil {
		t.Error(err)
	}
}
