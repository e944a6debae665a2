package tasks

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// server stands for the queue Redis: it numbers records, and holds each until it is let go.
type server struct {
	mu      sync.Mutex
	last    int64
	records [][]Invalidation
	tasks   [][]int64

	held      chan struct{} // a record has arrived
	letGo     chan struct{}
	enqueuing error
}

func newServer() *server {
	return &server{held: make(chan struct{}, 1000), letGo: make(chan struct{}, 1000)}
}

func (s *server) record(g *group) (int64, error) {
	s.held <- struct{}{}
	<-s.letGo
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = append(s.records, g.calls)
	first := s.last + 1
	s.last += int64(len(g.calls))
	return first, nil
}

func (s *server) enqueue(groups []*group) error {
	var numbers []int64
	for _, g := range groups {
		numbers = append(numbers, g.number)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tasks = append(s.tasks, numbers)
	return s.enqueuing
}

func callOf(kind Kind, targets int) Invalidation {
	call := Invalidation{By: by}
	for range targets {
		call.Targets = append(call.Targets, Target{kind, "a"})
	}
	return call
}

// submitted is what became of a call.
type submitted struct {
	number int64
	err    error
}

func submit(c *committer, call Invalidation) <-chan submitted {
	done := make(chan submitted, 1)
	go func() {
		n, err := c.submit(context.Background(), call)
		done <- submitted{n, err}
	}()
	return done
}

// queued waits until so many targets have been taken in.
func (c *committer) queued(targets int) {
	for {
		c.mu.Lock()
		n := c.targets
		c.mu.Unlock()
		if n >= targets {
			return
		}
		runtime.Gosched()
	}
}

// TestCallsShareARecord: those that come while a record is under way share the next one, with
// numbers of their own; a call with a prefix, which needs long, has one for itself.
func TestCallsShareARecord(t *testing.T) {
	s := newServer()
	c := &committer{record: s.record, enqueue: s.enqueue, limit: 1000}
	all := []<-chan submitted{submit(c, callOf(KindKey, 1))}
	<-s.held
	for i, kind := range []Kind{KindKey, KindTag, KindPrefix, KindKey} {
		all = append(all, submit(c, callOf(kind, 1)))
		c.queued(i + 2)
	}
	for range 10 {
		s.letGo <- struct{}{}
	}
	var numbers []int64
	for _, done := range all {
		got := <-done
		if got.err != nil {
			t.Fatal(got.err)
		}
		numbers = append(numbers, got.number)
	}
	if want := []int64{1, 2, 3, 4, 5}; !slices.Equal(numbers, want) {
		t.Errorf("numbers %v, want %v", numbers, want)
	}
	var sizes []int
	for _, r := range s.records {
		sizes = append(sizes, len(r))
	}
	if want := []int{1, 2, 1, 1}; !slices.Equal(sizes, want) {
		t.Errorf("records of %v calls, want %v", sizes, want)
	}
	if told := slices.Concat(s.tasks...); !slices.Equal(told, []int64{1, 2, 4, 5}) {
		t.Errorf("tasks for the records %v", s.tasks)
	}
}

// TestFullClient: what waits is bounded; beyond it a call fails at once and says how much waits, and
// once the queue Redis answers there is room again.
func TestFullClient(t *testing.T) {
	s := newServer()
	c := &committer{record: s.record, enqueue: s.enqueue, limit: 10}
	first, second := submit(c, callOf(KindKey, 4)), submit(c, callOf(KindKey, 6))
	c.queued(10)
	if _, err := c.submit(t.Context(), callOf(KindKey, 1)); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "10 targets, the limit is 10") {
		t.Errorf("a call beyond the limit: %v", err)
	}
	for range 10 {
		s.letGo <- struct{}{}
	}
	for _, done := range []<-chan submitted{first, second} {
		if got := <-done; got.err != nil {
			t.Error(got.err)
		}
	}
	if _, err := c.submit(t.Context(), callOf(KindKey, 10)); err != nil {
		t.Errorf("a call after the queue Redis answered: %v", err)
	}
}

// TestNotEnqueued: a call whose task could not be enqueued is recorded, has its number, and says so.
func TestNotEnqueued(t *testing.T) {
	s := newServer()
	s.enqueuing = errors.New("away")
	s.letGo <- struct{}{}
	c := &committer{record: s.record, enqueue: s.enqueue, limit: 10}
	if n, err := c.submit(t.Context(), callOf(KindKey, 1)); n != 1 || !errors.Is(err, ErrNotEnqueued) {
		t.Errorf("number %d, %v", n, err)
	}
}

// TestCallerGivesUp: a caller whose context ends does not wait, and learns that its call may be
// recorded all the same.
func TestCallerGivesUp(t *testing.T) {
	s := newServer()
	c := &committer{record: s.record, enqueue: s.enqueue, limit: 10}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-s.held; cancel() }()
	if _, err := c.submit(ctx, callOf(KindKey, 1)); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "may still be applied") {
		t.Errorf("got %v", err)
	}
	s.letGo <- struct{}{}
	if _, err := c.submit(ctx, callOf(KindKey, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("a call on an ended context: %v", err)
	}
}
