package redistest

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
)

// groupName is what Sentinel calls the servers it looks after.
const groupName = "stoker"

// Group is a primary and its replicas under a Sentinel, which promotes a replica about a second
// after the primary has died. It belongs to one test.
type Group struct {
	Primary  *Server // the first one; it stays named so when another is promoted
	Replicas []*Server
	Sentinel *Server
	URL      string // what tasks.Connect reads: redis-sentinel://…
}

// StartGroup starts a primary with that many replicas, all in step, and a Sentinel. args are the
// servers' options, as for [Start].
func StartGroup(t testing.TB, replicas int, args ...string) *Group {
	t.Helper()
	g := &Group{Primary: Start(t, args...)}
	for range replicas {
		g.Replicas = append(g.Replicas, StartReplica(t, g.Primary, args...))
	}
	host, port, err := net.SplitHostPort(g.Primary.Addr)
	if err != nil {
		t.Fatal(err)
	}
	g.Sentinel = launch(t, fmt.Sprintf(`sentinel monitor %[1]s %[2]s %[3]s 1
sentinel down-after-milliseconds %[1]s 500
sentinel failover-timeout %[1]s 3000
`, groupName, host, port), nil)
	g.URL = (&url.URL{Scheme: "redis-sentinel", Host: g.Sentinel.Addr, Path: "/0", RawQuery: "master_name=" + groupName}).String()
	Eventually(t, "the Sentinel to know the replicas", func() bool {
		return strings.Contains(g.info(t), fmt.Sprintf("status=ok,address=%s,slaves=%d,", g.Primary.Addr, replicas))
	})
	return g
}

// info is what the Sentinel says of the group.
func (g *Group) info(t testing.TB) string {
	t.Helper()
	info, err := g.Sentinel.Client.Info(context.Background(), "sentinel").Result()
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// Failover kills the server that is the primary at present and waits until the Sentinel has
// promoted another, which it returns.
func (g *Group) Failover(t testing.TB) *Server {
	t.Helper()
	old := g.Current(t)
	old.Kill()
	return g.Heir(t, old)
}

// Heir waits until the Sentinel has promoted another server than the primary that was killed, and returns it.
func (g *Group) Heir(t testing.TB, old *Server) *Server {
	t.Helper()
	Eventually(t, "the Sentinel to promote a replica", func() bool {
		return !strings.Contains(g.info(t), "address="+old.Addr+",") && g.Current(t).role() == "master"
	})
	return g.Current(t)
}

// Rejoin starts a server that was killed again, as a replica of the primary at present: it is never an empty
// primary that others follow. It returns when all replicas are in step, which the Sentinel sees to.
func (g *Group) Rejoin(t testing.TB, s *Server) {
	t.Helper()
	primary := g.Current(t)
	s.args = append(s.args, "--replicaof", primary.host()+" "+primary.port())
	s.Restart()
	Eventually(t, "the replicas to be in step", func() bool {
		primary := g.Current(t)
		return primary != s && primary.role() == "master" && strings.Count(primary.replication(), "state=online") == len(g.Replicas)
	})
}

// Current is the server that the Sentinel takes for the primary.
func (g *Group) Current(t testing.TB) *Server {
	t.Helper()
	for _, s := range append([]*Server{g.Primary}, g.Replicas...) {
		if strings.Contains(g.info(t), "address="+s.Addr+",") {
			return s
		}
	}
	t.Fatalf("the Sentinel names none of the servers: %s", g.info(t))
	return nil
}

// StartReplica starts a server that replicates primary, and returns when it is in step.
func StartReplica(t testing.TB, primary *Server, args ...string) *Server {
	t.Helper()
	host, port, err := net.SplitHostPort(primary.Addr)
	if err != nil {
		t.Fatal(err)
	}
	options := []string{"--replicaof", host + " " + port}
	if password := primary.option("--requirepass"); password != "" {
		options = append(options, "--masterauth", password)
	}
	s := Start(t, append(options, args...)...)
	_, own, _ := net.SplitHostPort(s.Addr)
	Eventually(t, "the replica to be in step, and known to be", func() bool {
		return strings.Contains(s.replication(), "master_link_status:up") && strings.Contains(primary.replication(), "port="+own+",state=online")
	})
	return s
}

func (s *Server) replication() string {
	info, _ := s.Client.Info(context.Background(), "replication").Result() // none while it starts
	return info
}

// role is master or slave, "" for a server that does not answer.
func (s *Server) role() string {
	_, rest, _ := strings.Cut(s.replication(), "role:")
	role, _, _ := strings.Cut(rest, "\r\n")
	return role
}
