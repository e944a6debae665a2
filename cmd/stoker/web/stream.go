package web

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/alphanode/stoker/tasks"
)

const (
	maxLine   = 1 << 20 // bytes of one call in a stream
	maxFlight = 2 << 20 // bytes of a stream's calls that are being recorded
	maxAtOnce = 256     // calls of a stream that are being recorded
)

// summary answers a stream.
type summary struct {
	Calls   int   `json:"calls"`
	Targets int   `json:"targets"`
	First   int64 `json:"first"` // lowest number
	Last    int64 `json:"last"`  // highest number
}

// streaming records a stream's calls while it is read. Calls in flight share round trips; how
// many there may be bounds the memory, and holds the sender back.
type streaming struct {
	record func(context.Context, tasks.Invalidation) (int64, error)
	flight *semaphore.Weighted
	done   sync.WaitGroup

	mu     sync.Mutex
	sum    summary // guarded by mu
	failed error   // guarded by mu; the first
}

// acceptStream answers a newline-delimited stream of calls with one summary. The first bad line
// ends it; what came before that is recorded.
func (a *api) acceptStream(w http.ResponseWriter, r *http.Request) error {
	if r.Header.Get("Idempotency-Key") != "" {
		return malformed("Idempotency-Key is not for streams: leave it out, and send a stream that failed again, which is harmless.")
	}
	s := &streaming{record: a.recordOne, flight: semaphore.NewWeighted(maxFlight)}
	line, err := s.run(context.WithoutCancel(r.Context()), tasks.By{Actor: actorOf(r).name}, patient{r.Body, http.NewResponseController(w)})
	switch {
	case err != nil:
		p := problemOf(err)
		p.Line, p.Recorded = line, &s.sum.Calls
		if p.Status == http.StatusServiceUnavailable {
			a.log.WarnContext(r.Context(), "invalidation not recorded", "error", err)
		}
		return p
	case s.sum.Calls == 0:
		return invalid("The stream holds no call: send one a line.")
	}
	answer(w, "application/json", http.StatusAccepted, s.sum)
	return nil
}

// run records the lines of body and returns the number of the last one read.
func (s *streaming) run(ctx context.Context, by tasks.By, body io.Reader) (line int, err error) {
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	for err == nil && lines.Scan() {
		line++
		raw := bytes.TrimSpace(lines.Bytes())
		if len(raw) == 0 {
			continue
		}
		var call tasks.Invalidation
		if call, err = readLine(raw); err == nil {
			call.Actor = by.Actor
			err = s.submit(ctx, call, len(raw))
		}
	}
	s.done.Wait()
	switch scanErr := lines.Err(); {
	case err != nil:
	case errors.Is(scanErr, bufio.ErrTooLong):
		line++
		err = newProblem(http.StatusRequestEntityTooLarge, "Line %d is over %d bytes: make several calls of it.", line, maxLine)
	case scanErr != nil:
		err = unreadable(scanErr)
	default:
		err = s.failed
	}
	return line, err
}

// submit begins to record a call, once there is room for it.
func (s *streaming) submit(ctx context.Context, call tasks.Invalidation, size int) error {
	if err := call.Validate(); err != nil {
		return err
	}
	weight := int64(max(size, maxFlight/maxAtOnce))
	if err := s.flight.Acquire(ctx, weight); err != nil {
		return err
	}
	s.mu.Lock()
	failed := s.failed
	s.mu.Unlock()
	if failed != nil {
		s.flight.Release(weight)
		return failed
	}
	s.done.Go(func() {
		defer s.flight.Release(weight)
		ctx, cancel := context.WithTimeout(ctx, recordLimit)
		defer cancel()
		number, err := s.record(ctx, call)
		s.note(number, len(call.Targets), err)
	})
	return nil
}

func (s *streaming) note(number int64, targets int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if s.failed == nil {
			s.failed = err
		}
		return
	}
	if s.sum.Calls == 0 || number < s.sum.First {
		s.sum.First = number
	}
	s.sum.Last = max(s.sum.Last, number)
	s.sum.Calls++
	s.sum.Targets += targets
}

// patient is a body that may take as long as it likes in all, but not between two reads.
type patient struct {
	io.Reader
	control *http.ResponseController
}

// Read implements [io.Reader].
func (p patient) Read(b []byte) (int, error) {
	// Where deadlines cannot be set there are none to put off.
	_ = p.control.SetReadDeadline(time.Now().Add(requestLimit))
	_ = p.control.SetWriteDeadline(time.Now().Add(responseLimit))
	return p.Reader.Read(b)
}
