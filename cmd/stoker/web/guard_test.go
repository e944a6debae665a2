package web

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/alphanode/stoker/worker/redistest"
)

// withQueue is a site with tokens, unless another guard is given, and one task in a lane, so that
// asynqmon has something to write to.
func withQueue(t *testing.T, guard ...Config) *site {
	t.Helper()
	queue := redistest.Mini(t)
	if _, err := asynq.NewClientFromRedisClient(queue).Enqueue(asynq.NewTask("warm:batch", []byte(`{"v":1}`)), asynq.Queue("alpha.warm")); err != nil {
		t.Fatal(err)
	}
	cfg := append(guard, Config{WebTokensFile: tokensFile(t)})[0]
	return newSite(t, cfg, queue)
}

func TestRoutesByScope(t *testing.T) {
	anonymous := func(*http.Request) {}
	who := []struct {
		name string
		as   func(*http.Request)
	}{
		{"nobody", anonymous}, {"invalidate", basic("shop", invalidateSecret)}, {"view", basic("vera", viewSecret)},
		{"operate", basic("otto", operateSecret)}, {"operate by bearer", header("Authorization", "Bearer "+operateSecret)},
	}
	tests := []struct {
		method, path string
		want         [5]int // in the order of who
	}{
		{"GET", "/", [5]int{401, 403, 200, 200, 200}},
		{"HEAD", "/", [5]int{401, 403, 200, 200, 200}},
		{"POST", "/", [5]int{405, 405, 405, 405, 405}},
		{"GET", "/releases/r42", [5]int{401, 403, 200, 200, 200}},
		{"GET", "/releases", [5]int{401, 403, 200, 200, 200}},
		{"GET", "/releases/r42/note", [5]int{401, 403, 200, 200, 200}},
		{"GET", "/health", [5]int{401, 403, 200, 200, 200}},
		{"GET", "/schedule", [5]int{401, 403, 200, 200, 200}},
		{"GET", "/releases/r42/notes", [5]int{401, 403, 403, 200, 200}},
		{"POST", "/releases/r42/notes", [5]int{401, 403, 403, 200, 200}}, // a preview
		{"GET", "/expire", [5]int{401, 403, 403, 200, 200}},
		{"POST", "/expire", [5]int{401, 403, 403, 409, 409}},
		{"GET", "/releases/r41/snapshot", [5]int{401, 403, 403, 200, 200}},
		{"POST", "/releases/r41/snapshot", [5]int{401, 403, 403, 409, 409}},
		{"GET", "/releases/r40/drill", [5]int{401, 403, 403, 200, 200}},
		{"POST", "/releases/r40/drill", [5]int{401, 403, 403, 409, 409}},
		{"GET", "/releases/r40/pin", [5]int{401, 403, 403, 200, 200}},
		{"POST", "/releases/r40/pin", [5]int{401, 403, 403, 409, 409}},
		{"GET", "/invalidations", [5]int{401, 403, 200, 200, 200}},
		{"GET", "/releases/r99", [5]int{401, 403, 404, 404, 404}},
		{"GET", "/releases/r%20%2F", [5]int{401, 403, 404, 404, 404}},
		{"GET", "/assets/style.css", [5]int{200, 200, 200, 200, 200}},
		{"GET", "/signin", [5]int{200, 200, 200, 200, 200}},
		{"POST", "/signin", [5]int{422, 422, 422, 422, 422}}, // without a token
		{"POST", "/signout", [5]int{303, 303, 303, 303, 303}},
		{"GET", "/signout", [5]int{405, 405, 405, 405, 405}},
		{"POST", "/assets/style.css", [5]int{405, 405, 405, 405, 405}},
		{"GET", "/metrics", [5]int{401, 403, 200, 200, 200}},
		{"GET", "/healthz", [5]int{200, 200, 200, 200, 200}},
		{"GET", "/readyz", [5]int{200, 200, 200, 200, 200}},
		{"GET", "/queues/", [5]int{401, 403, 200, 200, 200}},
		{"GET", "/queues/api/queues", [5]int{401, 403, 200, 200, 200}},
		{"GET", "/queues/static/none.js", [5]int{401, 403, 404, 404, 404}},
		{"POST", "/queues/api/queues/alpha.warm:pause", [5]int{401, 403, 403, 204, 500}}, // paused already: asynq's error
		{"POST", "/queues/api/queues/alpha.warm:resume", [5]int{401, 403, 403, 204, 500}},
		{"DELETE", "/queues/api/queues/alpha.warm/pending_tasks:delete_all", [5]int{401, 403, 403, 200, 200}},
		{"GET", "/rollback", [5]int{401, 403, 403, 200, 200}},
		{"POST", "/rollback", [5]int{401, 403, 403, 409, 409}}, // without having looked at the plan
		{"GET", "/releases/r42/activate", [5]int{401, 403, 403, 200, 200}},
		{"POST", "/releases/r42/activate", [5]int{401, 403, 403, 409, 409}},
		{"GET", "/lanes/warm", [5]int{401, 403, 403, 200, 200}},
		{"POST", "/lanes/warm", [5]int{401, 403, 403, 409, 409}},
		{"GET", "/invalidate", [5]int{401, 403, 403, 200, 200}},
		{"POST", "/invalidate", [5]int{401, 403, 403, 422, 422}}, // without a target
		{"GET", "/tasks/release:rollback/t-1", [5]int{401, 403, 200, 200, 200}},
		{"DELETE", "/tasks/release:rollback/t-1", [5]int{405, 405, 405, 405, 405}},
		{"POST", "/v1/invalidations", [5]int{401, 415, 403, 415, 415}}, // without a content type
		{"GET", "/v1/invalidations/7", [5]int{401, 404, 404, 404, 404}},
		{"GET", "/v1/openapi.json", [5]int{401, 200, 200, 200, 200}},
		{"GET", "/v1/nothing", [5]int{404, 404, 404, 404, 404}},
		{"GET", "/nothing", [5]int{404, 404, 404, 404, 404}},
		{"GET", "/queues/../metrics", [5]int{307, 307, 307, 307, 307}},
		{"GET", "//metrics", [5]int{307, 307, 307, 307, 307}},
		{"GET", "/queues/%2e%2e/metrics", [5]int{401, 403, 200, 200, 200}}, // asynqmon's page
		{"POST", "/queues/%2e%2e/metrics", [5]int{401, 403, 403, 405, 405}},
	}
	s := withQueue(t)
	covered := http.NewServeMux()
	hit := map[string]bool{}
	for _, pattern := range s.patterns {
		covered.HandleFunc(pattern, func(http.ResponseWriter, *http.Request) {})
	}
	for _, tt := range tests {
		_, pattern := covered.Handler(httptest.NewRequest(tt.method, tt.path, nil))
		hit[pattern] = true
	}
	for _, pattern := range s.patterns {
		if !hit[pattern] && !strings.HasPrefix(pattern, "/v1/invalidations") && pattern != "/v1/openapi.json" { // other methods
			t.Errorf("the route %q is in no row of this table", pattern)
		}
	}
	for _, tt := range tests {
		for i, w := range who {
			if got := s.ask(tt.method, tt.path, w.as).StatusCode; got != tt.want[i] {
				t.Errorf("%s %s as %s: status %d, want %d", tt.method, tt.path, w.name, got, tt.want[i])
			}
		}
	}
}

