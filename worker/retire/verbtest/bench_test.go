package verbtest_test

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/governor"
	"github.com/alphanode/stoker/worker/governor/throttle"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/restore"
	"github.com/alphanode/stoker/worker/retire"
	"github.com/alphanode/stoker/worker/retire/verbtest"
	"github.com/alphanode/stoker/worker/warm"
)

func TestMain(m *testing.M) {
	if addr := os.Getenv(asVisitor); addr != "" {
		if err := visit(addr, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// BenchmarkNamespaces holds the four works on a whole namespace, as a task does them, against what
// people use for each today, and against the patience of a visitor. The namespace has 500,000
// entries of 1 kB among 1.5 million keys.
func BenchmarkNamespaces(b *testing.B) {
	s := newSite(b)
	b.Run("expire", s.benchExpire)
	b.Run("carry", s.benchCarry)
	b.Run("snapshot", s.benchSnapshot)
	b.Run("restore", s.benchRestore)
	for _, pace := range []tasks.Pace{tasks.PaceNormal, tasks.PaceFull} {
		b.Run("visitor/"+string(pace), func(b *testing.B) { s.benchVisitor(b, pace) })
	}
}

// contender is one way to do a work. setup is not timed. Of stoker's own, part names and measures
// that part of the work which the peers do as well; the rest is what makes it safe.
type contender struct {
	name  string
	setup func()
	work  func()
	part  string
	took  func() time.Duration
}

// contest lets every contender do its work in every round, each round begun by another one, and
// reports the medians: keys a second of each, and how often each of the others' speed stoker's
// is, which comes first, and the speed of its part. Of what each costs the server it reports the processor's
// time for a key, which a busy machine changes less.
func (s *site) contest(b *testing.B, keys int, all ...contender) {
	speeds, costs := make([][]float64, len(all)), make([][]float64, len(all))
	var part []float64
	for round := range b.N {
		for i := range all {
			i = (i + round) % len(all)
			if all[i].setup != nil {
				all[i].setup()
			}
			start, used := time.Now(), s.serverTime()
			all[i].work()
			speeds[i] = append(speeds[i], float64(keys)/time.Since(start).Seconds())
			costs[i] = append(costs[i], 1e6*(s.serverTime()-used)/float64(keys))
			if all[i].took != nil {
				part = append(part, float64(keys)/all[i].took().Seconds())
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	for i, c := range all {
		b.ReportMetric(median(speeds[i]), c.name+"-keys/s")
		b.ReportMetric(median(costs[i]), c.name+"-server-µs/key")
		if i == 0 {
			continue
		}
		b.ReportMetric(median(ratios(speeds[0], speeds[i])), "x-"+c.name)
		if part != nil {
			b.ReportMetric(median(ratios(part, speeds[i])), all[0].part+"-x-"+c.name)
		}
	}
}

var serverTime = regexp.MustCompile(`(?m)^used_cpu_(?:sys|user):([0-9.]+)`)

// serverTime returns the processor's time that the server has used, in seconds.
func (s *site) serverTime() (sum float64) {
	s.T.Helper()
	info, err := s.Client.Info(s.T.Context(), "cpu").Result()
	s.Must(err)
	for _, m := range serverTime.FindAllStringSubmatch(info, -1) {
		seconds, err := strconv.ParseFloat(m[1], 64)
		s.Must(err)
		sum += seconds
	}
	return sum
}

func ratios(of, to []float64) []float64 {
	out := make([]float64, len(of))
	for i := range of {
		out[i] = of[i] / to[i]
	}
	return out
}

func median(of []float64) float64 {
	of = slices.Sorted(slices.Values(of))
	return (of[(len(of)-1)/2] + of[len(of)/2]) / 2
}

// expire: an archived release's namespace is deleted. stoker's time holds the ledger's reads between
// slices and the pass that proves the namespace empty; the peers prove nothing.
func (s *site) benchExpire(b *testing.B) {
	refill := func() { s.rebirth("r1", release.Archived); s.load("r1") }
	s.contest(b, entries,
		contender{"stoker", refill, func() { s.expire(tasks.PaceFull) }, "deleting", s.until("purge r1")},
		contender{name: "cli", setup: refill, work: func() { s.cliUnlink("r1") }},
		contender{name: "go", setup: refill, work: func() { s.goUnlink("r1") }},
	)
	s.wantEntries("r1", 0)
}

// carry: a warm run copies everything to a release that has nothing. stoker's time holds a look at all values,
// a pass over the server for the tag indexes, the checks against the log and the certificate.
func (s *site) benchCarry(b *testing.B) {
	s.rebirth("r1", release.Standby)
	s.load("r1")
	fresh := func() { s.Purge("r9"); s.rebirth("r9", release.New) }
	s.contest(b, entries,
		contender{"stoker", fresh, func() { s.carry(tasks.PaceFull) }, "copying", s.during("warm pages")},
		contender{name: "dump-restore", setup: fresh, work: func() { s.goDumpRestore("r1", "r9") }},
	)
	s.wantEntries("r9", entries)
	s.Purge("r9")
}

// snapshot: the namespace is written to an archive, synced to disk, read back and held against its checksums.
func (s *site) benchSnapshot(b *testing.B) {
	s.rebirth("r1", release.Standby)
	s.load("r1")
	s.contest(b, entries,
		contender{"stoker", nil, func() { s.snapshot(tasks.PaceFull) }, "reading", s.until("snapshot r1")},
		contender{name: "read", work: func() { s.goRead("r1") }},
	)
}

// restore: a rollback to an archived release, to the flip: the archive held against its checksums, its entries
// written, the log replayed, a sample proved. The peer writes the same data from a file.
func (s *site) benchRestore(b *testing.B) {
	s.rebirth("r1", release.Standby)
	s.load("r1")
	s.snapshot(tasks.PaceFull)
	pipe := s.writePipe("r1")
	s.contest(b, entries,
		contender{"stoker", s.archive, func() { s.rollback(tasks.PaceFull) }, "writing", s.during("restore r1")},
		contender{name: "cli-pipe", setup: func() { s.Purge("r1") }, work: func() { s.cliPipe(pipe) }},
	)
	s.wantEntries("r1", entries)
}

const headroom = 0.1 // the default

// What the benchmark asks of the rooms, each as a task of a worker would.

// cache returns access to the namespaces at a pace, until the benchmark ends.
func (s *site) cache(pace tasks.Pace) *namespace.Cache {
	if c, ok := s.paced[pace]; ok {
		return c
	}
	t := throttle.New(throttle.Deps{Config: governor.Config{Pace: pace, MemoryHeadroom: headroom}, Cache: s.Client})
	s.T.Cleanup(t.Close)
	s.paced[pace] = namespace.New(s.Client, s.Template, s.Keys, func(ctx context.Context, w namespace.Work) namespace.Pacer {
		return t.Pacer(ctx, throttle.Work(w))
	})
	return s.paced[pace]
}

// timed is a task's job that remembers when it began, and each phase's first and last progress.
type timed struct {
	*verbtest.Job
	began       time.Time
	first, last map[string]time.Time
}

// Progress implements tasks.Job.
func (j *timed) Progress(phase string, _, _ int64) {
	j.last[phase] = time.Now()
	if _, ok := j.first[phase]; !ok {
		j.first[phase] = j.last[phase]
	}
}

func (s *site) job(work string) *timed {
	s.jobs++
	s.latest = &timed{verbtest.NewJob(fmt.Sprint(work, s.jobs)), time.Now(), map[string]time.Time{}, map[string]time.Time{}}
	return s.latest
}

// until returns how long the latest job took to the last progress of a phase.
func (s *site) until(phase string) func() time.Duration {
	return func() time.Duration { return s.latest.last[phase].Sub(s.latest.began) }
}

// during returns how long a phase of the latest job went on.
func (s *site) during(phase string) func() time.Duration {
	return func() time.Duration { return s.latest.last[phase].Sub(s.latest.first[phase]) }
}

func (s *site) retirer(pace tasks.Pace) *retire.Retirer {
	return retire.New(retire.Rooms{
		App: verbtest.App, Template: s.Template, Ledger: s.Ledger, Log: s.Log, Applier: s.Applier, Cache: s.cache(pace), Store: s.Store,
		Rule: release.Rule{Standby: 1, Archived: 1}, Server: retire.ServerVersion(s.Client), Logger: s.Logger,
	})
}

// expire takes the archived release r1 to expired.
func (s *site) expire(pace tasks.Pace) {
	_, err := s.retirer(pace).Expire(s.T.Context(), s.job("expire"), tasks.Expire{Release: "r1", By: verbtest.By})
	s.Must(err)
}

func (s *site) snapshot(pace tasks.Pace) {
	d, err := s.retirer(pace).Snapshot(s.T.Context(), s.job("snapshot"), "r1")
	s.Must(err)
	if d.Entries != entries {
		s.T.Fatalf("the archive has %d entries, want %d", d.Entries, entries)
	}
}

func (s *site) rollback(pace tasks.Pace) {
	r := restore.New(restore.Rooms{
		Template: s.Template, Ledger: s.Ledger, Log: s.Log, Applier: s.Applier, Cache: s.cache(pace), Store: s.Store,
		Server: restore.RedisServer{Client: s.Client, Keys: s.Keys}, Scratches: restore.Scratches{Queue: s.Client, Keys: s.Keys},
		Headroom: headroom, Logger: s.Logger,
	})
	report, err := r.Rollback(s.T.Context(), s.job("rollback"), tasks.Rollback{To: "r1", By: verbtest.By})
	s.Must(err)
	if report.Entries != entries {
		s.T.Fatalf("%d entries came back, want %d", report.Entries, entries)
	}
}

const carryPlan = `version: 1
sources:
  - name: pages
    carry: {from: r1, families: ["page:"]}
certificate: {coverage: 99%, sample: 200}
`

// carry warms r9 from r1.
func (s *site) carry(pace tasks.Pace) {
	ctx, run, batches := s.T.Context(), "run-"+s.job("").ID(), &queued{}
	runner, err := warm.New(warm.Config{WarmBatch: 100}, warm.Deps{
		Queue: s.Client, Keys: s.Keys, Ledger: s.Ledger, Log: s.Log, Check: s.Log.Journal, Replay: s.Applier,
		Cache: s.cache(pace), Tasks: batches, Version: "test", Room: throttle.Room{Cache: s.Client, Headroom: headroom},
	})
	s.Must(err)
	s.Must(s.Client.HSet(ctx, s.Keys.Run(run), "release", "r9", "plan", carryPlan, "status", "queued").Err())
	_, err = runner.Run(ctx, s.job("warm"), tasks.WarmRun{Run: run, Release: "r9", By: verbtest.By})
	s.Must(err)
	var stored int64
	for _, p := range batches.all {
		done, err := runner.Batch(ctx, s.job("batch"), p)
		s.Must(err)
		stored += done.Stored
	}
	if stored != entries {
		s.T.Fatalf("%d entries were carried, want %d", stored, entries)
	}
}

// queued keeps the batches of a run.
type queued struct{ all []tasks.WarmBatch }

func (q *queued) Enqueue(_ context.Context, p tasks.Payload, _ ...asynq.Option) (string, error) {
	q.all = append(q.all, p.(tasks.WarmBatch))
	return "", nil
}
