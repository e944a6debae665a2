package health

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
	"github.com/alphanode/stoker/worker/release"
)

// pages is a site whose behaviour can be changed while it is watched. Every tenth answer is a miss.
type pages struct {
	asked, failEvery, calls atomic.Int64
	down                    atomic.Bool
}

func (s *pages) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	n := s.asked.Add(1)
	if s.down.Load() || s.failEvery.Load() > 0 && n%s.failEvery.Load() == 0 {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	cache, calls := "HIT", int64(0)
	if n%10 == 0 {
		cache, calls = "MISS", s.calls.Load()
	}
	w.Header().Set("X-Cache", cache)
	w.Header().Set("Server-Timing", fmt.Sprintf(`db;desc="%d calls"`, calls))
}

// watched is a monitor over a site whose release r2 has just followed r1, with a baseline of r1.
type watched struct {
	*testing.T
	*Monitor
	site    *pages
	queued  []tasks.Payload
	ids     []string
	due     []time.Time // of the looks
	told    []tasks.Notify
	toldIDs []string
	fail    error // of the next enqueue
}

func newWatched(t *testing.T, change func(*Config)) *watched {
	t.Helper()
	redis := redistest.Mini(t)
	w := &watched{T: t, site: new(pages)}
	w.site.calls.Store(4)
	srv := httptest.NewServer(w.site)
	t.Cleanup(srv.Close)
	w.Monitor = newMonitor(t, redis, redis, func(d *Deps) {
		d.Probes = func(context.Context, string) (Probes, error) {
			return Probes{Base: srv.URL, Paths: []string{"/", "/a", "/b", "/c"}, Count: 400}, nil
		}
		d.Enqueue = w.enqueue
		d.Tell = w.tellOf
	})
	w.since = func(time.Time) time.Duration { return time.Millisecond } // whatever else the machine does
	w.cfg.WatchFor = 30 * time.Minute
	if change != nil {
		change(&w.cfg)
	}
	addRelease(t, w.d.Ledger, "r1", true)
	addRelease(t, w.d.Ledger, "r2", false)
	if _, err := w.Baseline(context.Background(), tasks.Alone("b"), tasks.Baseline{Release: "r1", By: testBy}); err != nil {
		t.Fatal(err)
	}
	w.flip("r2", release.New)
	return w
}

func (w *watched) flip(id string, from release.State) {
	w.Helper()
	if _, err := w.d.Ledger.Flip(context.Background(), id, from, testBy); err != nil {
		w.Fatal(err)
	}
}

func (w *watched) enqueue(_ context.Context, p tasks.Payload, opts ...asynq.Option) (string, error) {
	if err := w.fail; err != nil {
		w.fail = nil
		return "", err
	}
	if err := p.Validate(); err != nil {
		w.Error(err)
	}
	for _, o := range opts {
		switch o.Type() {
		case asynq.TaskIDOpt:
			if slices.Contains(w.ids, o.Value().(string)) {
				return "", nil // as the client does
			}
			w.ids = append(w.ids, o.Value().(string))
		case asynq.ProcessAtOpt:
			w.due = append(w.due, o.Value().(time.Time))
		}
	}
	w.queued = append(w.queued, p)
	return "", nil
}

func (w *watched) tellOf(_ context.Context, p tasks.Payload, opts ...asynq.Option) (string, error) {
	if err := p.Validate(); err != nil {
		w.Error(err)
	}
	id := opts[0].Value().(string)
	if !slices.Contains(w.toldIDs, id) {
		w.toldIDs = append(w.toldIDs, id)
		w.told = append(w.told, p.(tasks.Notify))
	}
	return id, nil
}

// next takes what is due and returns it.
func (w *watched) next() tasks.Payload {
	w.Helper()
	if len(w.queued) == 0 {
		w.Fatal("nothing was enqueued")
	}
	p := w.queued[0]
	w.queued = w.queued[1:]
	return p
}

var firstLook = tasks.Watch{Release: "r2", Before: "r1", By: testBy}

func (w *watched) look(p tasks.Watch) Verdict {
	w.Helper()
	v, err := w.Watch(context.Background(), tasks.Alone("w"), p)
	if err != nil {
		w.Fatal(err)
	}
	return v
}

