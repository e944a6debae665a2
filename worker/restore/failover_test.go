package restore_test

import (
	"context"
	"errors"
	"testing"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/restore"
	"github.com/alphanode/stoker/worker/retire/verbtest"
)

// promoted is a cache Redis where a replica takes the primary's place: lose takes away what it lacks.
type promoted struct {
	restore.Cache
	name string
	at   func(*promoted) bool // whether it happens when the work asks whether all is replicated
	lose func()
}

func (p *promoted) Servers(context.Context) (string, error) { return p.name, nil }

func (p *promoted) Replicated(context.Context) (string, error) {
	if p.at(p) {
		p.fail()
	}
	return p.name, nil
}

func (p *promoted) fail() {
	p.name += "'"
	p.lose()
}

// lose takes an entry and a tag's index from r1, as a replica lacks them that is promoted, and brings back what a purge
// had deleted.
func lose(w *verbtest.World) func() {
	return func() {
		w.Must(w.Client.Del(w.T.Context(), w.Template.Key("r1", "post:5"), w.Template.Key("r1", tasks.TagIndex("author:1"))).Err())
		w.Must(w.Client.Set(w.T.Context(), w.Template.Key("r1", "left over"), "x", 0).Err())
	}
}

// What a server lacks that was promoted when all was written is written again, a tag's index as well.
func TestFailoverBeforeTheEnd(t *testing.T) {
	w, before := archived(t)
	rs := rooms(w, nil)
	rs.Cache = &promoted{Cache: rs.Cache, name: "a", lose: lose(w), at: func(p *promoted) bool { return len(p.name) < 3 }}
	_, err := restore.New(rs).Rollback(t.Context(), verbtest.NewJob("a"), toR1)
	w.Must(err)
	wantEntries(t, w, "r1", before)
}

// A cursor says nothing of a server that was promoted since.
func TestFailoverBetweenTwoTries(t *testing.T) {
	w, before := archived(t)
	rs := rooms(w, nil)
	cache := &promoted{Cache: rs.Cache, name: "a", lose: lose(w), at: func(*promoted) bool { return false }}
	rs.Cache = cache
	job := verbtest.NewJob("a")
	ctx, kill := context.WithCancel(t.Context())
	rs.Applier = killed{rs.Applier, kill}
	if _, err := restore.New(rs).Rollback(ctx, job, toR1); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	cache.fail()
	rs.Applier = w.Applier
	_, err := restore.New(rs).Rollback(t.Context(), job, toR1)
	w.Must(err)
	wantEntries(t, w, "r1", before)
}

// killed ends its process when all is written and is to be replayed.
type killed struct {
	restore.Applier
	kill func()
}

func (k killed) Replay(ctx context.Context, _ string, _ invalidation.Mark) (invalidation.Replayed, error) {
	k.kill()
	return invalidation.Replayed{}, ctx.Err()
}
