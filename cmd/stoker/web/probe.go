package web

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/singleflight"
)

const readyLimit = time.Second // that a Redis has to answer

// probe tells whether both Redises answer. Anybody may ask, so however many do, each server is
// asked once at a time.
type probe struct {
	names   []string
	clients []redis.UniversalClient
	limit   time.Duration
	flight  singleflight.Group
}

func newProbe(queue, cache redis.UniversalClient) *probe {
	return &probe{names: []string{"queue", "cache"}, clients: []redis.UniversalClient{queue, cache}, limit: readyLimit}
}

// ServeHTTP answers /readyz.
func (p *probe) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), p.limit)
	defer cancel()
	answers := make([]<-chan singleflight.Result, len(p.clients))
	for i, c := range p.clients {
		// A client may take its own timeouts for a server that hangs, whatever the context says.
		answers[i] = p.flight.DoChan(p.names[i], func() (any, error) {
			ctx, cancel := context.WithTimeout(context.Background(), p.limit)
			defer cancel()
			return nil, c.Ping(ctx).Err()
		})
	}
	var down []string
	for i, answer := range answers {
		select {
		case a := <-answer:
			if a.Err != nil {
				down = append(down, p.names[i])
			}
		case <-ctx.Done():
			down = append(down, p.names[i])
		}
	}
	if len(down) > 0 {
		http.Error(w, fmt.Sprintf("not ready: no answer from the %s Redis", strings.Join(down, " and the ")), http.StatusServiceUnavailable)
		return
	}
	healthz(w, r)
}

// healthz answers /healthz: the process is up.
func healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok\n")) // the client is gone: nobody to tell
}
