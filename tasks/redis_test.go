package tasks_test

import (
	"strings"
	"testing"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

// TestPrimariesOfNoCluster: servers that were never made a Cluster hold nothing, which must not look like
// a Cluster where all is well.
func TestPrimariesOfNoCluster(t *testing.T) {
	one := redistest.Start(t, "--cluster-enabled", "yes")
	client, err := tasks.Connect("STOKER_CACHE_URL", "redis-cluster://"+one.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if found, err := tasks.Primaries(ctx, client); err == nil || !strings.Contains(err.Error(), "slots") {
		t.Errorf("got %v, %v, want an error that tells of slots", found, err)
	}
	if found, err := tasks.Primaries(ctx, redistest.Start(t).Client); err != nil || len(found) != 1 || found[""] == nil {
		t.Errorf("of a single server: %v, %v", found, err)
	}
}
