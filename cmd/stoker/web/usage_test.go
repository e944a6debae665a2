package web

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestCountsAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		c := newCounts(func(context.Context, string) (Usage, error) {
			time.Sleep(100 * time.Millisecond)
			return Usage{Entries: calls.Add(1)}, nil
		}, time.Now)
		var looks sync.WaitGroup
		for range 50 {
			looks.Go(func() {
				if got := c.of(t.Context(), "r1"); got.Entries != 1 {
					t.Errorf("first look: %d entries, want 1", got.Entries)
				}
			})
		}
		looks.Wait()
		time.Sleep(countEvery - time.Second)
		if got := c.of(t.Context(), "r1"); got.Entries != 1 || calls.Load() != 1 {
			t.Errorf("before its time: %d entries after %d counts, want 1 after 1", got.Entries, calls.Load())
		}
		time.Sleep(time.Second)
		if got := c.of(t.Context(), "r1"); got.Entries != 1 { // the old one, at once
			t.Errorf("at its time: %d entries, want 1", got.Entries)
		}
		synctest.Wait()
		time.Sleep(time.Second)
		if got := c.of(t.Context(), "r1"); got.Entries != 2 {
			t.Errorf("after the second count: %d entries, want 2", got.Entries)
		}
	})
}

func TestSlowCountsRestAndTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls, running atomic.Int64
		c := newCounts(func(context.Context, string) (Usage, error) {
			if running.Add(1) > 1 {
				t.Error("two counts at once")
			}
			time.Sleep(10 * time.Second)
			running.Add(-1)
			return Usage{Entries: calls.Add(1)}, nil
		}, time.Now)
		started := time.Now()
		for _, id := range []string{"r1", "r2", "r3"} {
			if c.of(t.Context(), id).Known {
				t.Errorf("%s is known before it was counted", id)
			}
		}
		if waited := time.Since(started); waited > 3*countWait {
			t.Errorf("three pages waited %v", waited)
		}
		time.Sleep(90 * time.Second)
		for _, id := range []string{"r1", "r2", "r3"} {
			if !c.of(t.Context(), id).Known {
				t.Errorf("%s is not known", id)
			}
		}
		if calls.Load() != 3 {
			t.Errorf("%d counts in 90 s of namespaces that take 10 s, want 3", calls.Load())
		}
	})
}

func TestCountThatFailsKeepsTheOneBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := []error{nil, errors.New("down"), nil}
		var calls int64
		c := newCounts(func(context.Context, string) (Usage, error) {
			calls++
			return Usage{Entries: calls}, answers[calls-1]
		}, time.Now)
		for i, want := range []int64{1, 1, 3} {
			c.of(t.Context(), "r1")
			synctest.Wait()
			if got := c.of(t.Context(), "r1"); got.Entries != want || !got.Known {
				t.Errorf("count %d: %d entries, want %d", i, got.Entries, want)
			}
			time.Sleep(countEvery)
		}
	})
}
