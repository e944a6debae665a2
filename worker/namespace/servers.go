package namespace

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// replicaPatience is how long replicas may take to confirm what was written.
	replicaPatience = 10 * time.Second
	// replicaWait is for how long a server is asked at a time: far less than a reply may take.
	replicaWait = 200 * time.Millisecond
	// followersLife is how long it is remembered how many replicas there were.
	followersLife = time.Hour
)

// Servers names the processes that hold the namespaces, of a Cluster its primaries. A restart changes the
// name and so does a promotion, also one that makes a server the primary again: while the name stays,
// nothing that was written is lost. It is "" for an embedded server, or one that does not tell.
func (c *Cache) Servers(ctx context.Context) (string, error) {
	return c.onEach(ctx, func(ctx context.Context, on pipeliner, _ string, _ int) (string, error) {
		found, err := identify(ctx, on)
		return found.name, err
	})
}

// Replicated waits until the replicas have all that was written before the call, so that it outlives a
// failover to any of them, and returns what Servers does, as it was then. Whoever noted Servers before
// it wrote, and is given the same name now, has lost nothing and will not lose it. A replica that is not
// connected at the moment is waited for as well. It waits for ten seconds at most: a replica that is further behind, or gone,
// does not stop the work, and is not waited for again before it is back.
func (c *Cache) Replicated(ctx context.Context) (servers string, err error) {
	return c.onEach(ctx, confirmed)
}

// onEach calls ask for every server, with a key that lies on it and how many replicas its Cluster knows
// that it has, and returns the replies together.
func (c *Cache) onEach(ctx context.Context, ask func(ctx context.Context, on pipeliner, key string, replicas int) (string, error)) (all string, err error) {
	if !c.sharded {
		return ask(ctx, c.client, c.keys.Followers(""), 0)
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
			name, err := ask(ctx, cl.server(now[id].addr), c.keys.Followers(slotTags()[slot]), now[id].replicas)
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

// confirmed waits for one server's replicas: those that follow it, and those that did. A write of its own comes behind
// all others in what they are sent.
func confirmed(ctx context.Context, on pipeliner, key string, replicas int) (string, error) {
	begun := time.Now()
	var before *redis.StringCmd
	found, err := identify(ctx, on, func(p redis.Pipeliner) { before = p.Get(ctx, key) })
	if err != nil {
		return "", err
	}
	if name, n, _ := strings.Cut(before.Val(), " "); name == found.name {
		replicas, _ = strconv.Atoi(n)
	}
	for replicas = max(replicas, found.replicas); replicas > 0; replicas = max(replicas, found.replicas) {
		var noted *redis.StatusCmd
		var have *redis.IntCmd
		found, err = identify(ctx, on, func(p redis.Pipeliner) {
			noted = p.Set(ctx, key, fmt.Sprint(found.name, " ", replicas), followersLife)
			have = redis.NewIntCmd(ctx, "WAIT", replicas, replicaWait.Milliseconds())
			_ = p.Process(ctx, have)
		})
		switch err = cmp.Or(err, noted.Err()); {
		case err != nil || have.Val() >= int64(replicas):
			return found.name, err
		case time.Since(begun) > replicaPatience:
			return found.name, on.Set(ctx, key, fmt.Sprint(found.name, " ", found.replicas), followersLife).Err()
		}
	}
	return found.name, nil
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
	if err != nil && !errors.As(err, &refused) && !errors.Is(err, redis.Nil) {
		return identity{}, err
	}
	run, history := runID.FindStringSubmatch(server.Val()), historyID.FindStringSubmatch(replication.Val())
	if run == nil || history == nil {
		return identity{}, nil
	}
	return identity{run[1] + ":" + history[1], len(follower.FindAllString(replication.Val(), -1))}, nil
}
