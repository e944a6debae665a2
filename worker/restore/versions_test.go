package restore_test

import (
	"errors"
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/redistest"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/restore"
	"github.com/alphanode/stoker/worker/retire"
	"github.com/alphanode/stoker/worker/retire/verbtest"
)

// TestAcrossVersions restores what one server held on another: the redis-server on the PATH, and the one that
// redistest.RedisServer names. The portable types come back in both directions; what the other cannot hold is
// refused before anything moves.
func TestAcrossVersions(t *testing.T) {
	named := os.Getenv(redistest.RedisServer)
	if named == "" {
		t.Skipf("one server is at hand: %s names another", redistest.RedisServer)
	}
	for name, way := range map[string]struct{ from, to string }{"from the named one": {named, ""}, "to the named one": {"", named}} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(redistest.RedisServer, way.from)
			w := verbtest.New(t)
			t.Setenv(redistest.RedisServer, way.to)
			there := otherCache(t, w)
			version := func(rs restore.Rooms) (int, bool) {
				dump, err := rs.Server.DumpVersion(t.Context())
				w.Must(err)
				fields, err := rs.Cache.FieldExpiries(t.Context())
				w.Must(err)
				return dump, fields
			}
			wroteDump, wroteFields := version(rooms(w, nil))
			takesDump, takesFields := version(there)
			t.Logf("from DUMP version %d (fields expire: %v) to %d (%v)", wroteDump, wroteFields, takesDump, takesFields)
			for _, c := range []struct {
				drop    []string
				refused bool
				says    string
			}{
				{[]string{"stream", "fields"}, false, ""},
				{[]string{"fields"}, wroteDump > takesDump, "travel between like servers"},
				{[]string{"stream"}, wroteFields && !takesFields, "fields that expire by themselves"},
			} {
				w.Reset()
				there.Store = w.Store
				w.Activate("r1", "r2")
				_, err := w.Cache.Remove(t.Context(), "r1", c.drop)
				w.Must(err)
				before := maps.Clone(w.Entries("r1"))
				w.Must(expire(w))
				_, err = restore.New(there).Rollback(t.Context(), verbtest.NewJob("a"), toR1)
				switch {
				case c.refused:
					if !errors.Is(err, tasks.ErrRefused) || !strings.Contains(err.Error(), c.says) || w.State("r1") != release.Archived {
						t.Errorf("without %q: %v, want a refusal that says %q; r1 is %s", c.drop, err, c.says, w.State("r1"))
					}
					t.Logf("refused: %v", err)
				case err != nil:
					t.Errorf("without %q: %v", c.drop, err)
				default:
					back := *w
					back.Cache = there.Cache.(*namespace.Cache)
					if before["stream"] != "" { // which the other server dumps in its own way
						n, err := client(there).XLen(t.Context(), w.Template.Key("r1", "stream")).Result()
						w.Must(err)
						if n != 1 {
							t.Errorf("the stream came back with %d entries, want 1", n)
						}
						_, err = back.Cache.Remove(t.Context(), "r1", []string{"stream"})
						w.Must(err)
						delete(before, "stream")
					}
					wantEntries(t, &back, "r1", before)
				}
				w.Must(client(there).FlushAll(t.Context()).Err())
			}
		})
	}
}

// client is that of the cache Redis.
func client(rs restore.Rooms) redis.UniversalClient { return rs.Server.(restore.RedisServer).Client }

// otherCache are a world's rooms with a cache Redis of its own.
func otherCache(t *testing.T, w *verbtest.World) restore.Rooms {
	t.Helper()
	client := redistest.Start(t).Client
	rs := rooms(w, nil)
	cache := namespace.New(client, w.Template, w.Keys, nil)
	rs.Cache = cache
	rs.Applier = invalidation.NewApplier(w.Log, client, w.Template, w.Ledger.Live, cache)
	rs.Server = restore.RedisServer{Client: client, Keys: w.Keys}
	return rs
}

// expire archives r1 with the verb itself.
func expire(w *verbtest.World) error {
	_, err := retire.New(retire.Rooms{
		App: verbtest.App, Template: w.Template, Ledger: w.Ledger, Log: w.Log, Applier: w.Applier, Cache: w.Cache, Store: w.Store,
		Rule: release.Rule{Standby: 1, Archived: 1}, Server: retire.ServerVersion(w.Client), Logger: w.Logger,
	}).Expire(w.T.Context(), verbtest.NewJob("expire"), tasks.Expire{Release: "r1", By: verbtest.By})
	return err
}
