package crawl

import (
	"errors"
	"testing"

	"github.com/alphanode/stoker/tasks"
)

// TestMayDial: which addresses a base's name may lead to.
func TestMayDial(t *testing.T) {
	for _, c := range []struct {
		host, resolved string
		private, want  bool
	}{
		{"www.example.com", "93.184.216.34:80", false, true},
		{"www.example.com", "[2606:2800:220:1:248:1893:25c8:1946]:443", false, true},
		{"www.example.com", "127.0.0.1:80", false, false},
		{"www.example.com", "10.0.0.5:80", false, false},
		{"www.example.com", "172.16.3.4:80", false, false},
		{"www.example.com", "192.168.1.1:80", false, false},
		{"www.example.com", "169.254.169.254:80", false, false},
		{"www.example.com", "100.64.0.1:80", false, false},
		{"www.example.com", "0.0.0.0:80", true, false},
		{"www.example.com", "255.255.255.255:80", false, false},
		{"www.example.com", "224.0.0.1:80", true, false},
		{"www.example.com", "[::1]:80", false, false},
		{"www.example.com", "[::ffff:127.0.0.1]:80", false, false},
		{"www.example.com", "[::ffff:10.1.2.3]:80", false, false},
		{"www.example.com", "[::127.0.0.1]:80", false, false},
		{"www.example.com", "[64:ff9b::7f00:1]:80", false, false},
		{"www.example.com", "[2002:7f00:1::]:80", false, false},
		{"www.example.com", "[fd00::1]:80", false, false},
		{"www.example.com", "[fe80::1%eth0]:80", false, false},
		{"www.example.com", "10.0.0.5:80", true, true},
		{"www.example.com", "169.254.169.254:80", true, true},
		{"127.0.0.1", "127.0.0.1:8080", false, true},
		{"10.0.0.5", "10.0.0.5:80", false, true},
		{"169.254.169.254", "169.254.169.254:80", false, true}, // who writes that means it
		{"::1", "[::1]:80", false, true},
		{"::ffff:10.0.0.5", "10.0.0.5:80", false, true},
		{"10.0.0.5", "10.0.0.6:80", false, false},
		{"localhost", "127.0.0.1:80", false, true},
		{"canary", "10.0.0.5:8080", false, true},
		{"canary", "169.254.169.254:80", false, false},
		{"metadata.google.internal", "169.254.169.254:80", false, false},
		{"canary.shop.svc.cluster.local", "10.96.0.1:80", false, true},
		{"Canary.Internal.", "10.96.0.1:80", false, true},
		{"internal.example.com", "10.96.0.1:80", false, false},
		{"evil.local.example.com", "10.96.0.1:80", false, false},
	} {
		err := mayDial(c.host, c.resolved, c.private)
		if (err == nil) != c.want || err != nil && !errors.Is(err, tasks.ErrRefused) {
			t.Errorf("%s at %s, private networks %v: %v, want %v", c.host, c.resolved, c.private, err, c.want)
		}
	}
}
