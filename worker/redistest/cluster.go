package redistest

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// slotCount is how many hash slots a Redis Cluster has.
const slotCount = 16384

// Cluster is a Redis Cluster of real servers. It belongs to one test. After a failover or a move
// the servers agree again on who serves what before its methods return.
type Cluster struct {
	Servers []*Server            // the primaries as they were at the start, then the replicas of each in turn
	URL     string               // what tasks.Connect reads: redis-cluster://…
	Client  *redis.ClusterClient // connected to the cluster; it finds its way by itself

	t    testing.TB
	args []string
}

// StartCluster starts a Redis Cluster of so many primaries, at least three, which share the slots evenly,
// with so many replicas each, and returns when it serves, which takes a good two seconds: a new
// primary refuses to serve before that. A primary that dies is replaced by a replica within some
// three seconds. args are the servers' options, as for [Start].
func StartCluster(t testing.TB, primaries, replicas int, args ...string) *Cluster {
	t.Helper()
	c := &Cluster{t: t, args: args}
	var addrs []string
	for range primaries * (1 + replicas) {
		s := startNode(t, args)
		c.Servers, addrs = append(c.Servers, s), append(addrs, s.Addr)
	}
	for i, s := range c.Servers {
		if i < primaries {
			from, to := i*slotCount/primaries, (i+1)*slotCount/primaries-1
			s.do("CLUSTER", "ADDSLOTSRANGE", from, to)
		}
		s.do("CLUSTER", "SET-CONFIG-EPOCH", i+1)
		for _, other := range c.Servers[:i] {
			s.do("CLUSTER", "MEET", other.host(), other.port(), other.busPort())
		}
	}
	Eventually(t, "the servers to know one another", func() bool { return c.agree(len(c.Servers)) })
	for i, s := range c.Servers[primaries:] {
		s.do("CLUSTER", "REPLICATE", c.Servers[i/replicas].nodeID())
	}
	c.InStep()
	c.URL = "redis-cluster://" + addrs[0] + "?addr=" + strings.Join(addrs[1:], "&addr=")
	if password := c.Servers[0].option("--requirepass"); password != "" {
		c.URL = strings.Replace(c.URL, "://", "://:"+password+"@", 1)
	}
	c.Client = redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: addrs, Password: c.Servers[0].option("--requirepass"), ClusterStateReloadInterval: time.Second,
	})
	t.Cleanup(func() { _ = c.Client.Close() })
	return c
}

func startNode(t testing.TB, args []string) *Server {
	t.Helper()
	bus, err := freeAddr()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(bus)
	own := []string{
		"--cluster-enabled", "yes", "--cluster-port", port,
		// A server that a busy machine holds up for less is not taken for dead.
		"--cluster-node-timeout", "1500",
		// However long its primary has been away, a replica may be promoted.
		"--cluster-replica-validity-factor", "0",
	}
	if i := slices.Index(args, "--requirepass"); i >= 0 {
		own = append(own, "--masterauth", args[i+1])
	}
	return Start(t, append(own, args...)...)
}

// Primaries returns the servers that are primaries now, those without slots included.
func (c *Cluster) Primaries() []*Server {
	c.t.Helper()
	return slices.DeleteFunc(slices.Clone(c.Servers), func(s *Server) bool { return s.role() != "master" })
}

// Owner returns the primary that serves a key.
func (c *Cluster) Owner(key string) *Server {
	c.t.Helper()
	return c.OwnerOf(c.Slot(key))
}

// Slot returns a key's hash slot.
func (c *Cluster) Slot(key string) int {
	c.t.Helper()
	for _, s := range c.Servers {
		if n, err := s.Client.ClusterKeySlot(context.Background(), key).Result(); err == nil {
			return int(n)
		}
	}
	c.t.Fatal("no server of the cluster answers")
	return 0
}

// OwnerOf returns the primary that serves a slot.
func (c *Cluster) OwnerOf(slot int) *Server {
	c.t.Helper()
	for _, s := range c.Primaries() {
		if ownsSlot(s.ownLine(), slot) {
			return s
		}
	}
	c.t.Fatalf("no server owns slot %d", slot)
	return nil
}

