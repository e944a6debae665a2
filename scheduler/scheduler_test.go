package scheduler

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"

	"github.com/alphanode/stoker/tasks"
)

// TestOneTaskATick: however many schedulers meet a tick, one task comes of it.
func TestOneTaskATick(t *testing.T) {
	r := newRig(t)
	now := at("2026-11-22T12:00:30Z")
	var copies []*Scheduler
	for range 4 {
		copies = append(copies, r.scheduler("", &now))
	}
	health := copies[0].current.Entries[0]
	var all sync.WaitGroup
	for _, s := range copies {
		all.Go(func() { s.ticked(s.current, health) })
	}
	all.Wait()
	if diff := cmp.Diff([]string{"health@20261122T1200Z"}, r.pending(tasks.LaneHealth)); diff != "" {
		t.Errorf("tasks (-want +got):\n%s", diff)
	}
	// One that comes late does nothing, even when the task and its ID are gone.
	if _, err := r.inspector.DeleteAllPendingTasks(tasks.LaneHealth.Queue(app)); err != nil {
		t.Fatal(err)
	}
	copies[0].ticked(copies[0].current, health)
	if ids := r.pending(tasks.LaneHealth); len(ids) != 0 {
		t.Errorf("a late scheduler enqueued %v again", ids)
	}
	// A clock that rings a little early means the tick to come.
	now = at("2026-11-22T12:00:59.5Z")
	copies[1].ticked(copies[1].current, health)
	if diff := cmp.Diff([]string{"health@20261122T1201Z"}, r.pending(tasks.LaneHealth)); diff != "" {
		t.Errorf("tasks (-want +got):\n%s", diff)
	}
	last, ok, err := copies[2].ticks.last(context.Background(), "health")
	if err != nil || !ok || !last.Equal(at("2026-11-22T12:01:00Z")) {
		t.Errorf("last tick %v, %v, %v", last, ok, err)
	}
}

// TestCatchUp: a new entry waits for its next tick; what was missed while all were down is made
// up for once; what failed is tried again.
func TestCatchUp(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	now := at("2026-11-22T12:00:30Z")
	s := r.scheduler("", &now)
	upkeep := func(want ...string) {
		t.Helper()
		if diff := cmp.Diff(append([]string{}, want...), r.pending(tasks.LaneUpkeep)); diff != "" {
			t.Errorf("at %v: tasks (-want +got):\n%s", now, diff)
		}
	}
	s.catchUp(ctx)
	upkeep()
	now = at("2026-11-24T04:30:00Z") // 40 expiries and 2 prunings later
	for range 2 {
		s.catchUp(ctx)
		r.scheduler("", &now).catchUp(ctx)
		upkeep("expire@20261124T0417Z", "prune@20261124T0341Z")
	}
	broken := r.scheduler("", &now)
	broken.deps.Client = failing{r.client}
	now = at("2026-11-24T05:30:00Z")
	broken.catchUp(ctx)
	s.catchUp(ctx)
	upkeep("expire@20261124T0417Z", "prune@20261124T0341Z", "expire@20261124T0517Z")
}

// failing is a Client that cannot enqueue.
type failing struct{ Client }

func (failing) Enqueue(context.Context, tasks.Payload, ...asynq.Option) (string, error) {
	return "", errors.New("queue Redis is away")
}

// TestActiveRelease: what follows the active release takes the one of the moment, and waits for
// the first.
func TestActiveRelease(t *testing.T) {
	r := newRig(t)
	path := r.file(`
entries:
  - {name: keep, cron: "* * * * *", task: namespace:snapshot, args: {release: active}}
  - {name: warm, cron: "* * * * *", task: warm:run, args: {release: active, sources: [pages]}}
`)
	now := at("2026-11-22T12:00:30Z")
	s := r.scheduler(path, &now)
	tick := func() {
		for _, e := range s.current.Entries {
			s.ticked(s.current, e)
		}
	}
	tick()
	if ids := r.pending(tasks.LaneUpkeep); len(ids) != 0 || len(r.warms) != 0 {
		t.Errorf("without an active release: %v, %v", ids, r.warms)
	}
	r.activate("r7")
	tick() // the same tick is dealt with
	if ids := r.pending(tasks.LaneUpkeep); len(ids) != 0 {
		t.Errorf("a skipped tick was enqueued later: %v", ids)
	}
	now = now.Add(time.Minute)
	tick()
	info, err := r.inspector.GetTaskInfo(tasks.LaneUpkeep.Queue(app), "keep@20261122T1201Z")
	if err != nil || string(info.Payload) != `{"v":1,"release":"r7","actor":"scheduler"}` {
		t.Errorf("snapshot %+v, %v", info, err)
	}
	want := map[string]tasks.WarmRequest{"warm@20261122T1201Z": {Release: "r7", Sources: []string{"pages"}, By: tasks.By{Actor: Actor}}}
	if diff := cmp.Diff(want, r.warms); diff != "" {
		t.Errorf("warm runs (-want +got):\n%s", diff)
	}
	deps := r.deps()
	deps.Warm = nil
	if _, err := New(Config{Schedule: path}, deps); !errors.Is(err, tasks.ErrInvalid) || !strings.Contains(err.Error(), "warm plan") {
		t.Errorf("a warming entry without a plan: %v", err)
	}
}

