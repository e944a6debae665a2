package namespace_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/redistest"
)

// onCluster, unless it is nil, makes the fixture of every test that can do with any servers.
var onCluster func(t *testing.T) fixture

// wrapped is a template that keeps an entry's copies in all releases in one hash slot.
const wrapped = "<app>:<release>:{<key>}"

// TestOnCluster runs the tests that say what a Cache does on a Cluster as well, with both kinds of
// template.
func TestOnCluster(t *testing.T) {
	c := redistest.StartCluster(t, 3, 0)
	t.Run("server time", func(t *testing.T) { serverTime(t, c) })
	defer func() { onCluster = nil }()
	for name, tmpl := range map[string]string{"apart": tasks.DefaultTemplate, "wrapped": wrapped} {
		onCluster = func(t *testing.T) fixture {
			t.Helper()
			flush(t, c)
			return with(t, c.Client, tmpl)
		}
		t.Run(name, func(t *testing.T) {
			for name, test := range map[string]func(*testing.T){
				"Copy": TestCopy, "CopyFamilies": TestCopyTakesNamedFamiliesOnly, "CopyRefers": TestCopyLeavesOutWhatRefersToTheSource,
				"CopyTags": TestCopyCarriesTags, "Purge": TestPurgeTakesAllOfOneNamespace, "Fence": TestPurgeNeedsTheFence,
				"Unlink": TestUnlink, "Remove": TestRemove, "WriteRead": TestWriteThenRead, "Leases": TestReadLeavesOutLeasesAndKeepsIndexes,
				"Expired": TestWriteLeavesOutTheExpiredAndMergesIndexes, "Put": TestPutIndexesFirst, "Lookup": TestLookup,
				"Usage": TestUsage, "Prune": TestPruneTags, "Sample": TestSample, "Get": TestGet, "TagsOf": TestTagsOf,
			} {
				t.Run(name, test)
			}
		})
	}
}

// serverTime: a pacer is told the servers' time, however long the way to them is.
func serverTime(t *testing.T, c *redistest.Cluster) {
	const way = 30 * time.Millisecond
	flush(t, c)
	o := *c.Client.Options()
	o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		return farAway{conn, way}, err
	}
	far := redis.NewClusterClient(&o)
	t.Cleanup(func() { _ = far.Close() })
	f := with(t, far, tasks.DefaultTemplate)
	var told []time.Duration
	f.Cache = namespace.New(far, f.tmpl, f.keys, func(context.Context, namespace.Work) namespace.Pacer {
		return noting{stride(100), &told}
	})
	var entries []tasks.Entry
	for i := range 300 {
		entries = append(entries, tasks.Entry{Key: fmt.Sprint(i), Type: tasks.EntrySet, Items: []string{"a", "b"}})
	}
	if err := f.Write(ctxOf(t), "r1", entries); err != nil {
		t.Fatal(err)
	}
	if len(told) != 3 || slices.Min(told) <= 0 || slices.Max(told) >= way {
		t.Errorf("three slices took %v, with the way of %v", told, way)
	}
}

// farAway is a connection whose replies are long on their way.
type farAway struct {
	net.Conn
	way time.Duration
}

func (f farAway) Read(b []byte) (int, error) {
	n, err := f.Conn.Read(b)
	time.Sleep(f.way)
	return n, err
}

// noting is a pacer that notes what it is told.
type noting struct {
	stride
	told *[]time.Duration
}

func (n noting) Done(took time.Duration, _ int) { *n.told = append(*n.told, took) }

func flush(t testing.TB, c *redistest.Cluster) {
	t.Helper()
	err := c.Client.ForEachMaster(ctxOf(t), func(ctx context.Context, s *redis.Client) error { return s.FlushAll(ctx).Err() })
	if err != nil {
		t.Fatal(err)
	}
}
