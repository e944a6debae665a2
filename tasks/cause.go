package tasks

import (
	"encoding/json"
	"errors"
	"fmt"
)

// causes names the errors that callers of a task branch on, for the way through its result.
var causes = []struct {
	name string
	err  error
}{
	{"invalid", ErrInvalid},
	{"not found", ErrNotFound},
	{"not fresh", ErrNotFresh},
	{"refused", ErrRefused},
	{"newer", ErrNewer},
}

// Failure is the result of a task that gave up.
type Failure struct {
	Error string `json:"error"`
	Cause string `json:"cause,omitempty"` // "" for one that callers need not tell apart
}

// NewFailure describes err for whoever waits for the task.
func NewFailure(err error) Failure {
	f := Failure{Error: err.Error()}
	for _, c := range causes {
		if errors.Is(err, c.err) {
			f.Cause = c.name
			break
		}
	}
	return f
}

// Failed is the error of a task that gave up, from its last error and its result: it wraps the
// cause that the worker found, so that the waiting side branches as the worker would.
func Failed(lastErr string, result []byte) error {
	var f Failure
	if json.Unmarshal(result, &f) == nil && f.Error != "" {
		for _, c := range causes {
			if c.name == f.Cause {
				return causedError{f.Error, c.err}
			}
		}
		return errors.New(f.Error)
	}
	return fmt.Errorf("task failed: %s", lastErr)
}

// causedError has a message that names its cause already.
type causedError struct {
	text  string
	cause error
}

func (e causedError) Error() string { return e.text }

func (e causedError) Unwrap() error { return e.cause }
