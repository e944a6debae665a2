package namespace

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// position is how far a walk over a Cluster has come. It is safe for concurrent use.
type position struct {
	mu     sync.Mutex
	before topology          // what its round began with
	todo   map[string]uint64 // the shards that it has not finished, by node ID → where to go on
}

// begin takes a walk's first look, unless it goes on from an earlier one's.
func (p *position) begin(now topology) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.before == nil {
		p.before, p.todo = now, map[string]uint64{}
		for id := range now {
			p.todo[id] = 0
		}
	}
}

// left returns what there is to do.
func (p *position) left() map[string]uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.todo)
}

// same reports whether a shard is the process that it was when the round began.
func (p *position) same(s *shard) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.before[s.id]
	return was != nil && was.process == s.process
}

// reach notes that a shard was gone through up to a cursor, to its end when that is 0.
func (p *position) reach(id string, cursor uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if cursor == 0 {
		delete(p.todo, id)
	} else {
		p.todo[id] = cursor
	}
}

// finish notes that a shard was gone through.
func (p *position) finish(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.todo, id)
}

// advance begins the next round by a look after the last, and returns how many shards it has: those
// that may have been given keys, from their start, and those not finished.
func (p *position) advance(now topology) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	todo := map[string]uint64{}
	for id, s := range now {
		was := p.before[id]
		if was == nil || gained(was, s) {
			todo[id] = 0
		} else if cursor, open := p.todo[id]; open {
			todo[id] = cursor
		}
	}
	p.before, p.todo = now, todo
	return len(todo)
}

// positionMark begins a position that is written down.
const positionMark = "cluster1"

// String writes a position down, for a later walk to go on from.
func (p *position) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	b.WriteString(positionMark)
	for _, id := range slices.Sorted(maps.Keys(p.before)) {
		s, at := p.before[id], "-"
		if cursor, open := p.todo[id]; open {
			at = strconv.FormatUint(cursor, 10)
		}
		fmt.Fprintf(&b, ";%s %d %d %d %t %s %s", id, s.process, s.epoch, s.imports, s.importing, at, s.slots.String())
	}
	return b.String()
}

// parsePosition reads what String wrote. Anything else, such as the cursor of a single server, is
// the beginning: all work is safe twice.
func parsePosition(text string) *position {
	mark, rest, _ := strings.Cut(text, ";")
	if mark != positionMark || rest == "" {
		return &position{}
	}
	p := &position{before: topology{}, todo: map[string]uint64{}}
	for part := range strings.SplitSeq(rest, ";") {
		if err := p.parseShard(part); err != nil {
			return &position{}
		}
	}
	return p
}

func (p *position) parseShard(text string) error {
	var s shard
	var at, slots string
	if n, err := fmt.Sscanf(text, "%s %d %d %d %t %s %s", &s.id, &s.process, &s.epoch, &s.imports, &s.importing, &at, &slots); n < 6 {
		return err
	}
	for r := range strings.SplitSeq(slots, ",") {
		if r == "" {
			continue // a shard without slots
		}
		if err := s.slots.addRange(r); err != nil {
			return err
		}
	}
	if at != "-" {
		cursor, err := strconv.ParseUint(at, 10, 64)
		if err != nil {
			return err
		}
		p.todo[s.id] = cursor
	}
	p.before[s.id] = &s
	return nil
}
