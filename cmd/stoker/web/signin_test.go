package web

import (
	"context"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/worker/redistest"
)

// visitor is a browser without scripts: it keeps cookies and goes where it is sent.
type visitor struct {
	t    *testing.T
	base string
	http *http.Client
}

func newVisitor(t *testing.T, base string) *visitor {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &visitor{t, base, &http.Client{Jar: jar, Transport: transport, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		r.Header.Set("Accept", "text/html")
		return nil
	}}}
}

// page gets a page, or posts a form when there is one, and returns its status, where it was in the end, and
// its text.
func (v *visitor) page(path string, form url.Values) (status int, at, text string) {
	v.t.Helper()
	method, sent := "GET", ""
	if form != nil {
		method, sent = "POST", form.Encode()
	}
	r, err := http.NewRequest(method, v.base+path, strings.NewReader(sent))
	if err != nil {
		v.t.Fatal(err)
	}
	r.Header.Set("Accept", "text/html")
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", v.base)
	}
	resp, err := v.http.Do(r)
	if err != nil {
		v.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	return resp.StatusCode, resp.Request.URL.RequestURI(), body(v.t, resp)
}

// TestSession: the page that was asked for asks to sign in, a token opens it, and signing out closes
// it, in the browser and in the Redis.
func TestSession(t *testing.T) {
	queue := redistest.Mini(t)
	s := newSite(t, Config{WebTokensFile: tokensFile(t)}, queue)
	v := newVisitor(t, serve(t, s))
	if status, _, text := v.page("/releases/r42", nil); status != 401 || !strings.Contains(text, `name="next" value="/releases/r42"`) || strings.Contains(text, "alpha") {
		t.Errorf("before the sign-in: status %d\n%s", status, text)
	}
	if status, _, text := v.page("/signin", url.Values{"token": {"wrong"}, "next": {"/invalidations"}}); status != 401 || !strings.Contains(text, "No such token.") || !strings.Contains(text, `value="/invalidations"`) {
		t.Errorf("a wrong token: status %d\n%s", status, text)
	}
	status, at, text := v.page("/signin", url.Values{"token": {viewSecret + "\n"}, "next": {"/releases/r42"}})
	if status != 200 || at != "/releases/r42" || !strings.Contains(text, "<span>vera</span> <button>Sign out") {
		t.Fatalf("the right token: status %d at %s\n%s", status, at, text)
	}
	if status, _, _ := v.page("/queues/api/queues/alpha.warm:pause", url.Values{}); status != 403 {
		t.Errorf("a write in a session with the scope view: status %d, want 403", status)
	}
	keys := queue.Keys(context.Background(), "stoker:{alpha}:session:*").Val()
	if len(keys) != 1 || queue.TTL(context.Background(), keys[0]).Val() != time.Hour {
		t.Fatalf("sessions in the Redis: %q", keys)
	}
	for _, cookie := range v.http.Jar.Cookies(must(url.Parse(v.base))) {
		if strings.Contains(keys[0], cookie.Value) {
			t.Error("who reads the Redis can take the session over")
		}
	}
	if _, at, _ := v.page("/signout", url.Values{}); at != "/signin" {
		t.Errorf("signed out, and at %s", at)
	}
	if left := queue.Keys(context.Background(), "stoker:{alpha}:session:*").Val(); len(left) > 0 {
		t.Errorf("after signing out there are still %q", left)
	}
	if status, _, _ := v.page("/", nil); status != 401 {
		t.Errorf("after signing out: status %d, want 401", status)
	}
	for _, want := range []string{`msg="console sign-in" actor=vera scope=view`, `path=/signout status=303`, `msg="console sign-in refused"`} {
		if !strings.Contains(s.logged.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, s.logged)
		}
	}
	if strings.Contains(s.logged.String(), viewSecret) {
		t.Error("the log holds the token")
	}
}

