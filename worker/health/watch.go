package health

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
)

// Watching is the ledger's document about a watch (release.DocWatch).
type Watching struct {
	ActivatedAt time.Time     `json:"activated_at"`       // the switch that is watched
	Before      string        `json:"before,omitempty"`   // the release that was active before
	Planned     int           `json:"planned"`            // looks in all
	Looks       []Look        `json:"looks"`              // those taken
	Next        time.Time     `json:"next,omitzero"`      // when the next is due; zero when the watch has ended
	Ended       string        `json:"ended,omitempty"`    // why it has
	Clear       bool          `json:"clear,omitempty"`    // it ended because the site is clearly worse
	Rollback    *AutoRollback `json:"rollback,omitempty"` // kept over later switches: once per release
}

// Look is one look of a watch.
type Look struct {
	At       time.Time `json:"at"`
	Verdict  Outcome   `json:"verdict"` // of all looks up to this one
	Requests int       `json:"requests"`
	Errors   int       `json:"errors"`
	Figures            // of this look alone
}

// AutoRollback is what came of a watch's own rollback.
type AutoRollback struct {
	To      string    `json:"to"`
	At      time.Time `json:"at"`
	Task    string    `json:"task"`
	Outcome string    `json:"outcome"`          // asked, done, refused or failed
	Detail  string    `json:"detail,omitempty"` // how it was done, or why not
}

// The outcomes of an [AutoRollback].
const (
	RollbackAsked   = "asked"
	RollbackDone    = "done"
	RollbackRefused = "refused"
	RollbackFailed  = "failed"
)

// Limits of a watch's schedule.
const (
	maxWatchFor  = 48 * time.Hour
	firstPause   = 30 * time.Second // between the first two looks, at least
	maxLooks     = 12
	keepWatching = 24 * time.Hour // what was seen, beyond the watch's end
)

// looksIn returns how many looks there are in a watch of that length.
func looksIn(d time.Duration) int {
	if d == 0 {
		return 1
	}
	n := 2
	for d /= 2; d >= firstPause && n < maxLooks; d /= 2 {
		n++
	}
	return n
}

// lookAfter returns when the i-th of n looks is due after the switch: the first at once, the last
// at the end, each of the others at half of the next one's time.
func lookAfter(d time.Duration, i, n int) time.Duration {
	if i == 0 {
		return 0
	}
	return d >> (n - 1 - i)
}

// watch is one look under way.
type watch struct {
	*Monitor
	p       tasks.Watch
	state   Watching
	verdict Verdict
}

// Watch takes one look at the active release after its switch, judges it together with the looks
// before against the baseline of the release before (or, without one, its own earlier one), stores
// verdict and watch with the release, and asks for the next look. Without probes, without anything to
// compare with, or when the release is not the active one throughout, the verdict is
// inconclusive; that is not an error. A look that is tried again changes nothing that it has done.
func (m *Monitor) Watch(ctx context.Context, job tasks.Job, p tasks.Watch) (Verdict, error) {
	w := &watch{Monitor: m, p: p}
	if err := w.look(ctx, job); err != nil {
		return Verdict{}, fmt.Errorf("watch release %q: %w", p.Release, err)
	}
	return w.verdict, nil
}

func (w *watch) look(ctx context.Context, job tasks.Job) error {
	rec, err := w.d.Ledger.Get(ctx, w.p.Release)
	if err != nil {
		return err
	}
	fresh, err := w.resume(rec)
	if err != nil {
		return err
	}
	if fresh {
		if err := w.take(ctx, job, rec); err != nil {
			return err
		}
		if err := w.store(ctx); err != nil {
			return err
		}
	}
	return w.settle(ctx)
}

