package namespace

import (
	"context"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// replicaPatience is how long replicas may take to confirm what was written.
	replicaPatience = 10 * time.Second
	// replicaWait is for how long a server is asked at a time: far less than a reply may take.
	replicaWait = 200 * time.Millisecond
)

// Servers names the processes that hold the namespaces, of a Cluster its primaries. A restart changes the
// name and so does a promotion, also one that makes a server the primary again: while the name stays,
// nothing that was written is lost. It is "" for an embedded server, or one that does not tell.
func (c *Cache) Servers(ctx context.Context) (string, error) {
	return c.onEach(ctx, func(ctx context.Context, on pipeliner, _ string) (string, error) {
		found, err := identify(ctx, on)
		c.followers.most(found)
		return found.name, err
	})
}

// Replicated waits until the replicas have all that was written before the call, so that it outlives a
// failover to any of them, and returns what Servers does, as it was then. Whoever noted Servers before
// it wrote, and is given the same name now, has lost nothing and will not lose it. A replica that Servers has
// seen and that is not connected at the moment is waited for as well. It waits for ten seconds at most: a
// replica that is further behind, or gone, does not stop the work.
func (c *Cache) Replicated(ctx context.Context) (servers string, err error) {
	return c.onEach(ctx, c.confirmed)
}

// onEach calls ask for every server, with a key that lies on it, and returns the replies together.
func (c *Cache) onEach(ctx context.Context, ask func(ctx context.Context, on pipeliner, key string) (string, error)) (all string, err error) {
	if !c.sharded {
		return ask(ctx, c.client, c.keys.Barrier(""))
	}
	cl := newCluster(c.client.(*redis.ClusterClient))
	defer cl.close()
	err = c.patiently(ctx, func() error {
		now, err := cl.look(ctx)
		if err != nil {
			return err
		}
		var names []string
		for _, id := range slices.Sorted(maps.Keys(now)) {
			slot := now[id].fenceSlot()
			if slot < 0 {
				continue // it holds no keys
			}
			name, err := ask(ctx, cl.server(now[id].addr), c.keys.Barrier(slotTags()[slot]))
			if err != nil {
				return err
			}
			names = append(names, name)
		}
		all = strings.Join(names, " ")
		return nil
	})
	return all, err
}

// confirmed waits for one server's replicas. A write of its own comes behind all others in what they are sent.
func (c *Cache) confirmed(ctx context.Context, on pipeliner, key string) (string, error) {
	begun := time.Now()
	found, err := identify(ctx, on)
	for want := c.followers.most(found); err == nil && want > 0; want = c.followers.most(found) {
		var have *redis.IntCmd
		found, err = identify(ctx, on, func(p redis.Pipeliner) {
			p.Set(ctx, key, "", time.Minute)
			have = redis.NewIntCmd(ctx, "WAIT", want, replicaWait.Milliseconds())
			_ = p.Process(ctx, have)
		})
		if err != nil || have.Val() >= int64(want) {
			break
		}
		if time.Since(begun) > replicaPatience {
			c.followers.forget(found)
			break
		}
	}
	return found.name, err
}

// followers remembers how many replicas servers had, by name. Its zero value is ready; it is safe for concurrent use.
type followers struct {
	mu   sync.Mutex
	seen map[string]int // guarded by mu
}

// most returns how many replicas the server had at most.
func (f *followers) most(s identity) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seen == nil {
		f.seen = map[string]int{}
	}
	f.seen[s.name] = max(f.seen[s.name], s.replicas)
	return f.seen[s.name]
}

// forget takes those that the server has now for all that there are.
func (f *followers) forget(s identity) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen[s.name] = s.replicas
}

// identity is one server, as it tells of itself.
type identity struct {
	name     string
	replicas int // that follow it
}

var (
	historyID = regexp.MustCompile(`(?m)^master_replid:(\w+)`)
	follower  = regexp.MustCompile(`(?m)^slave\d+:.*state=online`)
)

// identify asks a server who it is, on one connection behind what is queued before.
func identify(ctx context.Context, on pipeliner, before ...func(redis.Pipeliner)) (identity, error) {
	var server, replication *redis.StringCmd
	_, err := on.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, queue := range before {
			queue(p)
		}
		server, replication = p.Info(ctx, "server"), p.Info(ctx, "replication")
		return nil
	})
	var refused redis.Error // INFO may be withheld
	if err != nil && (!errors.As(err, &refused) || len(before) > 0) {
		return identity{}, err
	}
	run, history := runID.FindStringSubmatch(server.Val()), historyID.FindStringSubmatch(replication.Val())
	if run == nil || history == nil {
		return identity{}, nil
	}
	return identity{run[1] + ":" + history[1], len(follower.FindAllString(replication.Val(), -1))}, nil
}

// kept returns nil when servers, as noted before all that was deleted, are those of now, and no failover to
// a replica can bring back what was deleted.
func (p *purge) kept(ctx context.Context, servers string) error {
	now, err := p.cache.Replicated(ctx)
	if err == nil && now != servers {
		return ErrFenceLost
	}
	return err
}