func TestCredentials(t *testing.T) {
	s := newSite(t, Config{WebTokensFile: tokensFile(t)}, nil)
	tests := []struct {
		name string
		as   func(*http.Request)
		want int
	}{
		{"another's name", basic("otto", viewSecret), 401},
		{"no name", basic("", viewSecret), 401},
		{"no secret", basic("vera", ""), 401},
		{"empty bearer", header("Authorization", "Bearer "), 401},
		{"the hash instead of the token", header("Authorization", "Bearer sha256:0"), 401},
		{"another scheme", header("Authorization", "Digest "+viewSecret), 401},
		{"bearer in lower case", header("Authorization", "bearer "+viewSecret), 200},
		{"a name elsewhere, with a token", func(r *http.Request) { r.Host = "stoker.example"; r.SetBasicAuth("vera", viewSecret) }, 200},
	}
	for i, tt := range tests {
		resp := s.ask("GET", "/", tt.as, from(string(rune('a'+i))+".example:1"))
		if resp.StatusCode != tt.want {
			t.Errorf("%s: status %d, want %d", tt.name, resp.StatusCode, tt.want)
		}
		if challenge := resp.Header.Get("WWW-Authenticate"); (challenge != "") != (tt.want == 401) {
			t.Errorf("%s: challenge %q", tt.name, challenge)
		}
	}
}

