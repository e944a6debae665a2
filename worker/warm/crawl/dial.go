package crawl

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/alphanode/stoker/tasks"
)

const (
	dialLimit = 10 * time.Second
	idleLimit = 30 * time.Second // that a connection is kept without a request
	maxHeader = 256 << 10        // bytes of an answer's
)

// Client connects crawls to their bases; all batches of a process share its connections. It is safe
// for concurrent use.
type Client struct {
	transport *http.Transport
	trips     http.RoundTripper // by transport
}

// NewClient returns a client that keeps up to so many connections to each base. It reaches public
// addresses, and private ones in these networks. around sees every request on its way; nil: nothing does.
// Close it.
func NewClient(connections int, networks []netip.Prefix, around func(http.RoundTripper) http.RoundTripper) *Client {
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		d := net.Dialer{Timeout: dialLimit, Control: func(_, resolved string, _ syscall.RawConn) error {
			return mayDial(host, resolved, networks)
		}}
		return d.DialContext(ctx, network, addr)
	}
	transport := &http.Transport{
		Proxy:                  nil, // the base is the instance itself
		DialContext:            dial,
		MaxIdleConnsPerHost:    connections,
		IdleConnTimeout:        idleLimit,
		TLSHandshakeTimeout:    dialLimit,
		DisableCompression:     true, // bodies are not looked at
		ForceAttemptHTTP2:      true,
		MaxResponseHeaderBytes: maxHeader,
	}
	if around == nil {
		return &Client{transport, transport}
	}
	return &Client{transport, around(transport)}
}

// Close drops idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// mayDial refuses, with [tasks.ErrRefused], an address that is neither public nor in one of the networks.
// It is asked about the address that is dialled, after the host's name was resolved, so that no name,
// and no second answer for it, gets around it.
func mayDial(host, resolved string, networks []netip.Prefix) error {
	at, err := netip.ParseAddrPort(resolved)
	if err != nil {
		return err
	}
	ip := at.Addr().Unmap().WithZone("")
	if public(ip) || !ip.IsUnspecified() && !ip.IsMulticast() && within(networks, ip) {
		return nil
	}
	return fmt.Errorf("%w: base %q leads to %s, which is not a public address: if crawls are to reach it, name it or its network in STOKER_CRAWL_NETWORKS, such as %s",
		tasks.ErrRefused, host, ip, netip.PrefixFrom(ip, ip.BitLen()))
}

func within(networks []netip.Prefix, ip netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(ip) })
}

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
	return ip.IsGlobalUnicast() && !ip.IsPrivate() && !within(special, ip)
}