func (w *watched) state(id string) (s Watching, v Verdict) {
	w.Helper()
	rec, err := w.d.Ledger.Get(context.Background(), id)
	if err != nil {
		w.Fatal(err)
	}
	if _, err := rec.Doc(release.DocWatch, &s); err != nil {
		w.Fatal(err)
	}
	if _, err := rec.Doc(release.DocVerdict, &v); err != nil {
		w.Fatal(err)
	}
	return s, v
}

func (w *watched) events() (all []string) {
	for _, n := range w.told {
		all = append(all, n.Event)
	}
	return all
}

func TestSchedule(t *testing.T) {
	for _, tt := range []struct {
		watch time.Duration
		want  []time.Duration
	}{
		{0, []time.Duration{0}},
		{2 * time.Second, []time.Duration{0, 2 * time.Second}},
		{2 * time.Minute, []time.Duration{0, 30 * time.Second, time.Minute, 2 * time.Minute}},
		{32 * time.Minute, []time.Duration{0, 30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 16 * time.Minute, 32 * time.Minute}},
	} {
		var got []time.Duration
		n := looksIn(tt.watch)
		for i := range n {
			got = append(got, lookAfter(tt.watch, i, n))
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("watch for %v (-want +got):\n%s", tt.watch, diff)
		}
	}
	if n := looksIn(maxWatchFor); n != maxLooks {
		t.Errorf("%d looks in %v, want %d", n, maxWatchFor, maxLooks)
	}
}

// TestWatchLooksOn: a site that stays as it is is looked at to the end, and is the same then.
func TestWatchLooksOn(t *testing.T) {
	w := newWatched(t, nil)
	p := firstLook
	for look := 1; ; look++ {
		v := w.look(p)
		if v.Look != look || v.After.Requests != 400*look {
			t.Errorf("look %d: verdict of look %d over %d requests", look, v.Look, v.After.Requests)
		}
		if v.Verdict == Worse {
			t.Errorf("look %d: %s %q", look, v.Verdict, v.Reasons)
		}
		if v.Final {
			break
		}
		p = w.next().(tasks.Watch)
	}
	s, v := w.state("r2")
	if len(s.Looks) != 7 || !s.Next.IsZero() || s.Ended != "all looks taken" || v.Verdict != Same || v.After.First == nil {
		t.Errorf("at its end: %+v, %s %q", s, v.Verdict, v.Reasons)
	}
	for i := 1; i < len(w.due); i++ {
		if !w.due[i].After(w.due[i-1]) {
			t.Errorf("looks are due at %v", w.due)
		}
	}
	if len(w.queued) != 0 || len(w.told) != 0 {
		t.Errorf("left over: %v, told: %v", w.queued, w.events())
	}
}

// TestWatchErrors: errors end the watch at the first look; without leave nothing is rolled back.
func TestWatchErrors(t *testing.T) {
	w := newWatched(t, nil)
	w.site.failEvery.Store(10)
	v := w.look(firstLook)
	s, _ := w.state("r2")
	if v.Verdict != Worse || !v.Final || !s.Clear || s.Rollback != nil || len(w.queued) != 0 {
		t.Errorf("got %s, %+v, queued %v", v.Verdict, s, w.queued)
	}
	if diff := cmp.Diff([]string{tasks.EventWorse}, w.events()); diff != "" {
		t.Fatal(diff)
	}
	if text := strings.Join(w.told[0].Lines, "\n"); !strings.Contains(text, "errors: 0 of 400 before, 40 of 400 after") || !strings.Contains(text, "stoker rollback --to r1") {
		t.Errorf("told: %s", text)
	}
}

