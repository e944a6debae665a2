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

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker"
)

const (
	askEvery  = 100 * time.Millisecond
	patience  = 10 * time.Second // before a task that is still queued is remarked upon
	stillIdle = "still queued: is a worker running? (`stoker worker`, `stoker status`; lanes can be paused)"
)

// follow asks about a task until it ends and returns its result. The error of a task that gave
// up has the cause that the worker gave it, and with it the exit code. show is told of progress,
// say of what a person should know; both may be nil.
func (r *rooms) follow(ctx context.Context, taskType, id string, show func(worker.Progress), say func(string)) (json.RawMessage, error) {
	lane, err := tasks.LaneOf(taskType)
	if err != nil {
		return nil, err
	}
	inspector := asynq.NewInspectorFromRedisClient(r.queue)
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	began := time.Now()
	for {
		info, err := inspector.GetTaskInfo(lane.Queue(r.set.Tasks.App), id)
		switch {
		case errors.Is(err, asynq.ErrTaskNotFound), errors.Is(err, asynq.ErrQueueNotFound):
			return nil, fmt.Errorf("task %q is gone: it ended some time ago, or was deleted", id)
		case err != nil:
			return nil, fmt.Errorf("follow task %q: %w", id, err)
		}
		switch info.State {
		case asynq.TaskStateCompleted:
			return info.Result, nil
		case asynq.TaskStateArchived:
			return nil, tasks.Failed(info.LastErr, info.Result)
		case asynq.TaskStateActive:
			if p, ok := worker.ParseProgress(info.Result); ok && show != nil {
				show(p)
			}
		case asynq.TaskStatePending:
			if say != nil && time.Since(began) > patience {
				say(stillIdle)
			}
		case asynq.TaskStateRetry:
			switch {
			case say == nil:
			case strings.Contains(info.LastErr, tasks.ErrNewer.Error()):
				say("left for a newer worker: " + info.LastErr)
			default:
				say("failed, will be tried again: " + info.LastErr)
			}
		}
		select {
		case <-ctx.Done():
			// The cause is left out: for the work, nothing was cancelled.
			return nil, fmt.Errorf("stopped waiting; the work goes on as task %s (`stoker status` shows its lane)", id)
		case <-tick.C:
		}
	}
}

// finish reports a task that was enqueued: its result when the caller waits, else its ID.
func finish[T any](ctx context.Context, c *cli, r *rooms, taskType, id string, wait bool, text func(io.Writer, T)) error {
	if !wait {
		return c.show(map[string]string{"task": id}, func(w io.Writer) {
			fmt.Fprintf(w, "enqueued as task %s; --wait follows it, `stoker status` shows its lane\n", id)
		})
	}
	bar := c.newBar()
	defer bar.end()
	result, err := resultOf[T](r.follow(ctx, taskType, id, bar.show, bar.say))
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
