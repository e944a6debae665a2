package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/hibiken/asynq"
	"github.com/schollz/progressbar/v3"

	"github.com/alphanode/stoker/cmd/stoker/web"
	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker"
)

const (
	askEvery  = 100 * time.Millisecond
	patience  = 10 * time.Second // before a task that is still queued is remarked upon
	stillIdle = "still queued: is a worker running? (`stoker worker`, `stoker status`; lanes can be paused)"
)

// taskStatus is how far a task has come.
type taskStatus struct {
	Task     string           `json:"task"`
	Type     string           `json:"type"`
	State    web.TaskState    `json:"state"`
	Progress *worker.Progress `json:"progress,omitempty"` // of one that runs
	Error    string           `json:"error,omitempty"`    // of the last try that failed
	Result   json.RawMessage  `json:"result,omitempty"`   // of one that ended
}

// taskName names a task.
type taskName struct {
	Type string `json:"type"`
	Task string `json:"task"`
}

var taskOp = operation[taskName, taskStatus]{
	id: "task", says: "How far a task has come, and what came of it",
	method: "GET", path: "/v1/tasks/{type}/{task}", scope: web.View,
	do: func(_ context.Context, r *rooms, in taskName, _ tasks.By) (taskStatus, error) { return r.task(in) },
}

// task reads how far a task has come.
func (r *rooms) task(name taskName) (taskStatus, error) {
	s := taskStatus{Task: name.Task, Type: name.Type, State: web.TaskWaits}
	lane, err := tasks.LaneOf(name.Type)
	if err != nil {
		return s, err
	}
	info, err := asynq.NewInspectorFromRedisClient(r.queue).GetTaskInfo(lane.Queue(r.set.Tasks.App), name.Task)
	switch {
	case errors.Is(err, asynq.ErrTaskNotFound), errors.Is(err, asynq.ErrQueueNotFound), err == nil && info.Type != name.Type:
		return s, fmt.Errorf("task %q of type %q: %w", name.Task, name.Type, tasks.ErrNotFound)
	case err != nil:
		return s, fmt.Errorf("read task %q: %w", name.Task, err)
	}
	s.Error = info.LastErr
	switch info.State {
	case asynq.TaskStateCompleted:
		s.State, s.Result = web.TaskDone, result(info.Result)
	case asynq.TaskStateArchived:
		s.State, s.Result = web.TaskFailed, result(info.Result)
	case asynq.TaskStateRetry:
		s.State = web.TaskRetries
	case asynq.TaskStateActive:
		s.State = web.TaskRuns
		if p, ok := worker.ParseProgress(info.Result); ok {
			s.Progress = &p
		}
	}
	return s, nil
}

// result is a task's result where that is JSON, as all of ours are.
func result(raw []byte) json.RawMessage {
	if !json.Valid(raw) {
		return nil
	}
	return raw
}

// follow asks about a task until it ends and returns its result. The error of a task that gave
// up has the cause that the worker gave it, and with it the exit code. show is told of progress,
// say of what a person should know; both may be nil.
func follow(ctx context.Context, p port, q queued, show func(worker.Progress), say func(string)) (json.RawMessage, error) {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	began := time.Now()
	for {
		s, err := ask(ctx, p, taskOp, taskName{q.Type, q.Task})
		switch {
		case ctx.Err() != nil: // below
		case errors.Is(err, tasks.ErrNotFound):
			return nil, fmt.Errorf("task %q is gone: it ended some time ago, or was deleted", q.Task)
		case err != nil:
			return nil, fmt.Errorf("follow task %q: %w", q.Task, err)
		case s.State == web.TaskDone:
			return s.Result, nil
		case s.State == web.TaskFailed:
			return nil, tasks.Failed(s.Error, s.Result)
		case s.Progress != nil && show != nil:
			show(*s.Progress)
		case s.State == web.TaskWaits && say != nil && time.Since(began) > patience:
			say(stillIdle)
		case s.State == web.TaskRetries && say != nil && strings.Contains(s.Error, tasks.ErrNewer.Error()):
			say("left for a newer worker: " + s.Error)
		case s.State == web.TaskRetries && say != nil:
			say("failed, will be tried again: " + s.Error)
		}
		select {
		case <-ctx.Done():
			// The cause is left out: for the work, nothing was cancelled.
			return nil, fmt.Errorf("stopped waiting; the work goes on as task %s (`stoker status` shows its lane)", q.Task)
		case <-tick.C:
		}
	}
}

// finish reports a task that was enqueued: its result when the caller waits, else its ID.
func finish[T any](ctx context.Context, c *cli, p port, q queued, wait bool, text func(io.Writer, T)) error {
	if !wait {
		return c.show(map[string]string{"task": q.Task}, func(w io.Writer) {
			fmt.Fprintf(w, "enqueued as task %s; --wait follows it, `stoker status` shows its lane\n", q.Task)
		})
	}
	bar := c.newBar()
	defer bar.end()
	result, err := resultOf[T](follow(ctx, p, q, bar.show, bar.say))
	if err != nil {
		return err
	}
	bar.end()
	return c.show(result, func(w io.Writer) { text(w, result) })
}

// resultOf reads a task's result.
func resultOf[T any](raw json.RawMessage, err error) (result T, _ error) {
	if err != nil {
		return result, err
	}
	if err := json.Unmarshal(raw, &result); err != nil {
		return result, fmt.Errorf("read a task's result: %w", err)
	}
	return result, nil
}

// bar shows progress: a bar on a terminal, a line every few seconds elsewhere.
type bar struct {
	out   io.Writer
	term  bool
	quiet bool
	bar   *progressbar.ProgressBar
	phase string
	said  string
	at    time.Time
}

func (c *cli) newBar() *bar { return &bar{out: c.err, term: isTerminal(c.err), quiet: c.json} }

const lineEvery = 3 * time.Second

func (b *bar) show(p worker.Progress) {
	if b.quiet {
		return
	}
	if !b.term {
		if b.phase != p.Phase || time.Since(b.at) >= lineEvery {
			b.phase, b.at = p.Phase, time.Now()
			fmt.Fprintln(b.out, line(p))
		}
		return
	}
	if b.bar == nil || b.phase != p.Phase {
		b.end()
		b.phase = p.Phase
		total := p.Total
		if total <= 0 {
			total = -1
		}
		b.bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(b.out), progressbar.OptionSetDescription(p.Phase),
			progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetPredictTime(true), progressbar.OptionThrottle(askEvery),
			progressbar.OptionSetSpinnerChangeInterval(0)) // it would draw on by itself after the end
	}
	if p.Total > 0 {
		b.bar.ChangeMax64(p.Total)
	}
	_ = b.bar.Set64(p.Done) // it only draws
}

func line(p worker.Progress) string {
	text := fmt.Sprintf("%s: %d", p.Phase, p.Done)
	if p.Total > 0 {
		text += fmt.Sprintf(" of %d", p.Total)
	}
	if p.Braked != "" {
		text += fmt.Sprintf(" (slower than %s: %s)", p.Pace, p.Braked)
	}
	return text
}

// say prints a remark once.
func (b *bar) say(s string) {
	if b.quiet || s == b.said {
		return
	}
	b.said = s
	b.end()
	fmt.Fprintln(b.out, s)
}

func (b *bar) end() {
	if b.bar != nil {
		_ = b.bar.Exit()
		fmt.Fprintln(b.out)
		b.bar = nil
	}
}