// resume reads what the looks before have left; false when this look has been taken already, or is
// of a switch that is not the last one any more.
func (w *watch) resume(rec release.Record) (fresh bool, err error) {
	var prior Watching
	if _, err := rec.Doc(release.DocWatch, &prior); err != nil {
		return false, err
	}
	same := prior.ActivatedAt.Equal(rec.ActivatedAt) && len(prior.Looks) > 0
	switch {
	case w.p.Look > 0 && (!same || w.p.Activated != rec.ActivatedAt.UnixMicro()):
		w.state = Watching{Ended: "superseded by a later switch"}
		_, err := rec.Doc(release.DocVerdict, &w.verdict)
		return false, err
	case same && (len(prior.Looks) > w.p.Look || prior.Next.IsZero()):
		w.state = prior
		_, err := rec.Doc(release.DocVerdict, &w.verdict)
		return false, err
	case same:
		w.state = prior
		return true, nil
	}
	w.state = Watching{ActivatedAt: rec.ActivatedAt, Before: w.p.Before, Planned: looksIn(w.cfg.WatchFor), Rollback: prior.Rollback}
	return true, nil
}

// take measures, unless there is nothing to look at, and judges.
func (w *watch) take(ctx context.Context, job tasks.Job, rec release.Record) error {
	before, found, err := w.baselineBefore(ctx, rec, w.state.Before)
	if err != nil {
		return err
	}
	activeThen, err := w.d.Ledger.Active(ctx)
	if err != nil {
		return err
	}
	if activeThen != w.p.Release {
		return w.leave(rec, "%q was the active release, not %q: what the site serves says nothing of it", activeThen, w.p.Release)
	}
	probes, err := w.probes(ctx, w.p.Release)
	if errors.Is(err, tasks.ErrInvalid) || errors.Is(err, tasks.ErrNotFound) {
		// Every switch is watched; a site without probes must not end each with a failed task.
		return w.leave(rec, "not measured: %v", err)
	}
	if err != nil {
		return err
	}
	alone, err := w.measure(ctx, job, probes, w.p.Release, w.p.Look == 0, maxWatched)
	if err != nil {
		return err
	}
	activeNow, err := w.d.Ledger.Active(ctx)
	if err != nil {
		return err
	}
	if activeNow != w.p.Release {
		return w.leave(rec, "the active release changed from %q to %q while it was measured", w.p.Release, activeNow)
	}
	all, err := w.gather(ctx, alone)
	if err != nil {
		return err
	}
	if !found {
		err := w.leave(rec, "no baseline to compare with: take one before the next switch (stoker baseline ID)")
		w.verdict.After = all.Summary()
		return err
	}
	w.judge(before, all, alone)
	return nil
}

// leave ends the watch without another measurement. What earlier looks found stands.
func (w *watch) leave(rec release.Record, format string, args ...any) error {
	why := fmt.Sprintf(format, args...)
	w.state.Next, w.state.Ended = time.Time{}, why
	if w.p.Look > 0 {
		_, err := rec.Doc(release.DocVerdict, &w.verdict)
		w.verdict.Final = true
		w.verdict.Reasons = append(w.verdict.Reasons, "watch ended: "+why)
		return err
	}
	w.state.Looks = append(w.state.Looks, Look{At: w.now().UTC(), Verdict: Inconclusive})
	w.verdict = Verdict{Verdict: Inconclusive, Reasons: []string{why}, Look: 1, Looks: w.state.Planned, Final: true}
	return nil
}

// confirming is the share of false alarms with which a look by itself confirms what all looks together
// say: 5 % a measure.
const confirming = 0.05 * 2 * 6

