package main

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
)

// Many commands at once that each want their release served: whatever wins, there is one pointer
// at every moment, it agrees with the states, and who lost is told so.
func TestActivationsAtOnce(t *testing.T) {
	in := newInstall(t)
	ctx := context.Background()
	by := tasks.By{Actor: "test"}
	ledger := release.Open(in.redis.Client, tasks.KeysOf("site"))
	for _, id := range []string{"r1", "a", "b"} {
		if err := ledger.Create(ctx, release.Record{ID: id, Template: tasks.DefaultTemplate}, by); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ledger.Flip(ctx, "r1", release.New, by); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "b"} {
		for _, move := range [][2]release.State{{release.New, release.Warming}, {release.Warming, release.Ready}} {
			if err := ledger.Move(ctx, id, move[0], move[1], by); err != nil {
				t.Fatal(err)
			}
		}
		if err := ledger.SetDoc(ctx, id, release.DocCertificate, map[string]string{"verdict": "pass"}); err != nil {
			t.Fatal(err)
		}
	}
	in.start("worker")
	in.start("worker")

	watch := watchPointer(t, in.redis.Client, "r1", "a", "b")
	type end struct {
		id, msg string
		code    int
	}
	ends := make(chan end)
	const each = 4
	for range each {
		for _, id := range []string{"a", "b"} {
			go func() {
				_, msg, code := in.run("release", "activate", id, "--wait")
				ends <- end{id, msg, code}
			}()
		}
	}
	won := map[string]int{}
	for range 2 * each {
		switch e := <-ends; e.code {
		case exitDone:
			won[e.id]++
		case exitRefused:
		default:
			t.Errorf("activate %s: exit code %d: %s", e.id, e.code, e.msg)
		}
	}
	looks := watch()
	if won["a"] > 1 || won["b"] > 1 || won["a"]+won["b"] == 0 {
		t.Errorf("activations that succeeded: %v, want one of each at most and one at least", won)
	}
	active, err := ledger.Active(ctx)
	if err != nil || won[active] != 1 {
		t.Errorf("active is %q (%v), but those that succeeded are %v", active, err, won)
	}
	for _, id := range []string{"a", "b"} {
		rec, err := ledger.Get(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		want := release.Ready // it never was active
		switch {
		case id == active:
			want = release.Active
		case won[id] > 0:
			want = release.Standby
		}
		if rec.State != want {
			t.Errorf("%s is %s, want %s", id, rec.State, want)
		}
	}
	t.Logf("looked %d times; succeeded: %v", looks, won)
}

// watchPointer looks at the pointer and the states in one step, over and over, until the
// function that it returns is called; that one returns how often it looked.
func watchPointer(t *testing.T, rdb *redis.Client, ids ...string) func() int {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	keys := tasks.KeysOf("site")
	looks := 0
	var wrong error
	var done sync.WaitGroup
	done.Go(func() {
		for ctx.Err() == nil && wrong == nil {
			var pointer *redis.StringCmd
			states := map[string]*redis.StringCmd{}
			if _, err := rdb.TxPipelined(context.WithoutCancel(ctx), func(p redis.Pipeliner) error {
				pointer = p.Get(ctx, keys.Active())
				for _, id := range ids {
					states[id] = p.HGet(ctx, keys.Release(id), "state")
				}
				return nil
			}); err != nil {
				wrong = err
				return
			}
			looks++
			for id, state := range states {
				if (state.Val() == string(release.Active)) != (id == pointer.Val()) {
					wrong = fmt.Errorf("the pointer names %q while %s is %s", pointer.Val(), id, state.Val())
				}
			}
		}
	})
	return func() int {
		cancel()
		done.Wait()
		if wrong != nil {
			t.Error(wrong)
		}
		return looks
	}
}
