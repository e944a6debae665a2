package main

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/redistest"
)

// Who stops waiting is told that the work goes on, and it does.
func TestInterruptedWait(t *testing.T) {
	in := newInstall(t)
	in.town()
	in.write("plan.yaml", onePost)
	for _, c := range []struct {
		lane tasks.Lane
		args []string
	}{
		{tasks.LaneUpkeep, list("snapshot", "kept", "--wait")},
		{tasks.LaneRelease, list("rollback", "--wait")},
		{tasks.LaneWarm, list("warm", "new", "--plan", "plan.yaml", "--wait")},
		{tasks.LaneInvalidate, list("invalidate", "--key", "post:1", "--wait")},
	} {
		t.Run(c.args[0], func(t *testing.T) {
			waiting := func() bool {
				return in.redis.Client.LLen(context.Background(), "asynq:{"+c.lane.Queue("site")+"}:pending").Val() == 1
			}
			p := in.start(c.args...)
			redistest.Eventually(t, "its task", waiting)
			p.end(syscall.SIGINT)
			raw, err := os.ReadFile(p.log)
			if err != nil {
				t.Fatal(err)
			}
			if code, msg := p.cmd.ProcessState.ExitCode(), string(raw); code != exitFailed || !strings.Contains(msg, "the work goes on") {
				t.Errorf("exit code %d, it said:\n%s", code, msg)
			}
			if !waiting() {
				t.Error("its task is gone")
			}
		})
	}
	in.start("worker")
	redistest.Eventually(t, "the work to be done", func() bool {
		status := in.must("status", "--json")
		return field[string](t, status, "active") == "r10" && field[invalidation.Status](t, status, "log").Pending == 0 &&
			strings.Contains(in.must("snapshot", "list"), "kept")
	})
}

// A worker, a scheduler and a console end in good order on SIGTERM and SIGINT.
func TestProcessesEnd(t *testing.T) {
	in := newInstall(t)
	for name, started := range map[string]string{"worker": "worker started", "scheduler": "scheduler", "web": "console listens"} {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
			t.Run(name+" "+sig.String(), func(t *testing.T) {
				p := in.start(name)
				redistest.Eventually(t, name+" to start", func() bool {
					log, err := os.ReadFile(p.log)
					return err == nil && strings.Contains(string(log), started)
				})
				p.end(sig)
				if code := p.cmd.ProcessState.ExitCode(); code != exitDone {
					t.Errorf("exit code %d", code)
				}
			})
		}
	}
}