// KillPrimary kills a primary without warning and waits until the others have promoted one of its
// replicas, which it returns.
func (c *Cluster) KillPrimary(s *Server) *Server {
	c.t.Helper()
	replicas := c.Replicas(s)
	s.Kill()
	return c.Heir(replicas)
}

// Rejoin starts a server that was killed again, which makes it a replica of its heir, and waits until it is in step.
func (c *Cluster) Rejoin(s *Server) {
	c.t.Helper()
	s.Restart()
	Eventually(c.t, "the replica to be in step", func() bool {
		return strings.Contains(s.replication(), "master_link_status:up")
	})
	c.await("the servers to know of the replica")
}

// Promote makes a primary and its replica change places, as an operator does before maintenance: nothing
// is lost. It returns the replica, the primary now.
func (c *Cluster) Promote(s *Server) *Server {
	c.t.Helper()
	replicas := c.Replicas(s)
	replicas[0].do("CLUSTER", "FAILOVER")
	return c.Heir(replicas[:1])
}

// Replicas returns a primary's replicas.
func (c *Cluster) Replicas(s *Server) []*Server {
	c.t.Helper()
	id := s.nodeID()
	replicas := slices.DeleteFunc(slices.Clone(c.Servers), func(r *Server) bool { return !strings.Contains(r.ownLine(), " "+id+" ") })
	if len(replicas) == 0 {
		c.t.Fatalf("the primary %s has no replica to promote", s.Addr)
	}
	return replicas
}

// Heir waits until one of the replicas is a primary, and all know; it returns that one.
func (c *Cluster) Heir(replicas []*Server) (heir *Server) {
	c.t.Helper()
	Eventually(c.t, "a replica to be promoted", func() bool {
		i := slices.IndexFunc(replicas, func(s *Server) bool { return s.role() == "master" })
		if i >= 0 {
			heir = replicas[i]
		}
		return i >= 0
	})
	c.await("the servers to know of the promotion")
	return heir
}

// AddPrimary starts a further primary, without slots.
func (c *Cluster) AddPrimary() *Server {
	c.t.Helper()
	s := startNode(c.t, c.args)
	s.do("CLUSTER", "SET-CONFIG-EPOCH", 1000+len(c.Servers))
	for _, other := range c.Servers {
		s.do("CLUSTER", "MEET", other.host(), other.port(), other.busPort())
	}
	c.Servers = append(c.Servers, s)
	c.await("the new primary to be known")
	return s
}

// Move gives a slot with all its keys to another primary.
func (c *Cluster) Move(slot int, to *Server) {
	c.t.Helper()
	m := c.StartMove(slot, to)
	m.Keys(-1)
	m.Finish()
}

// Move is a slot's migration under way.
type Move struct {
	Slot     int
	From, To *Server

	cluster *Cluster
}

// StartMove opens a slot's migration to another primary: new keys are made there from now on, those
// that exist stay until they are moved.
func (c *Cluster) StartMove(slot int, to *Server) *Move {
	c.t.Helper()
	from := c.OwnerOf(slot)
	to.do("CLUSTER", "SETSLOT", slot, "IMPORTING", from.nodeID())
	from.do("CLUSTER", "SETSLOT", slot, "MIGRATING", to.nodeID())
	return &Move{Slot: slot, From: from, To: to, cluster: c}
}

// Keys moves up to n of the slot's keys, all of them when n is negative, and returns how many.
func (m *Move) Keys(n int) (moved int) {
	m.cluster.t.Helper()
	for n < 0 || moved < n {
		some := 100
		if n >= 0 {
			some = min(some, n-moved)
		}
		keys, err := m.From.Client.ClusterGetKeysInSlot(context.Background(), m.Slot, some).Result()
		if err != nil {
			m.cluster.t.Fatal(err)
		}
		if len(keys) == 0 {
			return moved
		}
		args := []any{"MIGRATE", m.To.host(), m.To.port(), "", 0, 10_000}
		if password := m.To.option("--requirepass"); password != "" {
			args = append(args, "AUTH", password)
		}
		args = append(args, "KEYS")
		for _, key := range keys {
			args = append(args, key)
		}
		m.From.do(args...)
		moved += len(keys)
	}
	return moved
}

