package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/alphanode/stoker/tasks"
)

// problem is an answer that says no (RFC 9457): what was wrong, with which value, and what to do.
type problem struct {
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Detail   string `json:"detail"`
	Line     int    `json:"line,omitempty"`     // of a stream, from 1
	Recorded *int   `json:"recorded,omitempty"` // calls of a stream that are recorded all the same
	retry    time.Duration
}

// Error implements error.
func (p *problem) Error() string { return p.Detail }

func newProblem(status int, format string, args ...any) *problem {
	return &problem{Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...)}
}

// malformed is a body that is not what the API reads.
func malformed(format string, args ...any) *problem {
	return newProblem(http.StatusBadRequest, format, args...)
}

// invalid is a body that is well formed and asks for what cannot be.
func invalid(format string, args ...any) *problem {
	return newProblem(http.StatusUnprocessableEntity, format, args...)
}

// later is a request that may succeed, unchanged, after a while.
func later(status int, retry time.Duration, format string, args ...any) *problem {
	p := newProblem(status, format, args...)
	p.retry = retry
	return p
}

// problemOf is the API's table from an error's cause to its answer. What it does not know is the
// queue Redis: the text of such an error names addresses and stays in the log.
func problemOf(err error) *problem {
	var p *problem
	switch {
	case errors.As(err, &p):
		answer := *p
		return &answer
	case errors.Is(err, tasks.ErrInvalid):
		return invalid("%s", strings.ReplaceAll(err.Error(), tasks.ErrInvalid.Error()+": ", ""))
	case errors.Is(err, tasks.ErrNotFound):
		return newProblem(http.StatusNotFound, "%v", err)
	case errors.Is(err, tasks.ErrNotReplicated), errors.Is(err, tasks.ErrNoRelease), errors.Is(err, tasks.ErrNewer):
		return later(http.StatusServiceUnavailable, 5*time.Second, "%v", err)
	case errors.Is(err, tasks.ErrFull):
		return later(http.StatusTooManyRequests, time.Second, "%v: send it again in a second, or send less", err)
	default:
		return later(http.StatusServiceUnavailable, 5*time.Second,
			"The queue Redis does not answer. An invalidation may or may not be recorded: send it again, which is harmless.")
	}
}

// unreadable says why a body could not be read to its end.
func unreadable(err error) *problem {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return newProblem(http.StatusRequestEntityTooLarge,
			"The body is over %d bytes: send several requests, a stream (Content-Type: %s), or a tag.", tooLarge.Limit, streamType)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return newProblem(http.StatusRequestTimeout, "Nothing came for too long: send the body within %v, a stream's lines without longer pauses.", requestLimit)
	default:
		return malformed("The body ends early: %v.", err)
	}
}

func (p *problem) write(w http.ResponseWriter) {
	if p.retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(p.retry/time.Second)))
	}
	answer(w, "application/problem+json", p.Status, p)
}

func answer(w http.ResponseWriter, contentType string, status int, v any) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // plain data: only a client that is gone can fail it
}
