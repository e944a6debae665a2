package web

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
)

// behindProxy is a console behind two proxies that sign people in.
func behindProxy() Config {
	return Config{
		WebAddr: "0.0.0.0:0", WebProxies: []string{"10.0.0.7", " 10.1.0.0/16"}, WebProxyUser: "X-Forwarded-User", WebProxyGroups: "X-Forwarded-Groups",
		WebOperators: []string{"ann@example.org", " ops "},
	}
}

func TestSignedInByProxy(t *testing.T) {
	user := func(name string) func(*http.Request) { return header("X-Forwarded-User", name) }
	groups := func(text string) func(*http.Request) { return header("X-Forwarded-Groups", text) }
	add := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Add(name, value) }
	}
	proxy := from("10.0.0.7:5000")
	tests := []struct {
		name        string
		as          []func(*http.Request)
		look, pause int // statuses
		ann         bool
	}{
		{"an operator", []func(*http.Request){proxy, user("ann@example.org")}, 200, 204, true},
		{"another proxy", []func(*http.Request){from("10.1.2.3:5000"), user("ann@example.org")}, 200, 204, true},
		{"as IPv6", []func(*http.Request){from("[::ffff:10.0.0.7]:5000"), user("ann@example.org")}, 200, 204, true},
		{"a viewer", []func(*http.Request){proxy, user("ben@example.org")}, 200, 403, false},
		{"an operator by group", []func(*http.Request){proxy, user("cleo"), groups("staff, ops")}, 200, 204, false},
		{"an operator by one of two lines", []func(*http.Request){proxy, user("cleo"), groups("staff"), add("X-Forwarded-Groups", "ops")}, 200, 204, false},
		{"a group that only contains one", []func(*http.Request){proxy, user("cleo"), groups("devops,ops-readers")}, 200, 403, false},
		{"a name like a group", []func(*http.Request){proxy, user("ops")}, 200, 204, false}, // operators are names and groups
		{"no name", []func(*http.Request){proxy}, 401, 401, false},
		{"groups without a name", []func(*http.Request){proxy, groups("ops")}, 401, 401, false},
		{"an empty name", []func(*http.Request){proxy, user("")}, 403, 403, false},
		{"two names", []func(*http.Request){proxy, user("ben"), add("X-Forwarded-User", "ann@example.org")}, 403, 403, false},
		{"a name that breaks the line", []func(*http.Request){proxy, user("ben\nactor=ann")}, 403, 403, false},
		{"a name in colours", []func(*http.Request){proxy, user("\x1b[31mben")}, 403, 403, false},
		{"forged, from elsewhere", []func(*http.Request){from("192.0.2.1:5000"), user("ann@example.org")}, 403, 403, false},
		{"forged, next to a proxy", []func(*http.Request){from("10.0.0.8:5000"), user("ann@example.org")}, 403, 403, false},
		{"forged, with a claim to come from the proxy", []func(*http.Request){from("192.0.2.1:5000"), user("ann@example.org"), header("X-Forwarded-For", "10.0.0.7"), header("X-Real-Ip", "10.0.0.7")}, 403, 403, false},
		{"another header's name", []func(*http.Request){proxy, header("X_Forwarded_User", "ann@example.org")}, 401, 401, false},
	}
	for _, tt := range tests {
		s := withQueue(t, behindProxy())
		if got := s.ask("GET", "/", tt.as...).StatusCode; got != tt.look {
			t.Errorf("%s: GET /: status %d, want %d", tt.name, got, tt.look)
		}
		if got := s.ask("POST", "/queues/api/queues/alpha.warm:pause", tt.as...).StatusCode; got != tt.pause {
			t.Errorf("%s: POST: status %d, want %d", tt.name, got, tt.pause)
		}
		if ann := strings.Contains(s.logged.String(), "actor=ann@example.org"); ann != tt.ann {
			t.Errorf("%s: ann is in the audit: %v\n%s", tt.name, ann, s.logged)
		}
	}
}