// TestTaskIDStays pins what the protocol needs of the client: the ID of a tick's task stays taken
// for ten minutes after its success, whatever its type.
func TestTaskIDStays(t *testing.T) {
	r := newRig(t)
	for taskType := range payloads {
		args := `{}`
		if taskType == tasks.TypeSnapshot || taskType == tasks.TypeBaseline || taskType == tasks.TypeWarmRun {
			args = `{release: r1}`
		}
		s, err := Parse(fmt.Appendf(nil, "entries: [{name: a, cron: '* * * * *', task: %q, args: %s}]", taskType, args))
		if err != nil {
			t.Fatal(err)
		}
		p, err := s.Entries[0].payload("r1", "run")
		if err != nil {
			t.Fatal(err)
		}
		id, err := r.client.Enqueue(context.Background(), p)
		if err != nil {
			t.Fatal(err)
		}
		lane, err := tasks.LaneOf(taskType)
		if err != nil {
			t.Fatal(err)
		}
		info, err := r.inspector.GetTaskInfo(lane.Queue(app), id)
		if err != nil || info.Retention < 10*time.Minute {
			t.Errorf("%s keeps its ID for %v: %v", taskType, info.Retention, err)
		}
	}
}

const oneEntry = "entries: [{name: %s, cron: '0 3 * * *', task: health:check}]\n"

// TestFile: a broken file is an error at the start; while running the last good one stays.
func TestFile(t *testing.T) {
	r := newRig(t)
	path := r.file("entries:\n  - {name: a, cron: '@every 5m', task: health:check}\n")
	_, err := New(Config{Schedule: path}, r.deps())
	if !errors.Is(err, tasks.ErrInvalid) || !contains(err.Error(), path, "line 2", "@every 5m") {
		t.Errorf("broken at the start: %v", err)
	}
	if _, err := New(Config{Schedule: path + ".none"}, r.deps()); !errors.Is(err, tasks.ErrInvalid) || !contains(err.Error(), "STOKER_SCHEDULE") {
		t.Errorf("missing at the start: %v", err)
	}

	r.rewrite(path, fmt.Sprintf(oneEntry, "first"))
	s := r.scheduler(path, nil)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	force := func() string { return s.Schedule().Entries[0].Name }
	if s.reload() || force() != "first" {
		t.Errorf("an unchanged file was taken over")
	}
	for _, broken := range []string{"", "entries:\n  - {name: a, cron: nonsense, task: health:check}\n"} {
		r.rewrite(path, broken)
		if s.reload() || force() != "first" {
			t.Errorf("the broken file %q was taken over", broken)
		}
	}
	if log := r.log.String(); !contains(log, "schedule refused", "line 2", "nonsense") {
		t.Errorf("the log does not say why:\n%s", log)
	}
	r.rewrite(path, fmt.Sprintf(oneEntry, "second"))
	if !s.reload() || force() != "second" {
		t.Errorf("a good file was not taken over: %s is in force", force())
	}
	if err := s.Start(); err == nil {
		t.Error("started twice")
	}
	s.Stop()
	s.Stop()
}

// TestRuns: the list shows when each entry ran and will run, in its own time zone.
func TestRuns(t *testing.T) {
	r := newRig(t)
	path := r.file("timezone: Europe/Berlin\nentries: [{name: a, cron: '30 4 * * *', task: health:check}, {name: b, cron: '0 5 * * *', task: health:check}]\n")
	now := at("2026-11-22T03:31:00Z")
	s := r.scheduler(path, &now)
	s.ticked(s.current, s.current.Entries[0])
	runs, err := s.Schedule().Runs(context.Background(), r.redis, tasks.KeysOf(app), now)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range runs {
		got = append(got, fmt.Sprintf("%s %s %s %s", r.Entry, r.Task, r.Last.Format(time.RFC3339), r.Next.Format(time.RFC3339)))
	}
	want := []string{
		"a health:check 2026-11-22T04:30:00+01:00 2026-11-23T04:30:00+01:00",
		"b health:check 0001-01-01T00:00:00Z 2026-11-22T05:00:00+01:00",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("runs (-want +got):\n%s", diff)
	}
}

// TestAsynqRings pins what is used of asynq's scheduler: at each tick it calls us once, with the
// entry's name, and enqueues nothing itself.
func TestAsynqRings(t *testing.T) {
	r := newRig(t)
	now := at("2026-11-22T12:00:30Z")
	s := r.scheduler("", &now)
	clock, err := s.newClock(s.current, func(Entry) string { return "@every 1s" })
	if err != nil {
		t.Fatal(err)
	}
	if err := clock.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "every entry's tick", func() bool {
		last, err := s.ticks.all(context.Background())
		return err == nil && len(last) == 5
	})
	clock.Shutdown()
	var got []string
	for _, lane := range tasks.Lanes() {
		got = append(got, r.pending(lane)...)
	}
	want := []string{"expire@20261122T1117Z", "prune@20261122T0341Z", "drill@20261122T0423Z", "health@20261122T1200Z", "freshness@20261122T1154Z"}
	if diff := cmp.Diff(len(want), len(got)); diff != "" || !contains(strings.Join(got, " "), want...) {
		t.Errorf("tasks %v, want %v", got, want)
	}
}
