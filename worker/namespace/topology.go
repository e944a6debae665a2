package namespace

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// settlePatience is how long a Cluster may take to agree on who owns what: far longer than
	// a failover with Redis's default timeout.
	settlePatience = time.Minute
	// settlePoll is the time between two looks at a Cluster that has not settled.
	settlePoll = 100 * time.Millisecond
)

// shard is one primary of a Cluster, as it sees itself.
type shard struct {
	id   string // its node ID
	addr string // where clients reach it

	process   process
	epoch     int64   // of its configuration: grows with what it takes over
	imports   int64   // keys that were moved to it since its process began; -1: it does not tell
	importing bool    // a slot is being moved to it
	replicas  int     // that it is known to have, whether they answer or not
	slots     slotSet // that it owns
	steady    slotSet // those of slots that are not being moved away
}

// gained reports whether keys may have come to the shard between two looks at it.
func gained(before, after *shard) bool {
	return before.process != after.process || before.epoch != after.epoch || before.imports != after.imports ||
		after.imports < 0 && (before.importing || after.importing) || !after.slots.within(&before.slots)
}

// topology is what a look at a Cluster saw: its primaries by node ID, those without slots as well.
type topology map[string]*shard

// fenceSlot returns a slot that the shard will go on serving as far as it knows, -1 when it has none.
func (s *shard) fenceSlot() int {
	for _, set := range []*slotSet{&s.steady, &s.slots} {
		for slot := range slotCount {
			if set.has(slot) {
				return slot
			}
		}
	}
	return -1
}

// cluster looks at a Redis Cluster and reaches its servers one by one. Close it.
type cluster struct {
	client *redis.ClusterClient

	mu      sync.Mutex
	servers map[string]*redis.Client // by address
}

func newCluster(client *redis.ClusterClient) *cluster {
	return &cluster{client: client, servers: map[string]*redis.Client{}}
}

// close ends the connections to single servers.
func (c *cluster) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.servers {
		_ = s.Close()
	}
	clear(c.servers)
}

// server returns a client of one server, which follows no redirection.
func (c *cluster) server(addr string) *redis.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.servers[addr]; s != nil {
		return s
	}
	o := c.client.Options()
	s := redis.NewClient(&redis.Options{
		Addr: addr, ClientName: o.ClientName, Dialer: o.Dialer, OnConnect: o.OnConnect, Protocol: o.Protocol,
		Username: o.Username, Password: o.Password, CredentialsProvider: o.CredentialsProvider,
		CredentialsProviderContext: o.CredentialsProviderContext, TLSConfig: o.TLSConfig,
		DialTimeout: o.DialTimeout, ReadTimeout: o.ReadTimeout, WriteTimeout: o.WriteTimeout,
		ContextTimeoutEnabled: o.ContextTimeoutEnabled, DisableIdentity: o.DisableIdentity,
		// A script whose reply was lost is not sent again: its server may be another by then.
		MaxRetries: -1,
	})
	c.servers[addr] = s
	return s
}

// look returns the primaries once they all agree on who owns which slot, every slot has an owner,
// and each of them has told about itself.
func (c *cluster) look(ctx context.Context) (topology, error) {
	deadline := time.Now().Add(settlePatience)
	for {
		t, err := c.glance(ctx)
		if err == nil || ctx.Err() != nil {
			return t, errors.Join(err, ctx.Err())
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("the Cluster has not settled within %v: %w", settlePatience, err)
		}
		c.client.ReloadState(ctx)
		if err := sleep(ctx, settlePoll); err != nil {
			return nil, err
		}
	}
}

// glance is one try of look.
func (c *cluster) glance(ctx context.Context) (topology, error) {
	addrs, err := c.primaries(ctx)
	if err != nil {
		return nil, err
	}
	t, views := topology{}, map[string]*view{}
	for id, addr := range addrs {
		s, v, err := c.ask(ctx, id, addr)
		if err != nil {
			return nil, fmt.Errorf("primary %s: %w", addr, err)
		}
		t[id], views[id] = s, v
	}
	var owned slotSet
	for id, v := range views {
		for other := range v.primaries {
			if t[other] == nil {
				return nil, fmt.Errorf("primary %s knows of a further one, %s", t[id].addr, other)
			}
		}
		for other, s := range t {
			if v.owned[other] != s.slots {
				return nil, fmt.Errorf("primaries %s and %s disagree on the slots of the latter", t[id].addr, s.addr)
			}
		}
		for i, word := range t[id].slots {
			owned[i] |= word
		}
	}
	if n := owned.size(); n < slotCount {
		return nil, fmt.Errorf("%d of its %d slots have no owner", slotCount-n, slotCount)
	}
	return t, nil
}

