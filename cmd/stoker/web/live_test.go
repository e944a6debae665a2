package web

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/worker/redistest"
)

// stream is an open stream of a page's events.
type stream struct {
	*http.Response
	lines *bufio.Scanner
}

// open asks for a page's events, with a session's cookie unless it is "".
func openStream(t *testing.T, base, path, cookie string) stream {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, "GET", base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	if cookie != "" {
		r.AddCookie(&http.Cookie{Name: sessionCookie, Value: cookie})
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	return stream{resp, lines}
}

// next returns the next event, "" at the stream's end.
func (s stream) next() (name, data string) {
	for s.lines.Scan() {
		switch line := s.lines.Text(); {
		case line == "":
			return name, data
		case strings.HasPrefix(line, "event: "):
			name = strings.TrimPrefix(line, "event: ")
		default:
			data += strings.TrimPrefix(line, "data: ") + "\n"
		}
	}
	return "", ""
}

// until reads events up to one of that name and returns its data; it fails at the stream's end.
func (s stream) until(t *testing.T, want string) string {
	t.Helper()
	for {
		name, data := s.next()
		if name == want {
			return data
		}
		if name == "" {
			t.Fatalf("the stream ended before an event %q: %v", want, s.lines.Err())
		}
	}
}

// TestStream: a page comes whole at once, again when it has changed, and else only the time.
func TestStream(t *testing.T) {
	ready := make(chan string, 1)
	ready <- "first <reason>"
	s := newSite(t, Config{}, nil, rollbackReason(ready))
	st := openStream(t, serve(t, s), "/", "")
	for name, want := range map[string]string{"Content-Type": "text/event-stream", "X-Accel-Buffering": "no", "Cache-Control": "no-store, no-transform", "Content-Security-Policy": pagePolicy} {
		if got := st.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if page := st.until(t, "page"); !strings.Contains(page, "first &lt;reason&gt;") || !strings.Contains(page, `<time id="read"`) {
		t.Errorf("the first event:\n%s", page)
	}
	if at := st.until(t, "same"); strings.TrimSpace(at) != "2026-11-22T12:00:00Z" {
		t.Errorf("nothing has changed, and it says %q", at)
	}
	<-ready
	ready <- "second reason"
	if page := st.until(t, "page"); !strings.Contains(page, "second reason") {
		t.Errorf("the page has changed, and what comes is\n%s", page)
	}
}

// TestStreamEndsWithItsSession: who signs out, or whose session has run out, is shown nothing more.
func TestStreamEndsWithItsSession(t *testing.T) {
	s := newSite(t, Config{WebTokensFile: tokensFile(t)}, nil)
	base := serve(t, s)
	const cookie = "a-session"
	who := `{"name":"vera","scope":"view"}`
	key := s.guard.sessions.key(cookie)
	if err := s.deps.Queue.Set(t.Context(), key, who, time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	st := openStream(t, base, "/tasks/release:rollback/t-1", cookie)
	if page := st.until(t, "page"); !strings.Contains(page, "Rollback") {
		t.Errorf("the first event:\n%s", page)
	}
	if err := s.deps.Queue.Del(t.Context(), key).Err(); err != nil {
		t.Fatal(err)
	}
	if data := st.until(t, "end"); strings.TrimSpace(data) != "data:" {
		t.Errorf("the last event holds %q", data)
	}
	if name, _ := st.next(); name != "" {
		t.Errorf("after the end comes %q", name)
	}
	redistest.Eventually(t, "the stream to give its place back", func() bool {
		if !s.streams.room.TryAcquire(mostStreams) {
			return false
		}
		s.streams.room.Release(mostStreams)
		return true
	})
}

// TestStreamsAreGuarded: a stream needs what its page needs, comes from the page's own origin, and there is no
// end of them.
func TestStreamsAreGuarded(t *testing.T) {
	s := newSite(t, Config{WebTokensFile: tokensFile(t)}, nil)
	events := header("Accept", "text/event-stream")
	for _, path := range []string{"/", "/releases", "/releases/r42", "/invalidations", "/health", "/schedule", "/tasks/release:rollback/t-1"} {
		if got := s.ask("GET", path, events).StatusCode; got != 401 {
			t.Errorf("%s for nobody: status %d", path, got)
		}
		if got := s.ask("GET", path, events, basic("shop", invalidateSecret)).StatusCode; got != 403 {
			t.Errorf("%s for the scope invalidate: status %d", path, got)
		}
		for _, site := range []string{"cross-site", "same-site", "none"} {
			if got := s.ask("GET", path, events, basic("vera", viewSecret), header("Sec-Fetch-Site", site)).StatusCode; got != 403 {
				t.Errorf("%s from %s: status %d", path, site, got)
			}
		}
	}
	if !s.streams.room.TryAcquire(mostStreams) {
		t.Fatal("some streams are open still")
	}
	if resp := s.ask("GET", "/", events, basic("vera", viewSecret)); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("one stream too many: status %d", resp.StatusCode)
	}
	if resp := s.ask("GET", "/", basic("vera", viewSecret)); resp.StatusCode != 200 || resp.Header.Get("Vary") != "Accept" {
		t.Errorf("the page itself meanwhile: status %d, Vary %q", resp.StatusCode, resp.Header.Get("Vary"))
	}
}

// TestStreamsEndWithTheServer: an open page does not hold a stopping server up.
func TestStreamsEndWithTheServer(t *testing.T) {
	s := newSite(t, Config{}, nil)
	ctx, stop := context.WithCancel(context.Background())
	listener := listen(t)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, listener) }()
	st := openStream(t, "http://"+listener.Addr().String(), "/health", "")
	st.until(t, "page")
	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(stopLimit / 2):
		t.Fatal("the server waits for its streams")
	}
	if name, _ := st.next(); name != "" {
		t.Errorf("after the stop comes %q", name)
	}
}

// TestStreamOutlastsTheUsualLimits: the patience that requests are shown does not end a stream.
func TestStreamOutlastsTheUsualLimits(t *testing.T) {
	s := newSite(t, Config{}, nil)
	s.limits = patience{header: 100 * time.Millisecond, request: 100 * time.Millisecond, response: 200 * time.Millisecond, idle: 100 * time.Millisecond}
	st := openStream(t, serve(t, s), "/tasks/release:rollback/t-1", "")
	for range 3 { // half a second apart
		st.until(t, "same")
	}
}

// TestStreamWaitsForTheQueueRedis: while nobody knows whose session it is nothing is shown; afterwards it goes on.
func TestStreamWaitsForTheQueueRedis(t *testing.T) {
	s := newSite(t, Config{WebTokensFile: tokensFile(t)}, nil)
	base := serve(t, s)
	const cookie = "a-session"
	if err := s.deps.Queue.Set(t.Context(), s.guard.sessions.key(cookie), `{"name":"vera","scope":"view"}`, time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	away := make(chan error, 1)
	away <- nil
	s.guard.sessions.queue.AddHook(awayHook{away})
	st := openStream(t, base, "/tasks/release:rollback/t-1", cookie)
	st.until(t, "page")
	<-away
	away <- errors.New("queue Redis is away")
	st.until(t, "wait")
	<-away
	away <- nil
	st.until(t, "same")
}

// awayHook fails every command with the error in the channel, which holds one.
type awayHook struct{ current chan error }

func (awayHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h awayHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := <-h.current
		h.current <- err
		if err != nil {
			cmd.SetErr(err)
			return err
		}
		return next(ctx, cmd)
	}
}

func (h awayHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}
