package warm

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/governor"
	"github.com/alphanode/stoker/worker/governor/throttle"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/warm/carry"
)

const carryPlan = `version: 1
sources:
  - name: assets
    carry: {from: active, families: ["asset:"]}
certificate: {coverage: 99%, sample: 50}
`

// limited gives the rig's server so much memory more than it has in use, and room to be asked.
func (g *rig) limited(t *testing.T, more int64) throttle.Room {
	t.Helper()
	room := throttle.Room{Cache: g.client, Headroom: 0.1}
	m, err := throttle.ReadMemory(t.Context(), g.client)
	must(t, err)
	limit := int64(float64(m.Used+more) / 0.9)
	must(t, g.client.ConfigSet(t.Context(), "maxmemory", fmt.Sprint(limit)).Err())
	t.Cleanup(func() { must(t, g.client.ConfigSet(context.Background(), "maxmemory", "0").Err()) })
	g.deps.Room = room
	return room
}

// heavy adds entries of a kilobyte to the active release's assets.
func (g *rig) heavy(n int) {
	g.t.Helper()
	var puts []namespace.Put
	for i := range n {
		puts = append(puts, namespace.Put{
			Entry: tasks.Entry{Key: fmt.Sprint("asset:heavy", i), Type: tasks.EntryString, Value: strings.Repeat("x", 1000), ExpiresAt: time.Now().Add(time.Hour).UnixMilli()},
			Tags:  []string{"heavy"},
		})
	}
	must(g.t, g.cache.Put(g.t.Context(), "r0", puts))
}

// TestCarryPredictsItsMemory holds the prediction against what the server then takes.
func TestCarryPredictsItsMemory(t *testing.T) {
	g := newRig(t)
	g.heavy(20_000)
	src, err := carry.New(g.cache, "r0", "r1", []string{"asset:"})
	must(t, err)
	e, err := src.Estimate(t.Context())
	must(t, err)
	before, err := throttle.ReadMemory(t.Context(), g.client)
	must(t, err)
	must(t, g.cache.Copy(t.Context(), "r0", "r1", []string{"asset:"}, "", func(namespace.CopySlice) error { return nil }))
	after, err := throttle.ReadMemory(t.Context(), g.client)
	must(t, err)
	took := after.Used - before.Used
	t.Logf("predicted %d bytes for %d entries, taken %d: %.2f", e.Bytes, e.Entries, took, float64(e.Bytes)/float64(took))
	if e.Entries != 20_000+assets || e.Bytes < took*95/100 || e.Bytes > took*130/100 {
		t.Errorf("predicted %d bytes for %d entries, the server took %d", e.Bytes, e.Entries, took)
	}
}

// TestCarryWithoutRoomIsRefused before anything is claimed, moved or copied, and a dry run says so.
func TestCarryWithoutRoomIsRefused(t *testing.T) {
	g := newRig(t)
	g.heavy(5000)
	g.limited(t, 2<<20)
	plan, err := ParsePlan([]byte(carryPlan))
	must(t, err)
	dry, err := g.DryRun(t.Context(), plan, "r1", nil, 0)
	must(t, err)
	if dry[0].Count != 5000+assets || dry[0].Bytes < 5<<20 || !strings.Contains(dry[0].Refused, "STOKER_MEMORY_HEADROOM") {
		t.Errorf("dry run: %+v", dry)
	}
	_, err = g.Run(t.Context(), g.jobs.job("run"), g.start("run1", "r1", carryPlan))
	if !errors.Is(err, tasks.ErrRefused) || !strings.Contains(err.Error(), "carry 5040 entries") {
		t.Errorf("got %v", err)
	}
	if s, rec := g.status("run1"), g.record1(); s.Status != "refused" || rec.State != release.New || rec.Run != "" || g.entries("r1") != 0 {
		t.Errorf("run %+v, release %+v", s, rec)
	}
	must(t, g.client.ConfigSet(t.Context(), "maxmemory", "0").Err())
	g.checkPass(g.warm(g.start("run2", "r1", carryPlan)))
	// What is carried already takes nothing more.
	g.limited(t, 2<<20)
	g.checkPass(g.warm(g.start("run3", "r1", carryPlan)))
	dry, err = g.DryRun(t.Context(), plan, "r1", nil, 0)
	must(t, err)
	if dry[0].Refused != "" {
		t.Errorf("dry run of what is there: %+v", dry)
	}
}