// judge draws the verdict of all looks so far, and ends the watch when it is clear. Errors are
// clear at once. What else is worse must be so at two looks in a row, and in the second by itself as
// well: a moment's load is not the release's fault, and a cold cache passes.
func (w *watch) judge(before, all, alone Baseline) {
	n := len(w.state.Looks)
	v := compare(before, all, falseAlarm/float64(w.state.Planned))
	v.Look, v.Looks = n+1, w.state.Planned
	again := n > 0 && w.state.Looks[n-1].Verdict == Worse
	w.state.Clear = v.found(MeasureErrors) == Worse || again && agree(v, compare(before, alone, confirming))
	w.state.Looks = append(w.state.Looks, Look{
		At: alone.At, Verdict: v.Verdict, Requests: alone.Requests, Errors: alone.Errors, Figures: alone.Figures,
	})
	switch {
	case w.state.Clear:
		w.state.Ended = "clearly worse"
	case v.Look == w.state.Planned:
		w.state.Ended = "all looks taken"
	default:
		w.state.Ended = ""
		w.state.Next = w.state.ActivatedAt.Add(lookAfter(w.cfg.WatchFor, v.Look, w.state.Planned))
	}
	if w.state.Ended != "" {
		w.state.Next, v.Final = time.Time{}, true
	}
	if w.state.Clear && w.state.Rollback == nil && w.state.Before != "" && (w.cfg.WatchRollback || w.p.AutoRollback) {
		w.state.Rollback = &AutoRollback{To: w.state.Before, At: w.now().UTC(), Task: "watch-rollback:" + w.p.Release, Outcome: RollbackAsked}
	}
	w.verdict = v
}

// agree reports whether a measure of later visits is worse in both verdicts.
func agree(all, alone Verdict) bool {
	return slices.ContainsFunc([]Measure{MeasureLatency, MeasureTail, MeasureCalls, MeasureHits}, func(m Measure) bool {
		return all.found(m) == Worse && alone.found(m) == Worse
	})
}

// seen is what the looks of a watch have measured together.
type seen struct {
	Activated int64    `json:"activated"`
	Looks     int      `json:"looks"`
	All       Baseline `json:"all"`
}

// gather adds a look's measurement to those before. One that is tried again is added once.
func (w *watch) gather(ctx context.Context, alone Baseline) (Baseline, error) {
	key := w.d.Keys.Watch(w.p.Release)
	var s seen
	raw, err := w.d.Queue.Get(ctx, key).Bytes()
	if err == nil {
		err = json.Unmarshal(raw, &s)
	}
	if err != nil && !errors.Is(err, redis.Nil) {
		return Baseline{}, fmt.Errorf("read what was seen so far: %w", err)
	}
	if s.Activated != w.state.ActivatedAt.UnixMicro() {
		s = seen{Activated: w.state.ActivatedAt.UnixMicro()}
	}
	if s.Looks > w.p.Look {
		return s.All, nil
	}
	s.Looks, s.All = w.p.Look+1, merge(s.All, alone, maxWatched)
	if raw, err = json.Marshal(s); err == nil {
		err = w.d.Queue.Set(ctx, key, raw, w.cfg.WatchFor+keepWatching).Err()
	}
	if err != nil {
		return Baseline{}, fmt.Errorf("keep what was seen so far: %w", err)
	}
	return s.All, nil
}

// store writes verdict and watch. The watch is last: it says that the look was taken.
func (w *watch) store(ctx context.Context) error {
	if err := w.d.Ledger.SetDoc(ctx, w.p.Release, release.DocVerdict, w.verdict); err != nil {
		return err
	}
	return w.d.Ledger.SetDoc(ctx, w.p.Release, release.DocWatch, w.state)
}

// settle does what follows from the state as it is stored. Each step is safe to repeat.
func (w *watch) settle(ctx context.Context) error {
	if w.d.Enqueue == nil {
		return nil
	}
	if w.verdict.Verdict == Worse && w.verdict.Final {
		if err := w.tellWorse(ctx); err != nil {
			return err
		}
	}
	if r := w.state.Rollback; r != nil && r.Outcome == RollbackAsked {
		by := tasks.By{Actor: watcher, Reason: cut("the watch found "+w.p.Release+" clearly worse: "+w.worst(), tasks.MaxReasonLen)}
		if _, err := w.d.Enqueue(ctx, tasks.Rollback{To: r.To, From: w.p.Release, By: by}, asynq.TaskID(r.Task)); err != nil {
			return fmt.Errorf("roll back by itself: %w", err)
		}
	}
	if w.state.Next.IsZero() {
		return nil
	}
	next := w.p
	next.Look, next.Activated = len(w.state.Looks), w.state.ActivatedAt.UnixMicro()
	id := fmt.Sprintf("watch:%s:%d:%d", next.Release, next.Activated, next.Look)
	if _, err := w.d.Enqueue(ctx, next, asynq.TaskID(id), asynq.ProcessAt(w.state.Next)); err != nil {
		return fmt.Errorf("ask for the next look: %w", err)
	}
	return nil
}

