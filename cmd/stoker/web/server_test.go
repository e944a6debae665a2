package web

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

func TestReadyNamesWhoIsSilent(t *testing.T) {
	up := redistest.Mini(t)
	down := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1, DialerRetries: 1})
	defer func() { _ = down.Close() }()
	tests := []struct {
		queue, cache *redis.Client
		status       int
		want         string
	}{
		{up, up, 200, "ok\n"},
		{down, up, 503, "not ready: no answer from the queue Redis\n"},
		{up, down, 503, "not ready: no answer from the cache Redis\n"},
		{down, down, 503, "not ready: no answer from the queue and the cache Redis\n"},
	}
	for _, tt := range tests {
		s := newSite(t, Config{}, nil, func(d *Deps) { d.Queue, d.Cache = tt.queue, tt.cache })
		resp := s.ask("GET", "/readyz", host("10.0.0.7:8080"))
		if got := body(t, resp); resp.StatusCode != tt.status || got != tt.want {
			t.Errorf("status %d, %q; want %d, %q", resp.StatusCode, got, tt.status, tt.want)
		}
		if got := s.ask("GET", "/healthz", host("10.0.0.7:8080")).StatusCode; got != 200 {
			t.Errorf("healthz: status %d", got)
		}
	}
}

func TestReadyDoesNotWaitForAServerThatHangs(t *testing.T) {
	// A server that takes connections and says nothing.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hung := redis.NewClient(&redis.Options{Addr: silent.Addr().String(), MaxRetries: -1, ReadTimeout: time.Minute, DialerRetries: 1})
	defer func() { _ = hung.Close() }()
	p := newProbe(hung, redistest.Mini(t))
	p.limit = 50 * time.Millisecond
	s := newSite(t, Config{}, nil)
	s.handler = p
	started := time.Now()
	resp := s.ask("GET", "/readyz")
	if took := time.Since(started); resp.StatusCode != 503 || took > 10*time.Second {
		t.Errorf("status %d after %v, want 503 after 50 ms", resp.StatusCode, took)
	}
	_ = silent.Close()                                                  // resets the connection
	<-p.flight.DoChan("queue", func() (any, error) { return nil, nil }) // the ping under way ends
}

func TestServeStopsGracefully(t *testing.T) {
	inside, release := make(chan struct{}), make(chan struct{})
	s := newSite(t, Config{}, nil, func(d *Deps) {
		d.Status = func(context.Context) (LogStatus, error) { close(inside); <-release; return LogStatus{}, nil }
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, listener) }()
	answered := make(chan error, 1)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	go func() {
		resp, err := client.Get("http://" + listener.Addr().String() + "/")
		if err == nil {
			err = errors.Join(resp.Body.Close(), statusIs(resp, 200))
		}
		answered <- err
	}()
	<-inside
	cancel()
	redistest.Eventually(t, "the listener to close", func() bool {
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	close(release)
	if err := <-answered; err != nil {
		t.Errorf("the request under way: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("stop: %v", err)
	}
}

func statusIs(resp *http.Response, want int) error {
	if resp.StatusCode != want {
		return fmt.Errorf("status %d, want %d", resp.StatusCode, want)
	}
	return nil
}

func TestRunRefusesATakenAddress(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	s := newSite(t, Config{WebAddr: taken.Addr().String()}, nil)
	if err := s.Run(context.Background()); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "STOKER_WEB_ADDR") {
		t.Errorf("error %v, want one that says the address is taken", err)
	}
}

func TestServeRefusesAnOpenListener(t *testing.T) {
	open, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := newSite(t, Config{}, nil).Serve(context.Background(), open); !errors.Is(err, tasks.ErrInvalid) {
		t.Errorf("error %v, want invalid input", err)
	}
	if _, err := open.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is still open: %v", err)
	}
}

func TestOversizedHeader(t *testing.T) {
	s := newSite(t, Config{}, nil)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, listener) }()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	go func() {
		_, _ = fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: localhost\r\nX: %s\r\n\r\n", strings.Repeat("x", 2*headerBytes)) // may be cut off
	}()
	if line, err := bufio.NewReader(conn).ReadString('\n'); !strings.Contains(line, "431") {
		t.Errorf("answer %q, %v; want status 431", line, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
