package crawl

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alphanode/stoker/tasks"
)

const (
	dialLimit = 10 * time.Second
	idleLimit = 30 * time.Second // that a connection is kept without a request
)

// Client connects crawls to their bases; all batches of a process share its connections. It is safe
// for concurrent use.
type Client struct{ transport *http.Transport }

// NewClient returns a client that keeps up to so many connections to each base. Where private is
// false, a name that may be a public one must lead to a public address. Close it.
func NewClient(connections int, private bool) *Client {
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		d := net.Dialer{Timeout: dialLimit, Control: func(_, resolved string, _ syscall.RawConn) error {
			return mayDial(host, resolved, private)
		}}
		return d.DialContext(ctx, network, addr)
	}
	return &Client{&http.Transport{
		Proxy:               nil, // the base is the instance itself
		DialContext:         dial,
		MaxIdleConnsPerHost: connections,
		IdleConnTimeout:     idleLimit,
		TLSHandshakeTimeout: dialLimit,
		DisableCompression:  true, // bodies are not looked at
		ForceAttemptHTTP2:   true,
	}}
}

// Close drops idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// mayDial refuses, with [tasks.ErrRefused], an address that a host's name must not lead to. It is
// asked about the address that is dialled, after the name was resolved, so that no name, and no
// second answer for it, gets around it.
func mayDial(host, resolved string, private bool) error {
	at, err := netip.ParseAddrPort(resolved)
	if err != nil {
		return err
	}
	ip := plainAddr(at.Addr())
	literal, err := netip.ParseAddr(host)
	named := err == nil && plainAddr(literal) == ip
	switch {
	case ip.IsUnspecified() || ip.IsMulticast():
	case named || private || public(ip):
		return nil
	case ip.IsLinkLocalUnicast(): // where clouds keep their machines' credentials
	case privateName(host):
		return nil
	}
	return fmt.Errorf("%w: base %q leads to %s, which is not a public address: name the address itself in the plan, or a host without a public name, "+
		"or set STOKER_ALLOW_CRAWLS_INTO_PRIVATE_NETWORKS=true if nobody else controls that name", tasks.ErrRefused, host, ip)
}

func plainAddr(ip netip.Addr) netip.Addr { return ip.Unmap().WithZone("") }

// special are networks that are not public, beyond those that netip knows.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),      // this network
	netip.MustParsePrefix("100.64.0.0/10"),  // carriers' shared space (RFC 6598)
	netip.MustParsePrefix("192.0.0.0/24"),   // protocol assignments (RFC 6890)
	netip.MustParsePrefix("192.88.99.0/24"), // relays from IPv6 (RFC 7526)
	netip.MustParsePrefix("198.18.0.0/15"),  // benchmarks (RFC 2544)
	netip.MustParsePrefix("240.0.0.0/4"),    // reserved, and broadcast
	netip.MustParsePrefix("::/96"),          // IPv4-compatible (RFC 4291)
	netip.MustParsePrefix("64:ff9b::/96"),   // IPv4 behind NAT64 (RFC 6052)
	netip.MustParsePrefix("64:ff9b:1::/48"), // likewise, local (RFC 8215)
	netip.MustParsePrefix("2001::/32"),      // Teredo: any IPv4 (RFC 4380)
	netip.MustParsePrefix("2002::/16"),      // 6to4: any IPv4 (RFC 3056)
	netip.MustParsePrefix("fec0::/10"),      // site-local (RFC 3879)
}

func public(ip netip.Addr) bool {
	return ip.IsGlobalUnicast() && !ip.IsPrivate() && !slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// privateNames are domains that no public name is in (RFC 2606, 6761, 6762 and 8375, ICANN's
// .internal), and those that networks and container platforms use in the same way.
var privateNames = []string{".internal", ".local", ".localhost", ".test", ".home.arpa", ".svc", ".lan", ".intranet", ".private", ".corp", ".home"}

// privateName reports whether a host is named as one of a private network: who writes that into a
// plan means it.
func privateName(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return false
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	return !strings.Contains(host, ".") || slices.ContainsFunc(privateNames, func(end string) bool { return strings.HasSuffix(host, end) })
}
