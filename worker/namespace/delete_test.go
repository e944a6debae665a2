package namespace_test

import (
	"fmt"
	"testing"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/redistest"
)

func TestPurgeTakesAllOfOneNamespace(t *testing.T) {
	servers(t, func(t *testing.T, f fixture) {
		if err := f.Write(ctxOf(t), "r1", everyType()); err != nil {
			t.Fatal(err)
		}
		f.set("r1", oddKeys...)
		f.set("r1", "#tag:x", "#lease:k", "#part:p:k")
		neighbours := []string{"r10", "r1.0", "R1", "r"}
		for _, n := range neighbours {
			f.set(n, oddKeys...)
		}
		if err := f.SetFence(ctxOf(t), "r1", "mine"); err != nil {
			t.Fatal(err)
		}
		want := int64(len(everyType()) + len(oddKeys) + 3)
		var shown int64
		n, err := f.Purge(ctxOf(t), "r1", "mine", func(n int64) { shown = n })
		if err != nil || n != want || shown != want {
			t.Errorf("deleted %d, showed %d, %v; want %d", n, shown, err, want)
		}
		f.same("r1", nil)
		for _, release := range neighbours {
			if got := len(f.all(release)); got != len(oddKeys) {
				t.Errorf("neighbour %s has %d entries left of %d", release, got, len(oddKeys))
			}
		}
		if err := f.SetFence(ctxOf(t), "r1", "mine"); err != nil {
			t.Fatal(err)
		}
		if n, err := f.Purge(ctxOf(t), "r1", "mine", nil); n != 0 || err != nil {
			t.Errorf("again: %d, %v; want nothing to do", n, err)
		}
	})
}

func TestPurgeNeedsTheFence(t *testing.T) {
	servers(t, func(t *testing.T, f fixture) {
		f.set("r1", "k")
		purge := func() error {
			n, err := f.Purge(ctxOf(t), "r1", "mine", nil)
			if n != 0 {
				t.Errorf("deleted %d without the fence", n)
			}
			return err
		}
		wantErr(t, "no fence", purge(), tasks.ErrRefused)
		for _, token := range []string{"theirs", ""} {
			if err := f.SetFence(ctxOf(t), "r1", token); err != nil {
				t.Fatal(err)
			}
			wantErr(t, "fence "+token, purge(), tasks.ErrRefused)
		}
		if err := f.SetFence(ctxOf(t), "r10", "mine"); err != nil {
			t.Fatal(err)
		}
		wantErr(t, "the neighbour's fence", purge(), tasks.ErrRefused)
		if !f.exists("r1", "k") {
			t.Error("the entry is gone")
		}
	})
}

func TestFenceStopsAPurgeMidway(t *testing.T) {
	f := on(t, redistest.Start(t).Client)
	f.Cache = namespace.New(f.rdb, f.tmpl, f.keys, small)
	for i := range 500 {
		f.set("r1", fmt.Sprint("k", i))
	}
	if err := f.SetFence(ctxOf(t), "r1", "mine"); err != nil {
		t.Fatal(err)
	}
	var atStop int64
	n, err := f.Purge(ctxOf(t), "r1", "mine", func(deleted int64) {
		if deleted > 150 && atStop == 0 {
			atStop = deleted
			if err := f.SetFence(ctxOf(t), "r1", "taken back"); err != nil {
				t.Fatal(err)
			}
		}
	})
	wantErr(t, "purge", err, tasks.ErrRefused)
	if left := len(f.all("r1")); n != atStop || int64(left) != 500-n {
		t.Errorf("deleted %d, %d when the fence went up; %d entries left", n, atStop, left)
	}
}

func TestPurgeProvesNothingIsLeft(t *testing.T) {
	f := on(t, redistest.Start(t).Client)
	f.Cache = namespace.New(f.rdb, f.tmpl, f.keys, small)
	f.set("r1", "k")
	if err := f.SetFence(ctxOf(t), "r1", "mine"); err != nil {
		t.Fatal(err)
	}
	written := 0
	_, err := f.Purge(ctxOf(t), "r1", "mine", func(int64) {
		if written++; written <= 5 {
			f.set("r1", fmt.Sprint("late ", written))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	f.same("r1", nil)

	f.set("r1", "k")
	_, err = f.Purge(ctxOf(t), "r1", "mine", func(int64) {
		written++
		f.set("r1", fmt.Sprint("late ", written)) // without an end
	})
	wantErr(t, "a writer that does not stop", err, tasks.ErrRefused)
}

func TestPurgeSurvivesARestart(t *testing.T) {
	server := redistest.Start(t, "--appendonly", "yes")
	f := on(t, server.Client)
	f.Cache = namespace.New(f.rdb, f.tmpl, f.keys, small)
	for i := range 500 {
		f.set("r1", fmt.Sprint("k", i))
	}
	if err := f.SetFence(ctxOf(t), "r1", "mine"); err != nil {
		t.Fatal(err)
	}
	restarted := false
	progress := func(n int64) {
		if n > 100 && !restarted {
			restarted = true
			server.Restart()
		}
	}
	n, err := f.Purge(ctxOf(t), "r1", "mine", progress)
	wantErr(t, "a server that may have forgotten another's fence", err, namespace.ErrFenceLost)
	if left := len(f.all("r1")); int64(left) != 500-n || n < 100 {
		t.Errorf("deleted %d of 500, %d are left", n, left)
	}
	if err := f.SetFence(ctxOf(t), "r1", "mine again"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Purge(ctxOf(t), "r1", "mine again", progress); err != nil {
		t.Fatal(err)
	}
	f.same("r1", nil)
}

func TestUnlink(t *testing.T) {
	servers(t, func(t *testing.T, f fixture) {
		fill := func() {
			f.set("r1", "post:1", "post:2", "post*", "other", "", "#tag:x", "#lease:post:1")
			f.set("r10", "post:1")
		}
		for _, c := range []struct {
			prefix string
			want   int64
		}{{"post:", 2}, {"post*", 1}, {"none", 0}, {"", 5}, {"post", 3}} {
			fill()
			n, err := f.Unlink(ctxOf(t), "r1", c.prefix)
			if err != nil || n != c.want {
				t.Errorf("%q: deleted %d, %v; want %d", c.prefix, n, err, c.want)
			}
			if !f.exists("r1", "#tag:x") || !f.exists("r1", "#lease:post:1") || !f.exists("r10", "post:1") {
				t.Errorf("%q: something else is gone", c.prefix)
			}
		}
	})
}

func TestRemove(t *testing.T) {
	servers(t, func(t *testing.T, f fixture) {
		f.set("r1", oddKeys...)
		f.set("r1", "stays")
		f.set("r10", oddKeys...)
		n, err := f.Remove(ctxOf(t), "r1", append([]string{"not there"}, oddKeys...))
		if err != nil || n != int64(len(oddKeys)) {
			t.Errorf("removed %d, %v; want %d", n, err, len(oddKeys))
		}
		if left, near := len(f.all("r1")), len(f.all("r10")); left != 1 || near != len(oddKeys) {
			t.Errorf("left %d and the neighbour's %d, want 1 and %d", left, near, len(oddKeys))
		}
	})
}