// TestSessionEndsWithItsToken: a line taken out of the tokens file, or given another scope, counts for
// sessions that began with it.
func TestSessionEndsWithItsToken(t *testing.T) {
	queue := redistest.Mini(t)
	path := tokensFile(t)
	cfg := Config{WebTokensFile: path}
	v := newVisitor(t, serve(t, newSite(t, cfg, queue)))
	v.page("/signin", url.Values{"token": {operateSecret}})
	lines := string(must(os.ReadFile(path)))
	rewrite := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		v.base = serve(t, newSite(t, cfg, queue)) // as after a restart
	}
	rewrite(strings.ReplaceAll(lines, "otto operate", "otto view"))
	if status, _, _ := v.page("/queues/api/queues/alpha.warm:pause", url.Values{}); status != 403 {
		t.Errorf("a write with a token that may only view by now: status %d, want 403", status)
	}
	if status, _, _ := v.page("/", nil); status != 200 {
		t.Errorf("a look with it: status %d, want 200", status)
	}
	var kept []string
	for line := range strings.Lines(lines) {
		if !strings.HasPrefix(line, "otto ") {
			kept = append(kept, line)
		}
	}
	rewrite(strings.Join(kept, ""))
	if status, _, _ := v.page("/", nil); status != 401 {
		t.Errorf("a look with a token that is gone: status %d, want 401", status)
	}
}

// TestSessionWithoutRedis: nobody is let in because nobody could be asked.
func TestSessionWithoutRedis(t *testing.T) {
	down := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1, DialerRetries: 1})
	defer func() { _ = down.Close() }()
	s := newSite(t, Config{WebTokensFile: tokensFile(t)}, nil, func(d *Deps) { d.Queue = down })
	if got := s.ask("GET", "/metrics", header("Cookie", sessionCookie+"=anything")).StatusCode; got != 503 {
		t.Errorf("a session that could not be read: status %d, want 503", got)
	}
	form := func(r *http.Request) {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Body = http.NoBody
		r.URL.RawQuery = "token=" + viewSecret
	}
	if resp := s.ask("POST", "/signin", form); resp.StatusCode != 503 || resp.Header.Get("Set-Cookie") != "" {
		t.Errorf("a sign-in that could not be kept: status %d, cookie %q", resp.StatusCode, resp.Header.Get("Set-Cookie"))
	}
}

func TestSessionCookie(t *testing.T) {
	for address, secure := range map[string]bool{"": false, "http://localhost:8080": false, "https://stoker.example": true} {
		s := newSite(t, Config{WebTokensFile: tokensFile(t), WebURL: address}, nil)
		cookie := s.ask("POST", "/signin?token="+viewSecret).Header.Get("Set-Cookie")
		if !strings.Contains(cookie, "; HttpOnly") || !strings.Contains(cookie, "SameSite=Lax") || strings.Contains(cookie, "; Secure") != secure {
			t.Errorf("at %q: cookie %q", address, cookie)
		}
	}
}

func TestLocalPath(t *testing.T) {
	for path, want := range map[string]string{
		"/": "/", "/releases/r1?x=1": "/releases/r1?x=1", "": "/", "//evil.example": "/", `/\evil.example`: "/", "https://evil.example": "/",
		"/a\r\nSet-Cookie: x": "/", "/signin?next=/": "/", "/\t/evil.example": "/",
	} {
		if got := localPath(path); got != want {
			t.Errorf("localPath(%q) = %q, want %q", path, got, want)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestNobodyHasToSignIn: where the machine's users operate, the page for signing in leads on.
func TestNobodyHasToSignIn(t *testing.T) {
	s := newSite(t, Config{}, nil)
	if resp := s.ask("GET", "/signin"); resp.StatusCode != 303 || resp.Header.Get("Location") != "/" {
		t.Errorf("status %d to %q", resp.StatusCode, resp.Header.Get("Location"))
	}
	if page := body(t, s.ask("GET", "/")); strings.Contains(page, "Sign out") {
		t.Error("the page offers to sign out of what was not signed in to")
	}
}
