package redistest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// Way is a direction through a [Proxy].
type Way string

// The ways: what the clients send, and what the server replies.
const (
	Requests Way = "upstream"
	Replies  Way = "downstream"
)

// Proxy stands between clients and a server and can lose what passes. It belongs to one test.
type Proxy struct {
	Addr string
	URL  string // redis://host:port/0

	t     testing.TB
	proxy *toxiproxy.Proxy
}

// StartProxy starts a proxy before s. It ends with the test.
func StartProxy(t testing.TB, s *Server) *Proxy {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	p := &Proxy{t: t, proxy: toxiproxy.NewProxy(server, t.Name(), "127.0.0.1:0", s.Addr)}
	if err := p.proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.proxy.Stop)
	p.Addr = p.proxy.Listen
	p.URL = strings.Replace(s.URL, s.Addr, p.Addr, 1)
	return p
}

// Cut ends every connection at the next thing that would pass that way, and loses it: a write
// that never arrives, or one whose reply never does.
func (p *Proxy) Cut(way Way) { p.add("limit_data", way, `{"bytes": 0}`) }

// Stall loses all that would pass that way and leaves the connections open.
func (p *Proxy) Stall(way Way) { p.add("timeout", way, `{"timeout": 0}`) }

// Heal lets everything pass again, on new connections.
func (p *Proxy) Heal() { p.proxy.Toxics.ResetToxics(context.Background()) }

func (p *Proxy) add(toxic string, way Way, attributes string) {
	p.t.Helper()
	text := fmt.Sprintf(`{"name": %q, "type": %[1]q, "stream": %q, "attributes": %s}`, toxic, way, attributes)
	if _, err := p.proxy.Toxics.AddToxicJson(strings.NewReader(text)); err != nil {
		p.t.Fatal(err)
	}
}

// Point makes another server stand behind the proxy's address; connections are made anew.
func (p *Proxy) Point(s *Server) {
	p.t.Helper()
	if err := p.proxy.Update(&toxiproxy.Proxy{Listen: p.proxy.Listen, Upstream: s.Addr, Enabled: true}); err != nil {
		p.t.Fatal(err)
	}
}
