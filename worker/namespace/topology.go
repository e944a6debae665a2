package namespace

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

const (
	// patience is how long work waits for a Cluster whose slots are not all served: for the promotion
	// of a replica, which with Redis's default settings takes some 20 s.
	patience = time.Minute
	// patienceStep is the time between two looks.
	patienceStep = 100 * time.Millisecond
)

// shard is one primary of a Cluster as it was at one moment.
type shard struct {
	id      string // node ID
	addr    string
	client  *redis.Client
	process string // run ID: another one is another process, whose keys may differ
	epoch   string // of its configuration: it rises when the primary takes over slots
	slots   slotSet
}

// move is the migration of slots from one primary to another.
type move struct{ from, to string } // node IDs

// topology is who served what in a Cluster at one moment, and what was on its way.
type topology struct {
	shards map[string]shard // by node ID
	moves  []move
}

// errUnsettled: the primaries do not agree on who serves what, or nobody serves some slots.
var errUnsettled = errors.New("not every slot of the Cluster is served by one primary just now")

// topology returns the topology once every slot has one owner that answers.
func (c *Cache) topology(ctx context.Context) (topology, error) {
	cluster, ok := c.client.(*redis.ClusterClient)
	if !ok {
		return topology{}, fmt.Errorf("%w: the cache Redis is a ring of servers, of which stoker knows single servers, Sentinel groups and Clusters (STOKER_CACHE_URL)", tasks.ErrInvalid)
	}
	var t topology
	err := patiently(ctx, func() (err error) {
		t, err = look(ctx, cluster)
		return err
	}, func(error) bool { return true })
	if err != nil {
		return topology{}, fmt.Errorf("look at the Cluster: %w", err)
	}
	return t, nil
}

// patiently tries until do succeeds or fails in a way that does not pass, and returns its last error
// when the patience ends.
func patiently(ctx context.Context, do func() error, passes func(error) bool) error {
	end := time.Now().Add(patience)
	for {
		err := do()
		if err == nil || !passes(err) || ctx.Err() != nil || time.Now().After(end) {
			return err
		}
		t := time.NewTimer(patienceStep)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

// look asks every primary for its own view of itself, which is the one that counts.
func look(ctx context.Context, cluster *redis.ClusterClient) (topology, error) {
	t := topology{shards: map[string]shard{}}
	var mu sync.Mutex
	err := cluster.ForEachMaster(ctx, func(ctx context.Context, client *redis.Client) error {
		var nodes, server *redis.StringCmd
		_, err := client.Pipelined(ctx, func(p redis.Pipeliner) error {
			nodes, server = p.ClusterNodes(ctx), p.Info(ctx, "server")
			return nil
		})
		if err != nil {
			return err
		}
		s, moves, err := parseSelf(nodes.Val())
		if err != nil {
			return err
		}
		if id := runID.FindStringSubmatch(server.Val()); id != nil {
			s.process = id[1]
		}
		s.addr, s.client = client.Options().Addr, client
		mu.Lock()
		defer mu.Unlock()
		t.shards[s.id] = s
		t.moves = append(t.moves, moves...)
		return nil
	})
	if err != nil {
		return topology{}, err
	}
	return t, t.whole()
}

// whole reports why the primaries do not own every slot once.
func (t topology) whole() error {
	var all slotSet
	owned := 0
	for _, s := range t.shards {
		owned += s.slots.count()
		all.add(s.slots)
	}
	if owned != tasks.Slots || all.count() != tasks.Slots {
		return errUnsettled
	}
	return nil
}

// parseSelf reads what a primary says of itself in CLUSTER NODES, and its slots' open migrations.
//
//	<id> <address> myself,master - <ping> <pong> <epoch> <link> 0-100 200 [300->-<id>] [301-<-<id>]
func parseSelf(nodes string) (shard, []move, error) {
	for line := range strings.Lines(nodes) {
		f := strings.Fields(line)
		if len(f) < 8 || !strings.Contains(f[2], "myself") {
			continue
		}
		if !strings.Contains(f[2], "master") {
			return shard{}, nil, errUnsettled // it has just become a replica
		}
		s := shard{id: f[0], epoch: f[6]}
		var moves []move
		for _, part := range f[8:] {
			if to, ok := migrating(part, "->-"); ok {
				moves = append(moves, move{s.id, to})
			} else if from, ok := migrating(part, "-<-"); ok {
				moves = append(moves, move{from, s.id})
			} else if err := s.slots.parse(part); err != nil {
				return shard{}, nil, err
			}
		}
		return s, moves, nil
	}
	return shard{}, nil, errors.New("CLUSTER NODES does not name the server itself")
}

// migrating returns the other primary of a slot's open migration, written "[slot->-id]".
func migrating(part, arrow string) (id string, ok bool) {
	_, id, ok = strings.Cut(strings.Trim(part, "[]"), arrow)
	return id, ok
}

// slotSet is a set of hash slots.
type slotSet [tasks.Slots / 64]uint64

// parse adds a slot, "7", or a range of them, "7-12".
func (s *slotSet) parse(text string) error {
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	from, err1 := strconv.Atoi(first)
	to, err2 := strconv.Atoi(last)
	if err1 != nil || err2 != nil || from < 0 || from > to || to >= tasks.Slots {
		return fmt.Errorf("CLUSTER NODES names slots %q", text)
	}
	for slot := from; slot <= to; slot++ {
		s[slot/64] |= 1 << (slot % 64)
	}
	return nil
}

func (s *slotSet) add(o slotSet) {
	for i := range s {
		s[i] |= o[i]
	}
}

// within reports whether all slots of s are in o too.
func (s slotSet) within(o slotSet) bool {
	for i := range s {
		if s[i]&^o[i] != 0 {
			return false
		}
	}
	return true
}

func (s slotSet) count() (n int) {
	for _, word := range s {
		n += bits.OnesCount64(word)
	}
	return n
}
