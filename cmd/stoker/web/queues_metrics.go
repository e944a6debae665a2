package web

import (
	"net/http"
	"regexp"
	"strings"
	"time"
)

const (
	// mostAsks bounds the requests that ask Prometheus at a time: asynqmon sends nine queries for each, and
	// waits for their answers for as long as it takes.
	mostAsks   = 4
	asksWithin = 5 * time.Second // that a request waits for its turn
)

// queueNames is what asynqmon's filter may hold. It puts the names into its queries as they are: anything else
// would be a query of its own, and Prometheus knows more than queues.
var queueNames = regexp.MustCompile(`^[A-Za-z0-9._-]+(,[A-Za-z0-9._-]+)*$`)

// askPrometheus serves the figures of asynqmon's page of metrics.
func (q *queuesUI) askPrometheus(w http.ResponseWriter, r *http.Request) {
	names := r.URL.Query().Get("queues")
	switch {
	case q.asks == nil:
		http.Error(w, "No Prometheus: set STOKER_PROMETHEUS_URL.", http.StatusNotFound)
		return
	case names != "" && !queueNames.MatchString(names):
		http.Error(w, "Bad queues: names of queues, separated by commas.", http.StatusBadRequest)
		return
	}
	turn := time.NewTimer(asksWithin)
	defer turn.Stop()
	select {
	case q.asks <- struct{}{}:
	case <-turn.C:
		http.Error(w, "Prometheus does not keep up: see whether it answers at STOKER_PROMETHEUS_URL.", http.StatusServiceUnavailable)
		return
	case <-r.Context().Done():
		return
	}
	defer func() { <-q.asks }()
	w.Header().Set("Content-Type", "application/json")
	q.handler.ServeHTTP(&closedWriter{ResponseWriter: w}, r)
}

// closedWriter keeps the words of an error to itself: they hold the address of Prometheus.
type closedWriter struct {
	http.ResponseWriter
	failed bool
}

// WriteHeader implements [http.ResponseWriter].
func (w *closedWriter) WriteHeader(status int) {
	if w.failed = status >= http.StatusInternalServerError; w.failed {
		status = http.StatusBadGateway
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (w *closedWriter) Write(p []byte) (int, error) {
	if !w.failed {
		return w.ResponseWriter.Write(p)
	}
	_, err := strings.NewReader("Prometheus does not answer: see whether it runs at STOKER_PROMETHEUS_URL.\n").WriteTo(w.ResponseWriter)
	return len(p), err
}