// TestWatchConfirms: more database calls are clear only when a second look shows them too.
func TestWatchConfirms(t *testing.T) {
	w := newWatched(t, func(c *Config) { c.WatchRollback = true })
	w.site.calls.Store(12)
	v := w.look(firstLook)
	if v.Verdict != Worse || v.Final || v.found(MeasureCalls) != Worse {
		t.Fatalf("first look: %s %q", v.Verdict, v.Reasons)
	}
	if len(w.told) != 0 {
		t.Errorf("told after one look: %v", w.events())
	}
	v = w.look(w.next().(tasks.Watch))
	s, _ := w.state("r2")
	if v.Verdict != Worse || !v.Final || !s.Clear || s.Rollback == nil || s.Rollback.Outcome != RollbackAsked {
		t.Fatalf("second look: %s %+v", v.Verdict, s)
	}
	back := w.next().(tasks.Rollback)
	if back.To != "r1" || back.From != "r2" || back.Actor != watcher || !strings.Contains(back.Reason, "database calls") {
		t.Errorf("rollback: %+v", back)
	}
}

// TestWatchForgivesAMoment: what was bad for one look only is not clear.
func TestWatchForgivesAMoment(t *testing.T) {
	w := newWatched(t, func(c *Config) { c.WatchRollback = true })
	w.site.calls.Store(12)
	w.look(firstLook)
	w.site.calls.Store(4)
	w.look(w.next().(tasks.Watch))
	if s, _ := w.state("r2"); s.Clear || s.Rollback != nil || len(w.told) != 0 {
		t.Errorf("got %+v, told %v", s, w.events())
	}
}

// TestWatchTriedAgain: a look whose task dies anywhere is taken once, and asks once.
func TestWatchTriedAgain(t *testing.T) {
	w := newWatched(t, func(c *Config) { c.WatchRollback = true })
	ctx := context.Background()
	w.fail = errors.New("queue Redis is away")
	if _, err := w.Watch(ctx, tasks.Alone("w"), firstLook); err == nil {
		t.Fatal("a look that could not ask for the next succeeded")
	}
	asked := w.site.asked.Load()
	if v := w.look(firstLook); v.Look != 1 || w.site.asked.Load() != asked {
		t.Errorf("tried again: look %d, %d more requests", v.Look, w.site.asked.Load()-asked)
	}
	// It died after it had kept what it saw, and before the ledger knew.
	if err := w.d.Ledger.SetDoc(ctx, "r2", release.DocWatch, Watching{}); err != nil {
		t.Fatal(err)
	}
	if v := w.look(firstLook); v.After.Requests != 400 {
		t.Errorf("a look counted twice: %d requests", v.After.Requests)
	}
	if len(w.queued) != 1 {
		t.Errorf("asked for %d looks", len(w.queued))
	}
	second := w.next().(tasks.Watch)
	w.site.failEvery.Store(2)
	for range 3 {
		w.look(second)
	}
	if len(w.queued) != 1 || len(w.told) != 1 {
		t.Errorf("queued %v, told %v", w.queued, w.events())
	}
}

// TestAutoRollbackOnce: a release is taken back by itself once; the second time people decide.
func TestAutoRollbackOnce(t *testing.T) {
	w := newWatched(t, nil)
	ctx := context.Background()
	w.site.failEvery.Store(2)
	p := firstLook
	p.AutoRollback = true
	w.look(p)
	back := w.next().(tasks.Rollback)
	w.flip("r1", release.Standby)
	for range 2 { // the task may run twice
		if err := w.RolledBack(ctx, back, "by a flip, fresh as of number 7", nil); err != nil {
			t.Fatal(err)
		}
	}
	s, _ := w.state("r2")
	if s.Rollback.Outcome != RollbackDone || s.Rollback.Detail != "by a flip, fresh as of number 7" {
		t.Errorf("after the rollback: %+v", s.Rollback)
	}
	w.flip("r2", release.Standby)
	v := w.look(p)
	if v.Verdict != Worse || len(w.queued) != 0 {
		t.Errorf("the second time: %s, queued %v", v.Verdict, w.queued)
	}
	if diff := cmp.Diff([]string{tasks.EventWorse, tasks.EventRolledBack, tasks.EventWorse}, w.events()); diff != "" {
		t.Error(diff)
	}
	if text := strings.Join(w.told[2].Lines, "\n"); !strings.Contains(text, "once already") {
		t.Errorf("told: %s", text)
	}
}

