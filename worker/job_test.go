package worker

import (
	"bytes"
	"context"
	"sync"
	"testing"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/governor/throttle"
	"github.com/alphanode/stoker/worker/redistest"
)

// slowWriter is a result that takes its time.
type slowWriter struct {
	enter, leave chan struct{}
	mu           sync.Mutex
	lines        []string
}

func (w *slowWriter) Write(p []byte) (int, error) {
	w.enter <- struct{}{}
	<-w.leave
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = append(w.lines, string(bytes.Clone(p)))
	return len(p), nil
}

// TestProgress: progress never waits for Redis, is throttled, and is over before the result.
func TestProgress(t *testing.T) {
	out := &slowWriter{enter: make(chan struct{}, 1), leave: make(chan struct{})}
	j := &job{id: "a", result: out, work: throttle.NewTask(tasks.PaceGentle, false)}
	j.Progress("read", 1, 10)
	receive(t, "the first write", out.enter)
	j.Progress("write", 2, 10) // one write at a time: left out
	close(out.leave)
	j.settle()
	j.Progress("read", 3, 10) // too soon: left out
	j.Progress("write", 4, 0) // another phase: shown
	receive(t, "the second write", out.enter)
	j.settle()
	if len(out.lines) != 2 {
		t.Fatalf("progress lines %q, want two", out.lines)
	}
	if p, ok := ParseProgress([]byte(out.lines[1])); !ok || p != (Progress{Phase: "write", Done: 4, Pace: tasks.PaceGentle}) {
		t.Errorf("progress line %q reads as %+v, %v", out.lines[1], p, ok)
	}
	for _, result := range []string{"", `{"from":1}`, `[1]`, `{"progress":null}`} {
		if p, ok := ParseProgress([]byte(result)); ok {
			t.Errorf("result %q reads as progress %+v", result, p)
		}
	}
}

// TestCursor: what a try saves the next one loads; the cursor expires by itself.
func TestCursor(t *testing.T) {
	ctx := context.Background()
	c := redistest.Mini(t)
	key := tasks.KeysOf(app).Cursor("a")
	j := &job{id: "a", cursor: key, queue: c}
	at := struct{ Next uint64 }{}
	if ok, err := j.Load(ctx, &at); ok || err != nil {
		t.Errorf("load of nothing: %v, %v", ok, err)
	}
	if err := j.Save(ctx, struct{ Next uint64 }{18446744073709551615}); err != nil {
		t.Fatal(err)
	}
	next := &job{id: "a", cursor: key, queue: c}
	if ok, err := next.Load(ctx, &at); !ok || err != nil || at.Next != 18446744073709551615 {
		t.Errorf("load: %+v, %v, %v", at, ok, err)
	}
	if ttl := c.PTTL(ctx, key).Val(); ttl != keep {
		t.Errorf("cursor expires in %v, want %v", ttl, keep)
	}
	c.Set(ctx, key, "broken", 0)
	if _, err := next.Load(ctx, &at); err == nil {
		t.Error("a broken cursor was loaded")
	}
}
