package web

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/alphanode/stoker/worker/redistest"
)

// The attacks on the console that are not a row of another test: those are cross-site writes
// (TestWritesFromElsewhereAreRefused), forged proxy headers (TestSignedInByProxy), guessed tokens
// (TestWrongTokensAreSlowedDown, TestGuessersBehindAProxy), sign-ins planted or altered
// (TestStrayReturn, TestProviderIsNotBelieved), names that resolve to this machine
// (TestWithoutTokensOnlyTheMachineItself), bodies and headers too large (TestBodyLimit,
// TestOversizedHeader) and HTML in whatever is shown (TestPagesEscape).

// TestSlowClients: who sends or takes a request byte by byte is cut off, and holds nobody else up.
func TestSlowClients(t *testing.T) {
	s := newSite(t, Config{WebTokensFile: tokensFile(t)}, nil)
	s.limits = patience{header: 150 * time.Millisecond, request: 300 * time.Millisecond, response: 300 * time.Millisecond, idle: 150 * time.Millisecond}
	addr := strings.TrimPrefix(serve(t, s), "http://")
	starts := map[string]string{
		"nothing at all": "",
		"headers":        "GET / HTTP/1.1\r\nHost: localhost\r\n",
		"a body":         "POST /signin HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\ntoken=",
		"an API body":    "POST /v1/invalidations HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + invalidateSecret + "\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
	}
	var conns []net.Conn
	for range 20 {
		for _, start := range starts {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if _, err := io.WriteString(conn, start); err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
		}
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + addr + "/healthz")
	if err != nil || resp.StatusCode != 200 {
		t.Errorf("somebody else meanwhile: %v, %v", resp, err)
	} else {
		_ = resp.Body.Close()
	}
	for _, conn := range conns {
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		for buf := make([]byte, 4096); ; {
			_, _ = io.WriteString(conn, "x") // keeps on dripping; the write fails once the server has hung up
			if _, err := conn.Read(buf); err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("a slow client was not cut off")
				}
				break
			}
		}
	}
}

// TestPathTricks: nothing below /queues, however it is written, gets a viewer a write, or anybody what
// is beside it.
func TestPathTricks(t *testing.T) {
	s := withQueue(t)
	const pause = "queues/api/queues/alpha.warm:pause"
	paths := []string{
		"/" + pause, "//" + pause, "/./" + pause, "/x/../" + pause, "/queues/./api/queues/alpha.warm:pause", "/queues//api/queues/alpha.warm:pause",
		"/queues/static/../api/queues/alpha.warm:pause", "/queues/static/%2e%2e/api/queues/alpha.warm:pause", "/queues/x.png/../api/queues/alpha.warm:pause",
		"/queues/%2fapi/queues/alpha.warm:pause", "/queues/api%2fqueues/alpha.warm:pause", "/queues;/api/queues/alpha.warm:pause", "/queues/api/queues/alpha.warm%3apause",
		"/QUEUES/api/queues/alpha.warm:pause", "/queues/api/../../assets/style.css", "/queues/%5c..%5capi/queues/alpha.warm:pause", "/queues/api/queues/alpha.warm:pause?size=1",
		"/assets/../" + pause, "/signin/../" + pause, "/v1/../" + pause, "/healthz/../" + pause,
	}
	for _, as := range []func(*http.Request){func(*http.Request) {}, basic("vera", viewSecret), basic("shop", invalidateSecret)} {
		for _, path := range paths {
			for _, method := range []string{"POST", "DELETE", "PUT", "PATCH", "pOST"} {
				s.ask(method, path, as)
			}
			for _, name := range []string{"X-HTTP-Method-Override", "X-Original-URL", "X-Rewrite-URL"} {
				s.ask("GET", path, as, header(name, "POST"))
				s.ask("GET", "/queues/", as, header(name, path))
			}
			s.ask("GET", path+"?_method=POST", as)
		}
	}
	queue, err := s.lanes.inspector.GetQueueInfo("alpha.warm")
	if err != nil || queue.Paused || queue.Pending != 1 {
		t.Errorf("the lane after the tricks: %+v, %v", queue, err)
	}
	for _, path := range []string{"/queues/..%2f..%2f..%2fetc/passwd", "/assets/..%2fguard.go", "/assets/%2e%2e/pages/layout.html", "/assets/../guard.go", "/queues/static/..%2f..%2fgo.mod"} {
		if text := body(t, s.ask("GET", path, basic("otto", operateSecret))); strings.Contains(text, "package web") || strings.Contains(text, "root:") || strings.Contains(text, "{{define") || strings.Contains(text, "module ") {
			t.Errorf("%s shows %.200s", path, text)
		}
	}
}