// primaries returns the addresses of the primaries that some server knows, by node ID.
func (c *cluster) primaries(ctx context.Context) (map[string]string, error) {
	shards, err := c.client.ClusterShards(ctx).Result()
	if err != nil {
		return nil, fmt.Errorf("list the Cluster's servers: %w", err)
	}
	out := map[string]string{}
	for _, s := range shards {
		for _, n := range s.Nodes {
			if n.Role != "master" || n.Health == "fail" {
				continue
			}
			host, port := n.Endpoint, n.Port
			if host == "" || host == "?" {
				host = n.IP
			}
			if c.client.Options().TLSConfig != nil && n.TLSPort != 0 {
				port = n.TLSPort
			}
			out[n.ID] = net.JoinHostPort(host, strconv.FormatInt(port, 10))
		}
	}
	return out, nil
}

var importCalls = regexp.MustCompile(`(?m)^cmdstat_restore-asking:calls=(\d+)`)

// ask has a primary tell about itself and about what it knows of the others.
func (c *cluster) ask(ctx context.Context, id, addr string) (*shard, *view, error) {
	var nodes *redis.StringCmd
	var info *redis.StringCmd
	_, err := c.server(addr).Pipelined(ctx, func(p redis.Pipeliner) error {
		nodes = p.ClusterNodes(ctx)
		info = p.Info(ctx, "server", "commandstats")
		return nil
	})
	var refused redis.Error // INFO may be withheld
	if nodes.Err() != nil || err != nil && !errors.As(err, &refused) {
		return nil, nil, err
	}
	v, err := parseNodes(nodes.Val())
	if err != nil {
		return nil, nil, err
	}
	s := v.self
	switch {
	case s.id != id:
		return nil, nil, fmt.Errorf("it is node %s, want %s", s.id, id)
	case !v.primaries[id]:
		return nil, nil, errors.New("it is a replica now")
	}
	s.addr, s.imports = addr, -1
	if m := runID.FindStringSubmatch(info.Val()); m != nil {
		s.process = processOf(m[1])
	}
	// What was moved to it came by this command. A server that tells its statistics, and none
	// of this one, was given nothing.
	if strings.Contains(info.Val(), "\ncmdstat_") {
		s.imports = 0
		if m := importCalls.FindStringSubmatch(info.Val()); m != nil {
			s.imports, _ = strconv.ParseInt(m[1], 10, 64)
		}
	}
	return s, v, nil
}

// view is a server's picture of its Cluster.
type view struct {
	self      *shard
	primaries map[string]bool    // by node ID, without those that are known to have failed
	owned     map[string]slotSet // their slots
}

// parseNodes reads the reply of CLUSTER NODES.
func parseNodes(text string) (*view, error) {
	v := &view{primaries: map[string]bool{}, owned: map[string]slotSet{}}
	replicas := map[string]int{} // by their primary's node ID
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 8 {
			return nil, fmt.Errorf("CLUSTER NODES: line %q has %d fields, want 8 or more", line, len(f))
		}
		id, flags := f[0], strings.Split(f[2], ",")
		s := &shard{id: id}
		var leaving []int
		for _, r := range f[8:] {
			switch inner, open := strings.CutPrefix(r, "["); {
			case !open:
				if err := s.slots.addRange(r); err != nil {
					return nil, fmt.Errorf("CLUSTER NODES: node %s: %w", id, err)
				}
			case strings.Contains(inner, "-<-"):
				s.importing = true
			default:
				slot, _, _ := strings.Cut(inner, "->-")
				if n, err := strconv.Atoi(slot); err == nil {
					leaving = append(leaving, n)
				}
			}
		}
		s.steady = s.slots
		for _, slot := range leaving {
			s.steady[slot/64] &^= 1 << (slot % 64)
		}
		if slices.Contains(flags, "master") && !slices.Contains(flags, "fail") && !slices.Contains(flags, "handshake") && !slices.Contains(flags, "noaddr") {
			v.primaries[id], v.owned[id] = true, s.slots
		} else if s.slots != (slotSet{}) {
			return nil, fmt.Errorf("its primary %s has failed, with %d slots", id, s.slots.size())
		}
		if slices.Contains(flags, "slave") {
			replicas[f[3]]++
		}
		if slices.Contains(flags, "myself") {
			v.self = s
			s.epoch, _ = strconv.ParseInt(f[6], 10, 64)
		}
	}
	if v.self == nil {
		return nil, errors.New("CLUSTER NODES: no node is the server itself")
	}
	v.self.replicas = replicas[v.self.id]
	return v, nil
}

// sleep returns after d, or with ctx's error.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}