func TestAutoRollbackRefused(t *testing.T) {
	w := newWatched(t, func(c *Config) { c.WatchRollback = true })
	w.site.failEvery.Store(2)
	w.look(firstLook)
	back := w.next().(tasks.Rollback)
	if err := w.RolledBack(context.Background(), back, "", fmt.Errorf("roll back to %q: %w", "r1", tasks.ErrNotFresh)); err != nil {
		t.Fatal(err)
	}
	if s, _ := w.state("r2"); s.Rollback.Outcome != RollbackRefused || !strings.Contains(s.Rollback.Detail, "not fresh") {
		t.Errorf("got %+v", s.Rollback)
	}
	if diff := cmp.Diff([]string{tasks.EventWorse, tasks.EventNotRolledBack}, w.events()); diff != "" {
		t.Error(diff)
	}
}

// TestWatchSuperseded: a look at a switch that is history says nothing, and asks for nothing.
func TestWatchSuperseded(t *testing.T) {
	w := newWatched(t, nil)
	w.look(firstLook)
	late := w.next().(tasks.Watch)
	w.flip("r1", release.Standby)
	if v := w.look(late); !v.Final || v.Verdict == Worse || len(w.queued) != 0 {
		t.Errorf("look at a release on standby: %s final %v, queued %v", v.Verdict, v.Final, w.queued)
	}
	if s, _ := w.state("r2"); !strings.Contains(s.Ended, `"r1" was the active release`) {
		t.Errorf("ended: %q", s.Ended)
	}
	w.flip("r2", release.Standby)
	asked := w.site.asked.Load()
	w.look(late)
	if w.site.asked.Load() != asked || len(w.queued) != 0 {
		t.Errorf("an old look measured %d, queued %v", w.site.asked.Load()-asked, w.queued)
	}
}

func TestWatchInconclusive(t *testing.T) {
	w := newWatched(t, nil)
	if v := w.look(tasks.Watch{Release: "r1", Before: "r2", By: testBy}); v.Verdict != Inconclusive || !v.Final {
		t.Errorf("not the active release: %s", v.Verdict)
	}
	w.flip("r1", release.Standby)
	addRelease(t, w.d.Ledger, "r3", true)
	if v := w.look(tasks.Watch{Release: "r3", Before: "r2", By: testBy}); v.Verdict != Inconclusive || v.After.Requests != 400 || !v.Final {
		t.Errorf("nothing to compare with: %s %q", v.Verdict, v.Reasons)
	}
	w.d.Probes = nil
	w.flip("r2", release.Standby)
	if v := w.look(firstLook); v.Verdict != Inconclusive || !v.Final || len(w.queued) != 0 {
		t.Errorf("no probes: %s %q", v.Verdict, v.Reasons)
	}
	if len(w.told) != 0 {
		t.Errorf("told: %v", w.events())
	}
}

// TestWatchTooLittle: too few probes are inconclusive to the end.
func TestWatchTooLittle(t *testing.T) {
	w := newWatched(t, func(c *Config) { c.WatchFor = time.Second })
	probes, _ := w.d.Probes(context.Background(), "r2")
	probes.Count = 20
	w.d.Probes = func(context.Context, string) (Probes, error) { return probes, nil }
	w.look(firstLook)
	if v := w.look(w.next().(tasks.Watch)); v.Verdict != Inconclusive || !v.Final {
		t.Errorf("40 answers: %s %q", v.Verdict, v.Reasons)
	}
}

// TestHealthTold: people hear of a change once, from however many reports and workers.
func TestHealthTold(t *testing.T) {
	w := newWatched(t, nil)
	ctx := context.Background()
	report := func(failing ...string) Report {
		r := Report{Checks: []Check{{Name: "fine", Status: OK}, {Name: "meh", Status: Warn}}}
		for _, name := range failing {
			r.Checks = append(r.Checks, Check{Name: name, Status: Fail, Detail: "bad", Remedy: "mend it"})
		}
		return r
	}
	for _, r := range []Report{
		report(), report("a"), report("a"), report("a", "b"), report("b"), report(), report(), report("a"),
	} {
		for range 2 {
			if err := w.tellHealth(ctx, r); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := []string{"health: a failing", "health: a, b failing", "health: recovered; b failed before", "health: a failing"}
	var got []string
	for _, n := range w.told {
		got = append(got, n.Title)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
