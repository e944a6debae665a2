package namespace_test

import (
	"context"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/redistest"
)

func cacheOn(t *testing.T, s *redistest.Server) *namespace.Cache {
	t.Helper()
	tmpl, err := tasks.ParseTemplate(tasks.DefaultTemplate, "site")
	if err != nil {
		t.Fatal(err)
	}
	return namespace.New(s.Client, tmpl, tasks.KeysOf("site"), nil)
}

// A server is named the same until it has restarted or was promoted, also when it is promoted again.
func TestServersAreNamedByTheirProcess(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := redistest.Start(t)
	c := cacheOn(t, s)
	seen := map[string]string{}
	differs := func(what string) {
		t.Helper()
		name, err := c.Servers(ctx)
		if err != nil || name == "" {
			t.Fatalf("%s: %q, %v", what, name, err)
		}
		if again, _ := c.Replicated(ctx); again != name {
			t.Errorf("%s: %q, and then %q", what, name, again)
		}
		if before, ok := seen[name]; ok {
			t.Errorf("%s: the name is the same as %s", what, before)
		}
		seen[name] = what
	}
	differs("at first")
	s.Restart()
	differs("after a restart")
	redistest.StartReplica(t, s)
	other := redistest.Start(t)
	for _, what := range []string{"promoted", "promoted again"} {
		if err := s.Client.Do(ctx, "REPLICAOF", "127.0.0.1", other.Client.Options().Addr[len("127.0.0.1:"):]).Err(); err != nil {
			t.Fatal(err)
		}
		if err := s.Client.Do(ctx, "REPLICAOF", "NO", "ONE").Err(); err != nil {
			t.Fatal(err)
		}
		differs(what)
	}
}

// A replica that is cut off when something is written is waited for, by a process that never saw it, too.
func TestReplicatedWaitsForAReplicaThatIsAway(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := redistest.Start(t)
	replica := redistest.StartReplica(t, s)
	if _, err := cacheOn(t, s).Replicated(ctx); err != nil { // it sees one
		t.Fatal(err)
	}
	replica.Freeze()
	s.Client.ClientKillByFilter(ctx, "TYPE", "replica")
	if err := s.Client.Set(ctx, "written", 1, 0).Err(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { _, err := cacheOn(t, s).Replicated(ctx); done <- err }()
	select {
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(600 * time.Millisecond): // three times as long as it asks a server at a time
	}
	replica.Thaw()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := replica.Client.Get(ctx, "written").Val(); got != "1" {
		t.Errorf("the replica has %q", got)
	}
}
