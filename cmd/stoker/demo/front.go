package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// front is what visitors reach: it passes each request to the build of the active release.
type front struct {
	active func(context.Context) (string, error)
	builds map[string]http.Handler
}

// ServeHTTP implements [http.Handler].
func (f front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, err := f.active(r.Context())
	build, ok := f.builds[id]
	if err != nil || !ok {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "no release of this site is active", http.StatusServiceUnavailable)
		return
	}
	build.ServeHTTP(w, r)
}

// server is an HTTP server on a free loopback port.
type server struct {
	URL  string // without a trailing slash
	http *http.Server
	done chan error
}

func serve(handler http.Handler) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the demo's site: %w", err)
	}
	s := &server{
		URL:  "http://" + l.Addr().String(),
		http: &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second},
		done: make(chan error, 1),
	}
	go func() { s.done <- s.http.Serve(l) }()
	return s, nil
}

// Close lets running requests finish for a while, then ends them.
func (s *server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.http.Close()
	}
	if served := <-s.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
