package crawl

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/alphanode/stoker/tasks"
)

// TestMayDial: which addresses a crawl may reach.
func TestMayDial(t *testing.T) {
	networks := func(all ...string) (prefixes []netip.Prefix) {
		for _, one := range all {
			prefixes = append(prefixes, netip.MustParsePrefix(one))
		}
		return prefixes
	}
	for _, c := range []struct {
		resolved string
		networks []netip.Prefix
		want     bool
	}{
		{"93.184.216.34:80", nil, true},
		{"[2606:2800:220:1:248:1893:25c8:1946]:443", nil, true},
		{"127.0.0.1:80", nil, false},
		{"10.0.0.5:80", nil, false},
		{"172.16.3.4:80", nil, false},
		{"192.168.1.1:80", nil, false},
		{"169.254.169.254:80", nil, false},
		{"100.64.0.1:80", nil, false},
		{"0.0.0.0:80", nil, false},
		{"255.255.255.255:80", nil, false},
		{"224.0.0.1:80", nil, false},
		{"[::1]:80", nil, false},
		{"[::ffff:127.0.0.1]:80", nil, false},
		{"[::ffff:10.1.2.3]:80", nil, false},
		{"[::127.0.0.1]:80", nil, false},
		{"[64:ff9b::7f00:1]:80", nil, false},
		{"[2002:7f00:1::]:80", nil, false},
		{"[fd00::1]:80", nil, false},
		{"[fe80::1%eth0]:80", nil, false},
		{"10.0.0.5:80", networks("10.0.0.0/8"), true},
		{"[::ffff:10.0.0.5]:80", networks("10.0.0.0/8"), true},
		{"11.0.0.5:80", networks("10.0.0.0/8"), true},
		{"192.168.0.5:80", networks("10.0.0.0/8"), false},
		{"10.0.0.6:80", networks("10.0.0.5/32"), false},
		{"[fe80::1%eth0]:80", networks("fe80::/10"), true},
		{"169.254.169.254:80", networks("127.0.0.0/8", "10.0.0.0/8"), false},
		{"0.0.0.0:80", networks("0.0.0.0/0"), false},
		{"224.0.0.1:80", networks("0.0.0.0/0"), false},
	} {
		err := mayDial("canary", c.resolved, c.networks)
		if (err == nil) != c.want || err != nil && !errors.Is(err, tasks.ErrRefused) {
			t.Errorf("%s, networks %v: %v, want %v", c.resolved, c.networks, err, c.want)
		}
	}
}

// TestRebinding: a name that leads to a public address when it is checked, and to this machine when it is
// dialled, reaches nothing.
func TestRebinding(t *testing.T) {
	var asked atomic.Int32
	site := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(site.Close)
	answers := rebind(t, [4]byte{93, 184, 216, 34}, [4]byte{127, 0, 0, 1})
	if got, err := net.DefaultResolver.LookupHost(t.Context(), "rebinding.example."); err != nil || got[0] != "93.184.216.34" {
		t.Fatalf("%v, %v: want the public address first", got, err)
	}
	client := NewClient(1, nil, nil)
	t.Cleanup(client.Close)
	port := site.URL[strings.LastIndex(site.URL, ":"):]
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://rebinding.example."+port, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.transport.RoundTrip(req)
	if err == nil {
		resp.Body.Close()
	}
	if !errors.Is(err, tasks.ErrRefused) || asked.Load() != 0 || answers.Load() < 2 {
		t.Errorf("%v, asked %d times after %d answers: want that it is refused", err, asked.Load(), answers.Load())
	}
}

// rebind answers every name with the first address once, and with the second from then on. It returns
// how often an address was asked for.
func rebind(t *testing.T, first, then [4]byte) *atomic.Int32 {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	answers := new(atomic.Int32)
	served := make(chan struct{})
	go func() {
		defer close(served)
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.Additionals = true, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				a := then
				if answers.Add(1) == 1 {
					a = first
				}
				m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}, Body: &dnsmessage.AResource{A: a}}}
			}
			packed, err := m.Pack()
			if err == nil {
				_, _ = conn.WriteTo(packed, from)
			}
		}
	}()
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = before
		conn.Close()
		<-served
	})
	return answers
}