// TestLogInjection: whatever a stranger sends stays within the one line that tells of it, in both
// formats of the log.
func TestLogInjection(t *testing.T) {
	const forged = "x\r\ntime=2026 level=INFO msg=\"console write\" actor=root\n{\"msg\":\"console write\",\"actor\":\"root\"}\x1b[2J\u202e"
	for name, handler := range map[string]func(io.Writer) slog.Handler{
		"text": func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) },
		"JSON": func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, nil) },
	} {
		logged := &syncBuffer{}
		s := newSite(t, Config{WebTokensFile: tokensFile(t)}, nil, func(d *Deps) { d.Log = slog.New(handler(logged)) })
		odd := func(r *http.Request) {
			r.URL.Path = "/queues/" + forged
			r.URL.RawPath = ""
			r.SetBasicAuth(forged, forged)
			r.Header.Set("User-Agent", forged)
			r.Header.Set("X-Forwarded-For", forged)
		}
		s.ask("POST", "/", odd)
		s.ask("GET", "/releases/"+strings.NewReplacer("\n", "%0a", "\r", "%0d", " ", "%20", "\"", "%22", "\x1b", "%1b").Replace(forged), basic("otto", operateSecret))
		lines := strings.Split(strings.TrimSpace(logged.String()), "\n")
		for _, line := range lines {
			if strings.HasPrefix(line, "time=2026 ") || strings.Contains(line, "\x1b") || strings.Contains(line, "\r") || strings.Contains(line, "\u202e") && name == "text" {
				t.Errorf("%s: %q", name, line)
			}
			var fields map[string]any
			if name == "JSON" && (json.Unmarshal([]byte(line), &fields) != nil || fields["actor"] == "root") {
				t.Errorf("%s: %q", name, line)
			}
		}
		if len(lines) != 2 { // the refused sign-in, and the audit of the write
			t.Errorf("%s: %d lines:\n%s", name, len(lines), logged)
		}
	}
}

// TestOddPayloads: what stands in a task's payload reaches asynqmon as JSON's text and never as HTML.
func TestOddPayloads(t *testing.T) {
	queue := redistest.Mini(t)
	client := asynq.NewClientFromRedisClient(queue)
	for _, payload := range []string{`{"reason":"<script>alert(1)</script>"}`, "<img src=x onerror=alert(1)>", "\x1b[31m", `{"a":"` + strings.Repeat("x", 1<<20) + `"}`} {
		if _, err := client.Enqueue(asynq.NewTask("<script>alert(1)</script>", []byte(payload)), asynq.Queue("alpha.warm")); err != nil {
			t.Fatal(err)
		}
	}
	resp := newSite(t, Config{}, queue).ask("GET", "/queues/api/queues/alpha.warm/pending_tasks")
	text := body(t, resp)
	if kind := resp.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/json") || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("type %q: a browser might take it for a page", kind)
	}
	if !json.Valid([]byte(text)) || strings.Contains(text, "\x1b") || len(text) > 200_000 {
		t.Errorf("%d bytes: %.300s", len(text), text)
	}
}

// TestSmuggledRequests: a request that two servers could read as one or as two is refused.
func TestSmuggledRequests(t *testing.T) {
	s := withQueue(t)
	addr := strings.TrimPrefix(serve(t, s), "http://")
	const hidden = "POST /queues/api/queues/alpha.warm:pause HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-User: otto\r\n\r\n"
	for name, head := range map[string]string{
		"two lengths":           "Content-Length: 0\r\nContent-Length: 90\r\n",
		"a length and chunks":   "Content-Length: 4\r\nTransfer-Encoding: chunked, identity\r\n",
		"chunks by other names": "Transfer-Encoding: xchunked\r\n",
		"a folded header":       "X: a\r\n Transfer-Encoding : chunked\r\n",
	} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_, err = fmt.Fprintf(conn, "POST /signin HTTP/1.1\r\nHost: localhost\r\n%s\r\n%s", head, hidden)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode < 400 {
				t.Errorf("%s: status %d", name, resp.StatusCode)
			}
		}
		_ = conn.Close()
	}
	if queue, err := s.lanes.inspector.GetQueueInfo("alpha.warm"); err != nil || queue.Paused {
		t.Errorf("the lane afterwards: %+v, %v", queue, err)
	}
}
