package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
	"github.com/alphanode/stoker/worker/release"
)

// rollbacks are how many are timed each way in one round.
const rollbacks = 20

// BenchmarkRollback times `stoker rollback --wait` to a standby, from the start of the process to its end,
// when the other release is served: a binary of its own, an idle worker, namespaces of 10,000 entries;
// beside the Redises and by the API. The peer is a process of the same binary that only says its version.
func BenchmarkRollback(b *testing.B) {
	r := newRollbackRig(b)
	ways := []struct {
		name string
		env  []string
		args []string
	}{
		{"direct", r.env, list("rollback", "--wait")},
		{"api", r.api, list("rollback", "--wait")},
		{"version", r.env, list("--version")},
	}
	took := map[string][]time.Duration{}
	for b.Loop() {
		for range rollbacks {
			for _, w := range ways {
				began := time.Now()
				r.run(w.env, w.args...)
				took[w.name] = append(took[w.name], time.Since(began))
			}
		}
	}
	for _, w := range ways {
		all := took[w.name]
		slices.Sort(all)
		b.ReportMetric(all[len(all)/2].Seconds()*1000, w.name+"-p50-ms")
		b.ReportMetric(all[len(all)-1].Seconds()*1000, w.name+"-max-ms")
	}
	b.ReportMetric(0, "ns/op")
}

// rollbackRig is an installation of a built binary, with a release that is served and one on standby.
type rollbackRig struct {
	b        *testing.B
	binary   string
	env, api []string // beside the Redises, and by the API
}

func newRollbackRig(b *testing.B) *rollbackRig {
	b.Helper()
	server, dir := redistest.Start(b), b.TempDir()
	r := &rollbackRig{b: b, binary: filepath.Join(dir, "stoker")}
	build := exec.Command("go", "build", "-o", r.binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	for file, text := range map[string]string{"token": "secret", "tokens": fmt.Sprintf("ann operate sha256:%x\n", sha256.Sum256([]byte("secret")))} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	path := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}
	r.env = append(slices.Clip(path), "STOKER_APP=site", "STOKER_REDIS_URL="+server.URL, "STOKER_WEB_ADDR=127.0.0.1:0", "STOKER_WEB_TOKENS_FILE="+filepath.Join(dir, "tokens"))

	ctx, by := context.Background(), tasks.By{Actor: "bench"}
	ledger := release.Open(server.Client, tasks.KeysOf("site"))
	for _, id := range []string{"r1", "r2"} {
		if err := ledger.Create(ctx, release.Record{ID: id, Template: tasks.DefaultTemplate}, by); err != nil {
			b.Fatal(err)
		}
		pipe := server.Client.Pipeline()
		for i := range 10_000 {
			pipe.Set(ctx, fmt.Sprintf("site:%s:post:%d", id, i), "text", 0)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			b.Fatal(err)
		}
		if _, err := ledger.Flip(ctx, id, release.New, by); err != nil {
			b.Fatal(err)
		}
	}
	r.start("worker")
	log := r.start("web")
	redistest.Eventually(b, "the console", func() bool {
		said, _ := os.ReadFile(log)
		m := listensAt.FindStringSubmatch(string(said))
		if m != nil {
			r.api = append(slices.Clip(path), "STOKER_API_URL=http://"+m[1], "STOKER_API_TOKEN_FILE="+filepath.Join(dir, "token"))
		}
		return m != nil
	})
	r.run(r.env, "rollback", "--wait") // the worker is up
	return r
}

// run runs a command that has to succeed.
func (r *rollbackRig) run(env []string, args ...string) {
	r.b.Helper()
	cmd := exec.Command(r.binary, args...)
	cmd.Env = env
	if out, err := cmd.CombinedOutput(); err != nil {
		r.b.Fatalf("stoker %v: %v\n%s", args, err, out)
	}
}

// start starts a process that is ended with the benchmark, and returns the file that it writes to.
func (r *rollbackRig) start(name string) string {
	r.b.Helper()
	log, err := os.Create(filepath.Join(filepath.Dir(r.binary), name+".log"))
	if err != nil {
		r.b.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(r.binary, name)
	cmd.Env, cmd.Stdout, cmd.Stderr = r.env, log, log
	if err := cmd.Start(); err != nil {
		r.b.Fatal(err)
	}
	r.b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	return log.Name()
}