func TestClientBehindProxies(t *testing.T) {
	p, err := newProxies(behindProxy())
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ remote, forwarded, want string }{
		{"192.0.2.1:5000", "", "192.0.2.1:5000"},
		{"192.0.2.1:5000", "198.51.100.1", "192.0.2.1:5000"}, // nobody's word
		{"10.0.0.7:5000", "", "10.0.0.7:5000"},
		{"10.0.0.7:5000", "198.51.100.1", "198.51.100.1"},
		{"10.0.0.7:5000", "203.0.113.9, 198.51.100.1", "198.51.100.1"}, // the left one the client wrote
		{"10.0.0.7:5000", "198.51.100.1, 10.1.0.4", "198.51.100.1"},
		{"10.0.0.7:5000", "198.51.100.1:4711", "198.51.100.1:4711"},
		{"10.0.0.7:5000", "[2001:db8::1]:4711, 10.1.0.4", "[2001:db8::1]:4711"},
		{"10.0.0.7:5000", "198.51.100.1, nonsense", "10.0.0.7:5000"},
		{"10.0.0.7:5000", "10.1.0.4", "10.0.0.7:5000"},
	}
	for _, tt := range tests {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = tt.remote
		if tt.forwarded != "" {
			r.Header.Set("X-Forwarded-For", tt.forwarded)
		}
		if got := p.client(r); got != tt.want {
			t.Errorf("connected %s, forwarded for %q: %s, want %s", tt.remote, tt.forwarded, got, tt.want)
		}
	}
}

// TestGuessersBehindAProxy: one who guesses does not shut out the others, and cannot become many by
// writing the header.
func TestGuessersBehindAProxy(t *testing.T) {
	s := newSite(t, Config{WebTokensFile: tokensFile(t), WebProxies: []string{"10.0.0.7"}}, nil)
	try := func(secret, forwarded string) int {
		return s.ask("GET", "/metrics", basic("vera", secret), from("10.0.0.7:1"), header("X-Forwarded-For", forwarded)).StatusCode
	}
	for i := range 10 {
		if got := try("guess", "203.0.113."+string(rune('0'+i))+", 198.51.100.1"); got != 401 {
			t.Fatalf("guess %d: status %d", i, got)
		}
	}
	if got := try(viewSecret, "203.0.113.77, 198.51.100.1"); got != 429 {
		t.Errorf("after ten guesses: status %d, want 429", got)
	}
	if got := try(viewSecret, "198.51.100.2"); got != 200 {
		t.Errorf("somebody else: status %d, want 200", got)
	}
}

func TestGuardSettingsGoTogether(t *testing.T) {
	sound := behindProxy()
	sound.WebSession = time.Hour
	tests := []struct {
		name   string
		change func(*Config)
		want   string // in the error; "" for none
	}{
		{"sound", func(*Config) {}, ""},
		{"a header for everybody", func(c *Config) { c.WebProxies = nil }, "STOKER_WEB_PROXIES is not"},
		{"everybody a proxy", func(c *Config) { c.WebProxies = []string{"0.0.0.0/0"} }, "that is everybody"},
		{"no address", func(c *Config) { c.WebProxies = []string{"proxy.example"} }, `proxy "proxy.example"`},
		{"groups of nobody", func(c *Config) { c.WebAddr, c.WebProxyUser = "127.0.0.1:0", "" }, "STOKER_WEB_PROXY_USER is not"},
		{"operators of nobody", func(c *Config) { c.WebAddr, c.WebProxyUser, c.WebProxyGroups = "127.0.0.1:0", "", "" }, "STOKER_WEB_OPERATORS is for those"},
		{"a provider without an address", func(c *Config) { c.WebOIDCIssuer = "https://id.example" }, "needs STOKER_WEB_URL"},
		{"no URL", func(c *Config) { c.WebURL = "stoker.example" }, `address "stoker.example"`},
		{"a session without end", func(c *Config) { c.WebSession = 10000 * time.Hour }, "STOKER_WEB_SESSION"},
	}
	for _, tt := range tests {
		cfg := sound
		tt.change(&cfg)
		err := cfg.Validate()
		if err == nil {
			err = cfg.complete()
		}
		if (err == nil) != (tt.want == "") || err != nil && (!errors.Is(err, tasks.ErrInvalid) || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}
