package throttle

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/governor"
)

const (
	// linger is how long the sampling goes on after the last slice.
	linger = 3 * time.Second
	// firstLook is how long work that adds memory waits for the first look at it.
	firstLook = 2 * time.Second
)

// sampling is one stretch of time in which work is under way. Its readings are guarded by the
// throttle's mutex.
type sampling struct {
	t     *Throttle
	nodes map[string]*governor.Readings // by address; "" for the one server
	first chan struct{}                 // closed when every server was looked at once, or would not answer
	ends  map[string]context.CancelFunc // of the servers' own loops; used by the main loop alone
	loops sync.WaitGroup
}

// touch notes that a work is under way, and has the servers sampled. t.mu is held.
func (t *Throttle) touch(adds bool) {
	t.used = time.Now()
	if adds {
		t.added = t.used
	}
	if t.now != nil || t.ctx.Err() != nil {
		return
	}
	t.now = &sampling{t: t, nodes: map[string]*governor.Readings{}, first: make(chan struct{}), ends: map[string]context.CancelFunc{}}
	t.ending.Go(t.now.run)
}

// known returns when enough is known of the servers for a work to begin: their memory, where it adds
// to it.
func (t *Throttle) known(ctx context.Context, w Work) error {
	t.mu.Lock()
	t.touch(w.Adds)
	s := t.now
	t.mu.Unlock()
	if !w.Adds || s == nil || t.deps.Config.MemoryHeadroom == 0 {
		return ctx.Err()
	}
	select {
	case <-s.first:
		return ctx.Err()
	default:
	}
	limit := time.NewTimer(firstLook)
	defer limit.Stop()
	select {
	case <-s.first:
	case <-limit.C:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// run samples until no work was under way for a while.
func (s *sampling) run() {
	ctx, cancel := context.WithCancel(s.t.ctx)
	defer s.loops.Wait()
	defer cancel()
	var looks sync.WaitGroup
	s.watch(ctx, &looks)
	looks.Wait()
	close(s.first)
	tick := time.NewTicker(governor.EverySlow)
	defer tick.Stop()
	for {
		s.count(ctx)
		s.publish(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s.over() {
			return
		}
		s.watch(ctx, nil)
	}
}

// over ends the sampling when no work is under way.
func (s *sampling) over() bool {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	if time.Since(s.t.used) < linger {
		return false
	}
	s.t.now = nil
	clear(s.t.turns)
	clear(s.t.brakes)
	return true
}

// watch begins to sample servers that are new and ends with those that are gone. looks, if given,
// is done when each new one was looked at once.
func (s *sampling) watch(ctx context.Context, looks *sync.WaitGroup) {
	found, err := tasks.Primaries(ctx, s.t.deps.Cache)
	if err != nil {
		return // a Cluster that does not tell its primaries: those known stay
	}
	for name, end := range s.ends {
		if _, ok := found[name]; !ok {
			end()
			delete(s.ends, name)
			s.t.mu.Lock()
			delete(s.nodes, name)
			s.t.mu.Unlock()
		}
	}
	for name, client := range found {
		if s.ends[name] != nil {
			continue
		}
		nodeCtx, end := context.WithCancel(ctx)
		s.ends[name] = end
		n := &node{s: s, name: name, client: client}
		if looks != nil {
			looks.Add(1)
		}
		s.loops.Go(func() {
			n.meet(nodeCtx)
			if looks != nil {
				looks.Done()
			}
			n.loop(nodeCtx)
		})
	}
}

// node is one server that is sampled.
type node struct {
	s      *sampling
	name   string
	client redis.Cmdable
	idle   time.Duration
	looked time.Time // at its memory
}

// meet takes the first samples.
func (n *node) meet(ctx context.Context) {
	n.idle = governor.NoAnswer
	for range governor.IdleTrips {
		n.idle = min(n.idle, n.ping(ctx))
	}
	m, err := ReadMemory(ctx, n.client)
	n.looked = time.Now()
	n.s.t.mu.Lock()
	defer n.s.t.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	r := &governor.Readings{}
	r.Idle(n.idle)
	if err == nil {
		r.Memory = m
	}
	n.s.nodes[n.name] = r
}

// loop goes on sampling.
func (n *node) loop(ctx context.Context) {
	for ctx.Err() == nil {
		due := time.Now().Add(governor.Every)
		if waitUntil(ctx, due) != nil {
			return
		}
		n.sample(ctx, time.Since(due))
	}
}

// sample takes one round trip, and looks at the memory when it is time. late is by how much this
// process was woken late for it.
func (n *node) sample(ctx context.Context, late time.Duration) {
	trip := n.ping(ctx)
	n.s.t.mu.Lock()
	r := n.s.nodes[n.name]
	if r == nil || ctx.Err() != nil {
		n.s.t.mu.Unlock()
		return
	}
	if trip < n.idle {
		n.idle = trip
		r.Idle(trip)
	}
	r.Trip(trip, late)
	adding := time.Since(n.s.t.added) < governor.EverySlow
	n.s.t.mu.Unlock()
	if !adding && time.Since(n.looked) < governor.EverySlow {
		return
	}
	m, err := ReadMemory(ctx, n.client)
	n.looked = time.Now()
	if err != nil {
		return // what was read before still stands
	}
	n.s.t.mu.Lock()
	defer n.s.t.mu.Unlock()
	r.Memory = m
}

// ping returns how long a round trip takes.
func (n *node) ping(ctx context.Context) time.Duration {
	begun := time.Now()
	if n.client.Ping(ctx).Err() != nil {
		return governor.NoAnswer
	}
	return time.Since(begun)
}

// count looks who waits.
func (s *sampling) count(ctx context.Context) {
	if s.t.deps.Waiting == nil {
		return
	}
	waiting, err := s.t.deps.Waiting(ctx)
	if err != nil {
		return // what was read before still stands
	}
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	for _, r := range s.nodes {
		r.Waiting(waiting)
	}
}

func (s *sampling) publish(ctx context.Context) {
	if s.t.deps.Publish != nil {
		_ = s.t.deps.Publish(ctx, s.t.Report()) // for eyes only
	}
}