// watcher is the actor of a watch's own rollback.
const watcher = "watch"

// worst returns the first line of the verdict that says what is worse.
func (w *watch) worst() string {
	for _, f := range w.verdict.Found {
		if f.Outcome == Worse {
			return f.Detail
		}
	}
	return ""
}

func (w *watch) tellWorse(ctx context.Context) error {
	lines := make([]string, 0, len(w.verdict.Found)+1)
	for _, f := range w.verdict.Found {
		if f.Outcome == Worse {
			lines = append(lines, f.Detail)
		}
	}
	switch {
	case w.state.Rollback != nil && w.state.Rollback.Outcome == RollbackAsked:
		lines = append(lines, fmt.Sprintf("It is being rolled back to %s.", w.state.Rollback.To))
	case w.state.Rollback != nil:
		lines = append(lines, "It was rolled back by itself once already: this time it is yours to decide.")
	case w.state.Before != "":
		lines = append(lines, fmt.Sprintf("To take it back: stoker rollback --to %s --wait", w.state.Before))
	}
	title := fmt.Sprintf("%s is worse than %s", w.p.Release, w.verdict.Before.Release)
	return w.tell(ctx, fmt.Sprintf("worse:%s:%d", w.p.Release, w.state.ActivatedAt.UnixMicro()), tasks.EventWorse, w.p.Release, title, lines...)
}

// RolledBack notes what came of a rollback that a watch has asked for, and tells people. detail says
// how it was done; err why it was not, for good.
func (m *Monitor) RolledBack(ctx context.Context, p tasks.Rollback, detail string, err error) error {
	rec, getErr := m.d.Ledger.Get(ctx, p.From)
	if getErr != nil {
		return getErr
	}
	var state Watching
	if ok, err := rec.Doc(release.DocWatch, &state); err != nil || !ok || state.Rollback == nil {
		return err // not a watch's
	}
	r := state.Rollback
	r.Outcome, r.Detail = RollbackDone, detail
	event, title := tasks.EventRolledBack, fmt.Sprintf("%s was worse: rolled back to %s", p.From, r.To)
	if err != nil {
		r.Outcome, r.Detail = RollbackFailed, cut(err.Error(), tasks.MaxReasonLen)
		if errors.Is(err, tasks.ErrRefused) || errors.Is(err, tasks.ErrNotFresh) {
			r.Outcome = RollbackRefused
		}
		event, title = tasks.EventNotRolledBack, fmt.Sprintf("%s is worse, and was not rolled back to %s", p.From, r.To)
	}
	if err := m.d.Ledger.SetDoc(ctx, p.From, release.DocWatch, state); err != nil {
		return err
	}
	return m.tell(ctx, "rollback:"+p.From, event, p.From, title, r.Outcome+": "+r.Detail, "The whole story: stoker release note "+p.From)
}

// baselineBefore returns the baseline to compare with: of the release before, else the
// release's own.
func (m *Monitor) baselineBefore(ctx context.Context, own release.Record, before string) (b Baseline, found bool, err error) {
	if before != "" {
		r, err := m.d.Ledger.Get(ctx, before)
		if err != nil && !errors.Is(err, tasks.ErrNotFound) {
			return b, false, err
		}
		if err == nil {
			if found, err := r.Doc(release.DocBaseline, &b); found || err != nil {
				return b, found, err
			}
		}
	}
	found, err = own.Doc(release.DocBaseline, &b)
	return b, found, err
}

// probes returns the pages to measure under a release.
func (m *Monitor) probes(ctx context.Context, id string) (Probes, error) {
	if m.d.Probes == nil {
		return Probes{}, fmt.Errorf("%w: no pages to measure: name those that stand for the site in the plan's probes (STOKER_PLAN)", tasks.ErrInvalid)
	}
	return m.d.Probes(ctx, id)
}
