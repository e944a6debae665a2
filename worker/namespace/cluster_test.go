package namespace_test

import (
	"context"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
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

func flush(t testing.TB, c *redistest.Cluster) {
	t.Helper()
	err := c.Client.ForEachMaster(ctxOf(t), func(ctx context.Context, s *redis.Client) error { return s.FlushAll(ctx).Err() })
	if err != nil {
		t.Fatal(err)
	}
}
