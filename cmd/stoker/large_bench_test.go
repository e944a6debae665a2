package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

// large is the variable that lets BenchmarkLarge run: it takes minutes, and 4 GB of memory.
const large = "STOKER_BENCH_LARGE"

// BenchmarkLarge does the four works by commands and a worker of their own, a fresh process for
// each work, on namespaces of 100,000 and of 5 million entries: 100 bytes each, a tag for every
// fifty. It reports the time a key, by the reports of the works themselves, that of the large one
// over the small one's, and the most memory that any of the workers had (VmHWM, in MiB).
func BenchmarkLarge(b *testing.B) {
	if os.Getenv(large) == "" {
		b.Skipf("it takes minutes: set %s=1", large)
	}
	for _, work := range []string{"carry", "snapshot", "expire", "restore"} {
		b.ReportMetric(0, work+"-x") // the order of the columns
	}
	small, big := newLarge(b, 100_000).life(), newLarge(b, 5_000_000).life()
	peak := 0.0
	for work, w := range big {
		b.ReportMetric(w.perKey, work+"-µs/key")
		b.ReportMetric(w.perKey/small[work].perKey, work+"-x")
		b.ReportMetric(w.peak, work+"-MiB")
		peak = max(peak, w.peak)
	}
	b.ReportMetric(peak, "peak-MiB")
	b.ReportMetric(0, "ns/op")
}

// largeSite is an installation with one large release.
type largeSite struct {
	b       *testing.B
	dir     string
	redis   *redistest.Server
	env     []string
	entries int
}

// measured is what one work took.
type measured struct {
	perKey float64 // µs
	peak   float64 // MiB
}

func newLarge(b *testing.B, entries int) *largeSite {
	b.Helper()
	server, dir := redistest.Start(b), b.TempDir()
	plan := filepath.Join(dir, "stoker.yaml")
	text := "version: 1\nsources:\n  - name: all\n    carry: {from: active, families: [\"page:\"]}\n"
	if err := os.WriteFile(plan, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	s := &largeSite{b, dir, server, append(os.Environ(), asStoker+"=1", "STOKER_APP=site", "STOKER_REDIS_URL="+server.URL,
		"STOKER_SNAPSHOT_URL=file://"+filepath.Join(dir, "archives"), "STOKER_PLAN="+plan, "STOKER_PACE=full", "STOKER_RETAIN_MIN_AGE=0s"), entries}
	s.load("site:r1:")
	s.stoker(nil, "release", "create", "r1", "--adopt", "--active")
	s.stoker(nil, "release", "create", "r2")
	return s
}

const largeScript = `
math.randomseed(ARGV[2])
local until_ = ARGV[4] + 0
for i = ARGV[2], ARGV[3] - 1 do
  local key, words = string.format('page:/articles/%08d', i), {}
  for w = 1, 10 do words[w] = string.format('%09d ', math.random(0, 999999999)) end
  redis.call('ZADD', ARGV[1] .. '#tag:author:' .. math.floor(i / 50), until_, key)
  redis.call('SET', ARGV[1] .. key, table.concat(words), 'PXAT', until_)
end
return 1`

// load writes the entries and their tag indexes.
func (s *largeSite) load(prefix string) {
	s.b.Helper()
	const step = 5_000
	until := time.Now().Add(24 * time.Hour).UnixMilli()
	for from := 0; from < s.entries; from += step {
		if err := s.redis.Client.Eval(context.Background(), largeScript, nil, prefix, from, from+step, until).Err(); err != nil {
			s.b.Fatal(err)
		}
	}
}

// life does each of the works, in an order in which each has something to do.
func (s *largeSite) life() map[string]measured {
	s.b.Helper()
	all := map[string]measured{}
	var cert struct {
		Run string `json:"run"`
	}
	all["carry"] = s.work(func() float64 {
		s.stoker(&cert, "warm", "r2", "--wait")
		run := s.redis.Client.HMGet(context.Background(), tasks.KeysOf("site").Run(cert.Run), "started_at", "finished_at").Val()
		return (number(s.b, run[1]) - number(s.b, run[0])) / 1e6
	})
	all["snapshot"] = s.work(func() float64 {
		s.stoker(nil, "release", "activate", "r2", "--wait")
		var d struct {
			Entries  int       `json:"entries"`
			Created  time.Time `json:"created"`
			Verified time.Time `json:"verified_at"`
		}
		s.stoker(&d, "snapshot", "r1", "--wait")
		if d.Entries < s.entries {
			s.b.Fatalf("the archive has %d entries of %d", d.Entries, s.entries)
		}
		return d.Verified.Sub(d.Created).Seconds()
	})
	all["expire"] = s.work(func() float64 {
		var r struct {
			Deleted int     `json:"deleted"`
			Seconds float64 `json:"seconds"`
		}
		s.stoker(&r, "expire", "--release", "r1", "--wait")
		if r.Deleted < s.entries {
			s.b.Fatalf("%d keys of %d were deleted", r.Deleted, s.entries)
		}
		return r.Seconds
	})
	all["restore"] = s.work(func() float64 {
		var r struct {
			Entries int     `json:"entries"`
			Seconds float64 `json:"seconds"`
		}
		s.stoker(&r, "rollback", "--to", "r1", "--wait")
		if r.Entries != s.entries {
			s.b.Fatalf("%d entries of %d came back", r.Entries, s.entries)
		}
		return r.Seconds
	})
	return all
}

var highWater = regexp.MustCompile(`(?m)^VmHWM:\s+(\d+) kB`)

// work does a work with a worker of its own. It returns the seconds that the work took.
func (s *largeSite) work(do func() float64) measured {
	s.b.Helper()
	worker := exec.Command(os.Args[0], "worker")
	var said bytes.Buffer
	worker.Env, worker.Dir, worker.Stderr = s.env, s.dir, &said
	if err := worker.Start(); err != nil {
		s.b.Fatal(err)
	}
	stop := func() { _ = worker.Process.Signal(syscall.SIGTERM); _ = worker.Wait() }
	s.b.Cleanup(stop)
	took := do()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", worker.Process.Pid))
	if err != nil {
		s.b.Fatal(err)
	}
	stop()
	return measured{took * 1e6 / float64(s.entries), number(s.b, string(highWater.FindSubmatch(status)[1])) / 1024}
}

// stoker runs a command that has to succeed, and reads what it prints.
func (s *largeSite) stoker(result any, args ...string) {
	s.b.Helper()
	cmd := exec.Command(os.Args[0], append(args, "--json")...)
	var out, said bytes.Buffer
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = s.env, s.dir, &out, &said
	err := cmd.Run()
	if err == nil && result != nil {
		err = json.Unmarshal(out.Bytes(), result)
	}
	if err != nil {
		s.b.Fatalf("stoker %v: %v\n%s%s", args, err, out.String(), said.String())
	}
}

func number(b *testing.B, v any) float64 {
	b.Helper()
	n, err := strconv.ParseFloat(fmt.Sprint(v), 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}
