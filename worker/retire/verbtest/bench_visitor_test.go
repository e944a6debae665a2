package verbtest_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
)

// asVisitor makes this test binary a visitor of the server whose address the variable holds: a
// process of its own, so that neither Go's scheduler nor its garbage collector makes it wait.
const asVisitor = "STOKER_BENCH_VISITOR"

const (
	visitEvery  = time.Millisecond
	visitorNice = -15              // before server and worker, as if each stood on a machine of its own; needs root
	serverNice  = -10              // before the worker
	settleFor   = 10 * time.Second // the allocator of a server that freed much gives it back for so long
	idleFor     = 5 * time.Second  // of a visitor alone
)

// waits is what a visitor saw since it was last asked: microseconds.
type waits struct {
	Visits              int64
	P50, P99, P999, Max int64
}

// visit gets an entry of the live namespace every millisecond, whether or not the server has answered
// the visits before: a server that stalls makes everybody wait who comes meanwhile. For every line
// that it is sent it answers with the waits since the line before.
//
// A wait begins when the request was sent. That this process is woken late on a busy machine is
// not the server's doing: its late visits are sent all at once, and none is left out.
func visit(addr string, asked io.Reader, answers io.Writer) error {
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, visitorNice)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	var seen record
	go func() {
		for lines := bufio.NewScanner(asked); lines.Scan(); {
			line, _ := json.Marshal(seen.take())
			fmt.Fprintf(answers, "%s\n", line)
		}
		os.Exit(0)
	}()
	sent := make(chan time.Time, 1<<20)
	go func() {
		for due := time.Now(); ; due = due.Add(visitEvery) {
			time.Sleep(time.Until(due))
			key := fmt.Sprintf("blog:live:page:/articles/%07d", rand.IntN(entries))
			sent <- time.Now()
			fmt.Fprintf(conn, "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", len(key), key) // an error is the reader's as well
		}
	}()
	for in := bufio.NewReader(conn); ; {
		if err := answer(in); err != nil {
			return err
		}
		if err := seen.add(time.Since(<-sent)); err != nil {
			return err
		}
	}
}

// record is a histogram that is written and taken by two.
type record struct {
	mu   sync.Mutex
	hist *hdrhistogram.Histogram
}

func (r *record) add(wait time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.hist == nil {
		r.hist = hdrhistogram.New(1, 60_000_000, 3)
	}
	return r.hist.RecordValue(max(wait.Microseconds(), 1))
}

func (r *record) take() waits {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.hist
	r.hist = nil
	if h == nil {
		return waits{}
	}
	return waits{h.TotalCount(), h.ValueAtQuantile(50), h.ValueAtQuantile(99), h.ValueAtQuantile(99.9), h.Max()}
}

// answer reads one string.
func answer(in *bufio.Reader) error {
	line, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	if want := fmt.Sprintf("$%d\r\n", valueSize); line != want {
		return fmt.Errorf("visit: answer %q, want %q", line, want)
	}
	_, err = in.Discard(valueSize + 2)
	return err
}

// visitor is a visitor's process.
type visitor struct {
	s     *site
	ask   io.WriteCloser
	lines *bufio.Reader
	cmd   *exec.Cmd
}

func (s *site) visitor() *visitor {
	s.T.Helper()
	s.preferServer()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asVisitor+"="+s.Client.Options().Addr, "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	ask, err := cmd.StdinPipe()
	s.Must(err)
	out, err := cmd.StdoutPipe()
	s.Must(err)
	s.Must(cmd.Start())
	return &visitor{s, ask, bufio.NewReader(out), cmd}
}

var processID = regexp.MustCompile(`(?m)^process_id:(\d+)`)

// preferServer lets the server run whenever it has something to do: a worker that compresses and collects its
// garbage on the same two cores would make it wait for milliseconds, which is not what is measured.
func (s *site) preferServer() {
	s.T.Helper()
	info, err := s.Client.Info(s.T.Context(), "server").Result()
	s.Must(err)
	found := processID.FindStringSubmatch(info)
	if found == nil {
		s.T.Fatalf("INFO server tells no process_id:\n%s", info)
	}
	pid, err := strconv.Atoi(found[1])
	s.Must(err)
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, pid, serverNice); err != nil {
		s.T.Logf("the server is not preferred to the worker: %v", err)
	}
}

// waits returns what the visitor saw since it was last asked.
func (v *visitor) waits() (w waits) {
	v.s.T.Helper()
	_, err := io.WriteString(v.ask, "\n")
	v.s.Must(err)
	line, err := v.lines.ReadBytes('\n')
	v.s.Must(err)
	v.s.Must(json.Unmarshal(line, &w))
	return w
}

// leave ends the process.
func (v *visitor) leave() {
	_ = v.ask.Close()
	_ = v.cmd.Wait()
}

// benchVisitor reports a visitor's p99 alone and during each of the works, in milliseconds, and
// how often the one is the other.
func (s *site) benchVisitor(b *testing.B, pace tasks.Pace) {
	s.rebirth("r1", release.Standby)
	s.load("r1")
	works := []struct {
		name  string
		setup func()
		work  func()
	}{
		{"snapshot", nil, func() { s.snapshot(pace) }},
		{"carry", func() { s.Purge("r9"); s.rebirth("r9", release.New) }, func() { s.carry(pace) }},
		{"restore", s.archive, func() { s.rollback(pace) }},
		{"expire", func() { s.rebirth("r1", release.Archived); s.load("r1") }, func() { s.expire(pace) }},
	}
	idle, busy := map[string][]float64{}, map[string][]float64{}
	for range b.N {
		if s.State("r1") == release.Expired {
			s.rebirth("r1", release.Standby)
			s.load("r1")
		}
		for _, w := range works {
			if w.setup != nil {
				w.setup()
			}
			alone, during := s.watched(w.work)
			b.Logf("%s at %s: alone %+v, during it %+v (µs)", w.name, pace, alone, during)
			idle[w.name] = append(idle[w.name], float64(alone.P99)/1000)
			busy[w.name] = append(busy[w.name], float64(during.P99)/1000)
		}
	}
	s.Purge("r9")
	b.ReportMetric(0, "ns/op")
	for _, w := range works {
		ratios := make([]float64, b.N)
		for i := range ratios {
			ratios[i] = busy[w.name][i] / idle[w.name][i]
		}
		b.ReportMetric(median(busy[w.name]), w.name+"-p99-ms")
		b.ReportMetric(median(ratios), "x-idle-"+w.name)
	}
}

// watched does a work under the eyes of a visitor who was there before.
func (s *site) watched(work func()) (alone, during waits) {
	v := s.visitor()
	defer v.leave()
	time.Sleep(settleFor)
	v.waits()
	time.Sleep(idleFor)
	alone = v.waits()
	work()
	return alone, v.waits()
}
