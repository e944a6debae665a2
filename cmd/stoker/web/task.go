package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/alphanode/stoker/tasks"
)

// Task is how far a task has come.
type Task struct {
	State       TaskState
	Phase       string // of one that runs
	Done, Total int64  // of that phase; Total 0 means unknown
	Braked      string // why it goes slower than its pace
	Err         string // of one that failed
	Result      json.RawMessage
}

// TaskState says where a task is in its life.
type TaskState string

// The states of a task.
const (
	TaskWaits   TaskState = "waits"
	TaskRuns    TaskState = "runs"
	TaskRetries TaskState = "is tried again"
	TaskDone    TaskState = "done"
	TaskFailed  TaskState = "failed"
)

// Ended reports whether nothing more will happen.
func (t Task) Ended() bool { return t.State == TaskDone || t.State == TaskFailed }

// taskPage is what the page of a task shows.
type taskPage struct {
	Task
	Name    string
	Summary string // of the result; "" where there is none in words
	Shown   string // the result as it is
}

// What tasks are called.
var taskNames = map[string]string{
	tasks.TypeRollback: "Rollback", tasks.TypeActivate: "Switch", tasks.TypeSnapshot: "Snapshot", tasks.TypeDrill: "Drill", tasks.TypeExpire: "Expiry",
}

// showTask answers /tasks/{type}/{id}.
func (s *Server) showTask(w http.ResponseWriter, r *http.Request) {
	kind, id := r.PathValue("type"), r.PathValue("id")
	t, err := within(r.Context(), readLimit, func(ctx context.Context) (Task, error) { return s.deps.Operator.Task(ctx, kind, id) })
	switch {
	case errors.Is(err, tasks.ErrNotFound), errors.Is(err, tasks.ErrInvalid):
		s.render(w, r, http.StatusNotFound, s.pages.message, "No such task", "It ended some time ago, was deleted, or never was.")
		return
	case err != nil:
		s.fail(w, r, "The task could not be read", err)
		return
	}
	t.Err = redactText(t.Err)
	p := taskPage{Task: t, Name: kind, Shown: indent(redact(t.Result))}
	if name, ok := taskNames[kind]; ok {
		p.Name = name
	}
	if t.State == TaskDone {
		p.Summary = inWords(kind, t.Result)
	}
	s.render(w, r, http.StatusOK, s.pages.task, p.Name, p)
}

// inWords tells a result in words.
func inWords(kind string, result json.RawMessage) string {
	switch kind {
	case tasks.TypeRollback:
		var done struct {
			From, To, Via string
			FreshAsOf     int64 `json:"fresh_as_of"`
			Seconds       float64
		}
		if json.Unmarshal(result, &done) == nil && done.To != "" {
			return fmt.Sprintf("%s is served, from %s, after %s. It is fresh as of number %d.", done.To, done.Via, short(time.Duration(done.Seconds*float64(time.Second))), done.FreshAsOf)
		}
	case tasks.TypeActivate:
		var done struct{ Release, Previous string }
		if json.Unmarshal(result, &done) == nil && done.Release != "" {
			if done.Previous == "" {
				return done.Release + " is served."
			}
			return done.Release + " is served; " + done.Previous + " is on standby and can be brought back."
		}
	}
	return upkeepInWords(kind, result)
}
