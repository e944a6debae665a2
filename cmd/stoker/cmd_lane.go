package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/hibiken/asynq"
	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/cmd/stoker/web"
	"github.com/alphanode/stoker/tasks"
)

func (c *cli) pauseCommand() *cobra.Command {
	return c.switchCommand("pause", pauseOp, "Stop a lane from taking new tasks: the kill switch",
		"Tasks under way finish, but for warms and refreshes: they stop within a second, and go on where they\nwere after `stoker resume`. New tasks wait in Redis. Invalidations are still recorded and, by the\nworkers' sweep, applied: nothing is lost, whatever is paused.")
}

func (c *cli) resumeCommand() *cobra.Command {
	return c.switchCommand("resume", resumeOp, "Let a paused lane go on", "")
}

func (c *cli) switchCommand(verb string, op operation[laneName, switched], short, long string) *cobra.Command {
	return &cobra.Command{
		Use: verb + " LANE", Short: short, Long: strings.TrimSpace(short + "\n\n" + long), Example: "  stoker " + verb + " warm",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			lane, err := tasks.ParseLane(a[0])
			if err != nil {
				return err
			}
			return c.with(cmd.Context(), func(p port) error {
				now, err := ask(cmd.Context(), p, op, laneName{lane})
				if err != nil {
					return err
				}
				return c.show(now, func(w io.Writer) { fmt.Fprintf(w, "lane %s: %sd\n", lane, verb) })
			})
		},
	}
}

// laneName names a lane.
type laneName struct {
	Lane tasks.Lane `json:"lane"`
}

// switched is a lane that was paused or let go on.
type switched struct {
	Lane   tasks.Lane `json:"lane"`
	Paused bool       `json:"paused"`
}

var pauseOp = operation[laneName, switched]{
	id: "pauseLane", says: "Stop a lane from taking new tasks; harmless twice",
	method: "POST", path: "/v1/lanes/{lane}/pause", scope: web.Operate, do: switchLane(true),
}

var resumeOp = operation[laneName, switched]{
	id: "resumeLane", says: "Let a paused lane go on; harmless twice",
	method: "POST", path: "/v1/lanes/{lane}/resume", scope: web.Operate, do: switchLane(false),
}

func switchLane(paused bool) func(context.Context, *rooms, laneName, tasks.By) (switched, error) {
	return func(ctx context.Context, r *rooms, in laneName, _ tasks.By) (switched, error) {
		lane, err := tasks.ParseLane(string(in.Lane))
		if err != nil {
			return switched{}, err
		}
		if err := r.pauseLane(ctx, lane, paused); err != nil {
			return switched{}, fmt.Errorf("switch lane %s: %w", lane, err)
		}
		return switched{lane, paused}, nil
	}
}

// pauseLane stops a lane from taking new tasks, or lets it go on. It is harmless twice.
func (r *rooms) pauseLane(ctx context.Context, lane tasks.Lane, paused bool) error {
	queue, inspector := lane.Queue(r.set.Tasks.App), asynq.NewInspectorFromRedisClient(r.queue)
	// asynq knows only queues that something was put into; another could not be shown as paused.
	if err := r.queue.SAdd(ctx, "asynq:queues", queue).Err(); err != nil {
		return err
	}
	now, err := inspector.GetQueueInfo(queue)
	if err != nil || now.Paused == paused {
		return err
	}
	if paused {
		return inspector.PauseQueue(queue)
	}
	return inspector.UnpauseQueue(queue)
}