func TestWrongTokensAreSlowedDown(t *testing.T) {
	now := noon
	s := newSite(t, Config{WebTokensFile: tokensFile(t)}, nil, func(d *Deps) { d.Now = func() time.Time { return now } })
	status := func(secret, addr string) int {
		return s.ask("GET", "/metrics", basic("vera", secret), from(addr)).StatusCode
	}
	for range 100 { // right ones cost nothing
		if got := status(viewSecret, "192.0.2.1:1"); got != 200 {
			t.Fatalf("right token: status %d", got)
		}
	}
	for i := range 10 {
		if got := status("guess", "192.0.2.1:1"); got != 401 {
			t.Fatalf("guess %d: status %d, want 401", i, got)
		}
	}
	resp := s.ask("GET", "/", basic("vera", viewSecret), from("192.0.2.1:9"))
	if resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("right token after ten guesses: status %d, Retry-After %q, want 429 and a time", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
	if got := status(viewSecret, "192.0.2.2:1"); got != 200 {
		t.Errorf("another address: status %d, want 200", got)
	}
	now = now.Add(2 * time.Second)
	if got := status(viewSecret, "192.0.2.1:1"); got != 200 {
		t.Errorf("two seconds later: status %d, want 200", got)
	}
}

func TestSlowdownIsBounded(t *testing.T) {
	s := newSlowdown(func() time.Time { return noon })
	s.most = 3
	for _, addr := range []string{"192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1", "192.0.2.4:1", "192.0.2.5:1"} {
		s.try(addr, func() bool { return false })
	}
	if len(s.per) != 3 {
		t.Errorf("%d addresses remembered, want 3", len(s.per))
	}
	for addr, want := range map[string]string{
		"192.0.2.1:55": "192.0.2.1", "[::ffff:192.0.2.1]:55": "192.0.2.1", "[2001:db8::1:2:3:4]:1": "2001:db8::/64", "[fe80::1%eth0]:1": "fe80::/64", "odd": "odd",
	} {
		if got := guesser(addr); got != want {
			t.Errorf("guesser(%q) = %q, want %q", addr, got, want)
		}
	}
}

func TestWithoutTokensOnlyTheMachineItself(t *testing.T) {
	s := newSite(t, Config{}, nil)
	tests := []struct {
		name string
		as   func(*http.Request)
		want int
	}{
		{"127.0.0.1", host("127.0.0.1:8080"), 200},
		{"another loopback address", host("127.8.0.1"), 200},
		{"localhost", host("localhost:8080"), 200},
		{"localhost, absolute", host("LOCALHOST.:8080"), 200},
		{"a name under localhost", host("stoker.localhost:8080"), 200},
		{"IPv6", host("[::1]:8080"), 200},
		{"IPv6 without a port", host("[::1]"), 200},
		{"a name that resolves to loopback", host("rebound.example:8080"), 403},
		{"a name that begins like loopback", host("127.0.0.1.example"), 403},
		{"a name that ends like localhost", host("notlocalhost"), 403},
		{"an address of the machine", host("192.0.2.7:8080"), 403},
		{"no host", host(""), 403},
		{"through a proxy", header("X-Forwarded-For", "198.51.100.4"), 403},
		{"through a proxy by the standard", header("Forwarded", "for=198.51.100.4"), 403},
	}
	for _, tt := range tests {
		for _, path := range []string{"/", "/queues/api/queues", "/metrics"} {
			if got := s.ask("GET", path, tt.as).StatusCode; got != tt.want {
				t.Errorf("%s: GET %s: status %d, want %d", tt.name, path, got, tt.want)
			}
		}
	}
}

func TestWritesFromElsewhereAreRefused(t *testing.T) {
	const path = "/queues/api/queues/alpha.warm:pause"
	for name, as := range map[string]func(*http.Request){
		"cross-site":            header("Sec-Fetch-Site", "cross-site"),
		"same site":             header("Sec-Fetch-Site", "same-site"),
		"another origin":        header("Origin", "https://evil.example"),
		"no origin to speak of": header("Origin", "null"),
	} {
		s := withQueue(t)
		if got := s.ask("POST", path, basic("otto", operateSecret), as).StatusCode; got != 403 {
			t.Errorf("%s: status %d, want 403", name, got)
		}
		if !strings.Contains(s.logged.String(), "console write") {
			t.Errorf("%s: no audit line", name)
		}
		queue, err := s.lanes.inspector.GetQueueInfo("alpha.warm")
		if err != nil || queue.Paused {
			t.Errorf("%s: paused %v, err %v", name, queue.Paused, err)
		}
	}
	for name, as := range map[string]func(*http.Request){
		"same origin":        header("Sec-Fetch-Site", "same-origin"),
		"by origin":          header("Origin", "http://127.0.0.1:8080"),
		"from no browser":    func(*http.Request) {},
		"typed by a person":  header("Sec-Fetch-Site", "none"),
		"old same origin 80": func(r *http.Request) { r.Host = "localhost"; r.Header.Set("Origin", "http://localhost") },
	} {
		if got := withQueue(t).ask("POST", path, basic("otto", operateSecret), as).StatusCode; got != 204 {
			t.Errorf("%s: status %d, want 204", name, got)
		}
	}
}

func TestAuditLine(t *testing.T) {
	tests := []struct {
		as   func(*http.Request)
		want []string
	}{
		{basic("otto", operateSecret), []string{"actor=otto", "scope=operate", "status=204"}},
		{basic("vera", viewSecret), []string{"actor=vera", "scope=view", "status=403"}},
		{func(*http.Request) {}, []string{"actor=anonymous", "status=401"}},
	}
	for _, tt := range tests {
		s := withQueue(t)
		s.ask("POST", "/queues/api/queues/alpha.warm:pause", tt.as)
		s.ask("GET", "/", tt.as)
		var lines []string
		for line := range strings.Lines(s.logged.String()) {
			if strings.Contains(line, `msg="console write"`) {
				lines = append(lines, line)
			}
		}
		if len(lines) != 1 {
			t.Fatalf("audit lines for one write and one read: %q", lines)
		}
		for _, want := range append(tt.want, "method=POST", "path=/queues/api/queues/alpha.warm:pause", "remote=127.0.0.1:40000") {
			if !strings.Contains(lines[0], want) {
				t.Errorf("audit line lacks %q: %s", want, lines[0])
			}
		}
	}
}

func TestBodyLimit(t *testing.T) {
	g, err := newGuard(Config{}, nil, nil, slog.New(slog.DiscardHandler), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for size, ok := range map[int]bool{maxBody: true, maxBody + 1: false} {
		var read int64
		var err error
		h := g.outer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { read, err = io.Copy(io.Discard, r.Body) }))
		r := httptest.NewRequest("POST", "http://127.0.0.1/", strings.NewReader(strings.Repeat("x", size)))
		r.ContentLength = -1 // not announced
		h.ServeHTTP(httptest.NewRecorder(), r)
		if (err == nil) != ok || read > maxBody {
			t.Errorf("body of %d bytes: %d read, error %v", size, read, err)
		}
	}
}

func TestHeaders(t *testing.T) {
	s := newSite(t, Config{WebTokensFile: tokensFile(t)}, nil)
	for _, path := range []string{"/", "/releases/r42", "/invalidations", "/assets/style.css", "/metrics", "/healthz", "/queues/", "/queues/api/queues", "/nothing"} {
		for name, as := range map[string]func(*http.Request){"signed in": basic("vera", viewSecret), "anonymous": func(*http.Request) {}} {
			h := s.ask("GET", path, as).Header
			policy := h.Get("Content-Security-Policy")
			for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"} {
				if !strings.Contains(policy, want) {
					t.Errorf("%s %s: policy lacks %q: %s", path, name, want, policy)
				}
			}
			if unsafe := strings.Contains(policy, "unsafe"); unsafe != (path == "/queues/" && name == "signed in") {
				t.Errorf("%s %s: policy %q", path, name, policy)
			}
			for header, want := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "same-origin"} {
				if got := h.Get(header); got != want {
					t.Errorf("%s %s: %s %q, want %q", path, name, header, got, want)
				}
			}
		}
	}
}
