package throttle

import (
	"context"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/governor"
)

// Work says what a pacer is for.
type Work struct {
	Verb string // what is done
	Adds bool   // it takes memory of the server
	Node string // address of the primary; "" for the one server, or several
}

// Pacer paces one work of the context's task, by one goroutine.
type Pacer struct {
	t        *Throttle
	task     *Task
	work     Work
	flow     *flow
	pace     tasks.Pace
	reserved time.Duration // of its share, for the slice under way
	waited   time.Duration // before it
}

// Pacer returns the pacer of one work.
func (t *Throttle) Pacer(ctx context.Context, w Work) *Pacer {
	k := Of(ctx)
	if k == nil {
		k = NewTask(t.deps.Config.Pace, false)
	}
	p := &Pacer{t: t, task: k, work: w}
	p.flow, p.pace = k.flow(stream{w.Node, w.Verb}, t.deps.Config.Pace)
	return p
}

func (p *Pacer) share() share { return share{p.work.Node, p.pace, p.task.urgent} }

// Size returns the items of the next slice.
func (p *Pacer) Size() int {
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	return p.flow.governor.Count()
}

// Wait returns when the next slice may begin: its share of the server's time has room for it, and the
// server for what it adds. Its error is ctx's, or wraps tasks.ErrRefused when the server has none.
func (p *Pacer) Wait(ctx context.Context) error {
	begun := time.Now()
	if err := p.t.known(ctx, p.work); err != nil {
		return err
	}
	if err := waitUntil(ctx, p.reserve()); err != nil {
		p.giveBack()
		return err
	}
	if err := p.room(); err != nil {
		p.giveBack()
		return err
	}
	p.waited = time.Since(begun)
	return nil
}

// reserve takes a turn in the work's share and returns when it comes.
func (p *Pacer) reserve() time.Time {
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	at := time.Now()
	for _, t := range []time.Time{p.t.turns[p.share()], p.flow.rest} {
		if t.After(at) {
			at = t
		}
	}
	p.reserved = p.flow.period
	p.t.turns[p.share()] = at.Add(p.reserved)
	return at
}

func (p *Pacer) giveBack() {
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	p.charge(0)
}

// charge replaces what was reserved by what was used.
func (p *Pacer) charge(used time.Duration) {
	p.t.turns[p.share()] = p.t.turns[p.share()].Add(used - p.reserved)
	p.reserved = 0
}

// room refuses work that adds to a server without room for it.
func (p *Pacer) room() error {
	if !p.work.Adds {
		return nil
	}
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	for _, r := range p.t.readings(p.work.Node) {
		if err := p.t.deps.Config.Headroom().Room(r.Memory); err != nil {
			b := Brake{Why: governor.Full}
			p.t.brakes[p.pace] = b
			p.task.braked(b)
			p.t.figure(p.work.Verb, p.pace).Braked[governor.Full]++
			return err
		}
	}
	return nil
}

// Done tells how the slice went: the server time it took, and its items, 0 when it failed.
func (p *Pacer) Done(took time.Duration, items int) {
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	p.t.touch(p.work.Adds)
	b := p.t.brake(p.work.Node, p.pace, p.task.urgent)
	_, pause := p.flow.governor.Next(took, items, b)
	if items > 0 {
		p.flow.period = max(took, 0) + pause
		if pause == 0 { // two at a time, so that the server has the next slice at hand when it ends one
			p.flow.period /= 2
		}
		p.charge(p.flow.period)
	} else {
		p.flow.rest = time.Now().Add(pause)
		p.charge(max(took, 0))
	}
	now := Brake(b)
	p.t.brakes[p.pace] = now
	p.task.braked(now)
	p.t.figure(p.work.Verb, p.pace).add(took, p.waited, items, b.Why)
}

// brake is the hardest of a work's servers.
func (t *Throttle) brake(node string, pace tasks.Pace, urgent bool) governor.Brake {
	hardest := governor.Brake{Factor: 1}
	for _, r := range t.readings(node) {
		hardest = hardest.Harder(r.Brake(pace, urgent))
	}
	return hardest
}

// readings are those of one server; of all where it is not known, or several are meant.
func (t *Throttle) readings(node string) map[string]*governor.Readings {
	if t.now == nil {
		return nil
	}
	if r, ok := t.now.nodes[node]; ok {
		return map[string]*governor.Readings{node: r}
	}
	return t.now.nodes
}

// resolution is how late a timer may be on an idle process: the system's poll counts milliseconds.
const resolution = time.Millisecond

// waitUntil returns about that time, or with ctx's error. It does not wait for what a timer cannot
// tell from nothing: the turn that was taken stands, so the work waits when enough has come together.
func waitUntil(ctx context.Context, at time.Time) error {
	d := time.Until(at)
	if d < resolution {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Look returns how work at the process's own pace is braked that is done elsewhere and adds to the
// cache, such as by a site's instance that is asked for its pages. Its error is ctx's, or wraps
// tasks.ErrRefused when there is no room.
func (t *Throttle) Look(ctx context.Context) (governor.Brake, error) {
	if err := t.known(ctx, Work{Adds: true}); err != nil {
		return governor.Brake{Factor: 1}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.readings("") {
		if err := t.deps.Config.Headroom().Room(r.Memory); err != nil {
			return governor.Brake{Factor: 1, Why: governor.Full}, err
		}
	}
	return t.brake("", t.deps.Config.Pace, false), nil
}
