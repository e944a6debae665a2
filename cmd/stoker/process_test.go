package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

// asStoker makes this test binary run as stoker: the processes below are real ones.
const asStoker = "STOKER_TEST_AS_STOKER"

func TestMain(m *testing.M) {
	if os.Getenv(asPaper) != "" {
		os.Exit(runPaper())
	}
	if os.Getenv(asStoker) != "" {
		main()
	}
	os.Exit(m.Run())
}

// install is an installation: a Redis, settings, and processes that are killed with the test.
type install struct {
	*testing.T
	dir   string
	app   string
	redis *redistest.Server
	queue redis.UniversalClient // of redis, unless that is not the queue Redis
	env   []string
	bin   string // the stoker that is run; "" for this test binary
}

func newInstall(t *testing.T, env ...string) *install {
	t.Helper()
	server := redistest.Start(t)
	dir, app := t.TempDir(), "site"
	for _, v := range env {
		if name, ok := strings.CutPrefix(v, "STOKER_APP="); ok {
			app = name
		}
	}
	return &install{T: t, dir: dir, app: app, redis: server, queue: server.Client, env: append([]string{
		asStoker + "=1", "PATH=" + os.Getenv("PATH"), "HOME=" + dir,
		"GORACE=atexit_sleep_ms=0", // the race detector would hold each process for a second
		"STOKER_APP=" + app, "STOKER_REDIS_URL=" + server.URL, "STOKER_SNAPSHOT_URL=file://" + filepath.Join(dir, "archives"),
		"STOKER_FILL_LIMIT=1s", "STOKER_RETAIN_MIN_AGE=0s", "STOKER_CRAWL_NETWORKS=127.0.0.0/8", "STOKER_WEB_ADDR=127.0.0.1:0", "STOKER_GRACE_PERIOD=5s",
	}, env...)}
}

func (in *install) command(args ...string) *exec.Cmd {
	cmd := exec.Command(cmp.Or(in.bin, os.Args[0]), args...)
	cmd.Env, cmd.Dir = in.env, in.dir
	return cmd
}

// run runs a command to its end and returns what it printed and its exit code.
func (in *install) run(args ...string) (stdout, stderr string, code int) {
	in.Helper()
	cmd := in.command(args...)
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	if e := cmd.Run(); e != nil && cmd.ProcessState == nil {
		in.Fatalf("stoker %s: %v", strings.Join(args, " "), e)
	}
	return out.String(), err.String(), cmd.ProcessState.ExitCode()
}

// must runs a command that has to succeed.
func (in *install) must(args ...string) string {
	in.Helper()
	out, err, code := in.run(args...)
	if code != exitDone {
		in.Fatalf("stoker %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, err)
	}
	return out
}

// process is a stoker that keeps running.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan struct{}
	log  string
}

func (in *install) start(args ...string) *process {
	in.Helper()
	p := &process{t: in.T, cmd: in.command(args...), done: make(chan struct{})}
	log, err := os.CreateTemp(in.dir, args[0]+"-*.log")
	if err != nil {
		in.Fatal(err)
	}
	p.log = log.Name()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		in.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); log.Close(); close(p.done) }()
	in.Cleanup(func() {
		p.end(syscall.SIGTERM)
		if in.Failed() {
			text, _ := os.ReadFile(p.log)
			in.Logf("%s said:\n%s", args[0], text)
		}
	})
	return p
}

// end sends a signal and waits for the process to be gone.
func (p *process) end(sig syscall.Signal) {
	p.t.Helper()
	_ = p.cmd.Process.Signal(sig)
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
		p.t.Error("a process did not stop within 30 s")
	}
}

// endLeases does what a minute's wait would: it ends the leases of tasks whose worker is dead,
// so that the next worker takes them up at its start.
func (in *install) endLeases() {
	in.Helper()
	for _, l := range tasks.Lanes() {
		key := "asynq:{" + l.Queue(in.app) + "}:lease"
		for _, id := range in.queue.ZRange(context.Background(), key, 0, -1).Val() {
			if err := in.queue.ZAddXX(context.Background(), key, redis.Z{Score: 1, Member: id}).Err(); err != nil {
				in.Fatal(err)
			}
		}
	}
}

// awaitTask waits until a task is done and returns its result.
func (in *install) awaitTask(lane tasks.Lane, id string) []byte {
	in.Helper()
	inspector := asynq.NewInspectorFromRedisClient(in.queue)
	var result []byte
	redistest.Eventually(in.T, "task "+id, func() bool {
		info, err := inspector.GetTaskInfo(lane.Queue(in.app), id)
		if err != nil || info.State == asynq.TaskStateArchived {
			in.Fatalf("task %s: %v, %+v", id, err, info)
		}
		result = info.Result
		return info.State == asynq.TaskStateCompleted
	})
	return result
}

// field returns one value of a command's JSON.
func field[T any](t *testing.T, out, name string) T {
	t.Helper()
	var fields map[string]json.RawMessage
	if err := json.Unmarshal([]byte(out), &fields); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	var v T
	if err := json.Unmarshal(fields[name], &v); err != nil {
		t.Fatalf("field %s: %v in %s", name, err, out)
	}
	return v
}

// text is what the process has said so far.
func (p *process) text() string {
	raw, _ := os.ReadFile(p.log)
	return string(raw)
}