// Finish makes the target the slot's owner, once all keys are moved, and waits until all know.
func (m *Move) Finish() {
	c := m.cluster
	c.t.Helper()
	id := m.To.nodeID()
	m.To.do("CLUSTER", "SETSLOT", m.Slot, "NODE", id) // first: what it owns nobody else may claim
	for _, s := range c.Primaries() {
		s.do("CLUSTER", "SETSLOT", m.Slot, "NODE", id)
	}
	c.await("the slot's move to be known")
}

// InStep waits until every living server that is a replica is in step with its primary, and all
// agree: also after one that had died was restarted.
func (c *Cluster) InStep() {
	c.t.Helper()
	Eventually(c.t, "the replicas to be in step", func() bool {
		for _, s := range c.Servers {
			info := s.replication()
			if s.done != nil && (info == "" || strings.Contains(info, "role:slave") && !strings.Contains(info, "master_link_status:up")) {
				return false
			}
		}
		return true
	})
	c.await("the cluster to serve")
}

// await waits until the living servers serve and agree on who owns what.
func (c *Cluster) await(what string) {
	c.t.Helper()
	Eventually(c.t, what, func() bool {
		for _, s := range c.Servers {
			if s.done == nil {
				continue
			}
			info, err := s.Client.ClusterInfo(context.Background()).Result()
			if err != nil || !strings.Contains(info, "cluster_state:ok") {
				return false
			}
		}
		return c.agree(len(c.Servers))
	})
}

// agree reports whether the living servers have the same picture of so many servers.
func (c *Cluster) agree(count int) bool {
	var first string
	for _, s := range c.Servers {
		if s.done == nil {
			continue
		}
		nodes, err := s.Client.ClusterNodes(context.Background()).Result()
		if err != nil {
			return false
		}
		picture := pictureOf(nodes)
		if len(picture) != count || strings.Contains(nodes, "handshake") {
			return false
		}
		if text := strings.Join(picture, "\n"); first == "" {
			first = text
		} else if text != first {
			return false
		}
	}
	return true
}

// pictureOf returns, of each server that CLUSTER NODES lists, who it is, who its primary, its slots, and
// for a primary the epoch of its claim to them: a server that does not know the latest one may claim a
// slot with one that is too low, and lose it again with all its keys.
func pictureOf(nodes string) []string {
	var out []string
	for line := range strings.Lines(nodes) {
		f := strings.Fields(line)
		if len(f) < 8 {
			continue
		}
		slots := slices.DeleteFunc(f[8:], func(s string) bool { return strings.HasPrefix(s, "[") })
		epoch := ""
		if f[3] == "-" {
			epoch = f[6]
		}
		out = append(out, fmt.Sprint(f[0], f[3], epoch, slots))
	}
	slices.Sort(out)
	return out
}

// ownsSlot reports whether a line of CLUSTER NODES claims a slot.
func ownsSlot(line string, slot int) bool {
	f := strings.Fields(line)
	for _, r := range f[min(8, len(f)):] {
		first, last, isRange := strings.Cut(r, "-")
		from, err := strconv.Atoi(first)
		to := from
		if isRange && err == nil {
			to, err = strconv.Atoi(last)
		}
		if err == nil && from <= slot && slot <= to {
			return true
		}
	}
	return false
}

// ownLine is what a server says of itself in CLUSTER NODES, "" when it does not answer.
func (s *Server) ownLine() string {
	nodes, _ := s.Client.ClusterNodes(context.Background()).Result()
	for line := range strings.Lines(nodes) {
		if strings.Contains(line, "myself") {
			return line
		}
	}
	return ""
}

func (s *Server) nodeID() string {
	s.t.Helper()
	id, _, ok := strings.Cut(s.ownLine(), " ")
	if !ok {
		s.t.Fatalf("redis-server %s does not tell its node ID", s.Addr)
	}
	return id
}

func (s *Server) host() string    { host, _, _ := net.SplitHostPort(s.Addr); return host }
func (s *Server) port() string    { _, port, _ := net.SplitHostPort(s.Addr); return port }
func (s *Server) busPort() string { return s.option("--cluster-port") }

// do sends a command to this very server.
func (s *Server) do(args ...any) {
	s.t.Helper()
	if err := s.Client.Do(context.Background(), args...).Err(); err != nil {
		s.t.Fatalf("redis-server %s: %.200q: %v", s.Addr, fmt.Sprint(args...), err)
	}
}