func (g *rig) checkPass(s RunStatus) {
	g.t.Helper()
	if s.Status != string(Pass) {
		g.t.Errorf("run: %+v, %+v", s, s.Certificate)
	}
}

// scarce is a pacer that lets some slices pass and then says that there is no room.
type scarce struct{ left int }

func (*scarce) Size() int { return 20 }

func (p *scarce) Wait(context.Context) error {
	if p.left--; p.left < 0 {
		return governor.Headroom(0.1).Room(governor.Memory{Used: 95 << 20, Limit: 100 << 20})
	}
	return nil
}

func (*scarce) Done(time.Duration, int) {}

// TestWarmEndsWithoutRoom: a source whose room runs out in mid-work ends its run with a certificate
// that says so, and with nothing open.
func TestWarmEndsWithoutRoom(t *testing.T) {
	for source, plan := range map[string]string{"copy": carryPlan, "put": strings.Replace(carryPlan,
		`carry: {from: active, families: ["asset:"]}`, `query: {driver: sqlite, dsn_env: SITE_DSN, sql: "SELECT slug FROM posts", page: {by: slug, size: 100}}
    entry: {key: "post:{{.slug}}", ttl: 24h, tags: ["all"]}`, 1)} {
		t.Run(source, func(t *testing.T) {
			g := newRig(t)
			tmpl, err := tasks.ParseTemplate(tasks.DefaultTemplate, "site")
			must(t, err)
			shared := &scarce{left: 2}
			g.deps.Cache = namespace.New(g.client, tmpl, g.keys, func(_ context.Context, w namespace.Work) namespace.Pacer {
				if w.Adds {
					return shared
				}
				return &scarce{left: 1000}
			})
			_, err = g.Run(t.Context(), g.jobs.job("run"), g.start("run1", "r1", plan))
			must(t, err)
			if err := g.runBatches(); !errors.Is(err, tasks.ErrRefused) {
				t.Errorf("batches: %v", err)
			}
			s := g.status("run1")
			if s.Status != string(Fail) || !strings.Contains(s.Certificate.Reasons[0], "95 MiB of its 100 MiB in use") || g.record1().State == release.Ready {
				t.Errorf("run: %+v, %+v, release %s", s, s.Certificate, g.record1().State)
			}
			if n := g.entries("r1"); n == 0 {
				t.Error("nothing was written before the room ran out")
			}
			for key := range g.tagged("all") {
				if !g.exists("r1", key) {
					t.Errorf("the index lists %s, which is not there", key)
				}
			}
		})
	}
}

// tagged returns what r1's index of a tag lists.
func (g *rig) tagged(tag string) map[string]bool {
	g.t.Helper()
	listed := map[string]bool{}
	members, err := g.client.ZRange(g.t.Context(), "site:r1:"+tasks.TagIndex(tag), 0, -1).Result()
	must(g.t, err)
	for _, m := range members {
		listed[m] = true
	}
	return listed
}

// copies is a cache that tells what is copied.
type copies struct {
	Cache
	keys []string
}

func (c *copies) Copy(ctx context.Context, src, dst string, families []string, cursor string, fn func(namespace.CopySlice) error) error {
	return c.Cache.Copy(ctx, src, dst, families, cursor, func(s namespace.CopySlice) error {
		c.keys = append(c.keys, s.Keys...)
		return fn(s)
	})
}

// TestCarryLeavesOutWhatIsInvalidated: what was invalidated by its key, a tag or a prefix before the
// carry, and is pending yet, is never copied.
func TestCarryLeavesOutWhatIsInvalidated(t *testing.T) {
	g := newRig(t)
	seen := &copies{Cache: g.deps.Cache}
	g.deps.Cache = seen
	_, err := g.Run(t.Context(), g.jobs.job("run"), g.start("run1", "r1", carryPlan))
	must(t, err)
	g.heavy(5)
	g.invalidate(tasks.Target{Kind: tasks.KindKey, Name: "asset:7"}, tasks.Target{Kind: tasks.KindTag, Name: "heavy"}, tasks.Target{Kind: tasks.KindPrefix, Name: "asset:1"})
	must(t, g.runBatches())
	for _, key := range seen.keys {
		if key == "asset:7" || strings.HasPrefix(key, "asset:1") || strings.HasPrefix(key, "asset:heavy") {
			t.Errorf("%s was copied", key)
		}
	}
	if len(seen.keys) != assets-1-11 {
		t.Errorf("%d entries copied, want %d", len(seen.keys), assets-1-11)
	}
	g.checkPass(g.status("run1"))
}
