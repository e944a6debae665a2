package web

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"
)

// How often what is shown is looked at.
const (
	watched   = 500 * time.Millisecond // a task: somebody waits for it
	refreshed = 2 * time.Second
	seldom    = 15 * time.Second // what is written once a minute
)

// Bounds of the streams that keep pages current.
const (
	mostStreams = 64               // at once, of all pages
	streamLife  = time.Hour        // then the browser comes again
	sendLimit   = 10 * time.Second // that a browser may take to accept an event
)

// streams are the pages that are kept current. They are safe for concurrent use.
type streams struct {
	room     *semaphore.Weighted
	stopping context.Context // ends when the server stops
	stop     context.CancelFunc
}

func newStreams() *streams {
	ctx, cancel := context.WithCancel(context.Background())
	return &streams{semaphore.NewWeighted(mostStreams), ctx, cancel}
}

// live serves a page, and to who asks at the page's own address for a stream of events
// (text/event-stream) the page again and again: an event "page" with the whole page whenever it has
// changed, else an event "same" with the time, which keeps proxies from taking the stream for dead. Each
// time who asks is identified anew: what ends a session ends its streams, with an event "end"; while the queue
// Redis does not say who it is, an event "wait" is all that is sent.
func (s *Server) live(every time.Duration, page http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", "Accept")
		if r.Header.Get("Accept") != "text/event-stream" {
			page(w, r)
			return
		}
		// A page elsewhere must not take up the streams of whoever has it open.
		if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
			refuse(w, r, http.StatusForbidden, "This request comes from a page of another origin.")
			return
		}
		if !s.streams.room.TryAcquire(1) {
			w.Header().Set("Retry-After", "30")
			refuse(w, r, http.StatusServiceUnavailable, fmt.Sprintf("%d pages are kept current already: read this one again by hand.", mostStreams))
			return
		}
		defer s.streams.room.Release(1)
		ctx, cancel := context.WithTimeout(r.Context(), streamLife)
		defer cancel()
		defer context.AfterFunc(s.streams.stopping, cancel)()
		s.stream(w, r.WithContext(ctx), every, page)
	})
}

// stream sends a page's events until the request's context ends or its sender may no longer see it.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, every time.Duration, page http.HandlerFunc) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no") // nginx would keep events back
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Time{}); err != nil {
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	var shown []byte
	for {
		name, data := "wait", []byte(nil)
		switch now, no := s.look(r, page); {
		case no == nil && bytes.Equal(mainPart(now), shown):
			name, data = "same", []byte(s.deps.Now().UTC().Format(time.RFC3339))
		case no == nil:
			name, data, shown = "page", now, mainPart(now)
		case no.status != http.StatusServiceUnavailable: // else it may be known again in a moment
			name = "end"
		}
		if control.SetWriteDeadline(time.Now().Add(sendLimit)) != nil {
			return
		}
		event(w, name, data)
		if control.Flush() != nil || name == "end" {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}

// look makes the page for whoever the request's sender is by now.
func (s *Server) look(r *http.Request, page http.HandlerFunc) ([]byte, *refusal) {
	who, no := s.guard.identify(r)
	if no == nil && !who.scope.allows(View) {
		no = &refusal{http.StatusForbidden, "This needs the scope view."}
	}
	if no != nil {
		return nil, no
	}
	var w written
	page(&w, r.WithContext(context.WithValue(r.Context(), actorKey{}, &who)))
	return w.Bytes(), nil
}

// written is an answer in memory.
type written struct {
	bytes.Buffer
	header http.Header
}

// Header implements [http.ResponseWriter].
func (w *written) Header() http.Header {
	if w.header == nil {
		w.header = http.Header{}
	}
	return w.header
}

// WriteHeader implements [http.ResponseWriter].
func (*written) WriteHeader(int) {}

// mainPart is what a page shows, without the time at which it was read.
func mainPart(page []byte) []byte {
	if from, to := bytes.Index(page, []byte("<main")), bytes.LastIndex(page, []byte("</main>")); from >= 0 && to > from {
		return page[from:to]
	}
	return page
}

// event writes one event; what fails to be written shows when it is flushed.
func event(w http.ResponseWriter, name string, data []byte) {
	_, _ = fmt.Fprintf(w, "event: %s\n", name)
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, len(data)+1)
	for lines.Scan() {
		_, _ = fmt.Fprintf(w, "data: %s\n", lines.Bytes())
	}
	if len(data) == 0 {
		_, _ = fmt.Fprint(w, "data:\n") // browsers drop an event without any
	}
	_, _ = fmt.Fprint(w, "\n")
}
