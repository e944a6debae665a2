package freshness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/snapshot"
)

// Origin says what the origin holds now.
type Origin interface {
	// Ask returns what the plan of a release makes of some keys now. A key is left out when it has no
	// source that can be asked for it. A release without a plan is [tasks.ErrNotFound]; any other error
	// means that the origin cannot be read now.
	Ask(ctx context.Context, release string, keys []string) (map[string]Answer, error)
}

// Answer is what the origin says of one key: an entry with its tags, or why there is none.
type Answer struct {
	Entry  tasks.Entry
	Tags   []string
	Gone   bool // the source has no such entry (any more)
	Failed bool // it could not be read this time
}

// Deps is what a [Monitor] looks at and works with. All fields are needed, but Now.
type Deps struct {
	Keys      tasks.Keys
	Queue     redis.UniversalClient
	Ledger    *release.Ledger
	Log       *invalidation.Log
	Cache     *namespace.Cache
	Store     snapshot.Store
	Origin    Origin
	OriginLag time.Duration
	// Enqueue puts the task that looks again into its lane; an ID in use already is success.
	Enqueue func(ctx context.Context, p tasks.Payload, opts ...asynq.Option) (string, error)
	Logger  *slog.Logger
	Now     func() time.Time // nil: the system's clock
}

// Monitor compares entries with their origin. It is safe for concurrent use: two looks at once read
// more than one, and come to the same.
type Monitor struct {
	d    Deps
	cfg  Config
	gaps []time.Duration
}

// New returns a monitor; cfg must be valid.
func New(d Deps, cfg Config) *Monitor {
	if d.Now == nil {
		d.Now = time.Now
	}
	return &Monitor{d: d, cfg: cfg, gaps: []time.Duration{firstGap + d.OriginLag, secondGap}}
}

// Look compares a sample of every place with the origin, and the suspects that are due; with
// p.Confirm only those. It stores and returns its report, and enqueues the next look at the
// suspects that remain. A place that cannot be looked at is a problem in the report.
func (m *Monitor) Look(ctx context.Context, job tasks.Job, p tasks.Freshness) (Report, error) {
	report, err := m.look(ctx, job, p)
	if err != nil {
		return report, fmt.Errorf("look at freshness: %w", err)
	}
	return report, nil
}

func (m *Monitor) look(ctx context.Context, job tasks.Job, p tasks.Freshness) (Report, error) {
	report := Report{At: m.d.Now().UTC(), Confirm: p.Confirm}
	records, err := m.d.Ledger.List(ctx)
	if err != nil {
		return report, err
	}
	history, err := m.History(ctx, m.cfg.FreshnessKeep)
	if err != nil {
		return report, err
	}
	known, err := m.suspects(ctx)
	if err != nil {
		return report, err
	}
	places := placesOf(records)
	if err := m.forgetElsewhere(ctx, known, places); err != nil {
		return report, err
	}
	var next time.Time
	for i, pl := range places {
		job.Progress("compare "+pl.release, int64(i), int64(len(places)))
		select {
		case <-job.Draining():
			return report, tasks.ErrDraining
		default:
		}
		l := &looking{Monitor: m, place: pl, at: report.At, known: known[pl.release]}
		if err := l.look(ctx, l.room(p, history)); err != nil {
			if ctx.Err() != nil {
				return report, err
			}
			if !errors.Is(err, tasks.ErrNotFound) { // a release without a plan is nothing new
				m.d.Logger.WarnContext(ctx, "freshness not known", "release", pl.release, "err", err)
			}
			l.row.Problem = err.Error()
		}
		next = earliest(next, l.next())
		report.Places = append(report.Places, l.finish(history))
	}
	if err := m.keep(ctx, report); err != nil {
		return report, err
	}
	return report, m.lookAgain(ctx, job, p.By, next)
}

// lookAgain enqueues the next look at suspects, for the moment when the first of them is due.
func (m *Monitor) lookAgain(ctx context.Context, job tasks.Job, by tasks.By, due time.Time) error {
	if due.IsZero() {
		return nil
	}
	// Rounded up, so that the task never runs before it; and named by it, so that looks that
	// know of the same suspects enqueue one task.
	due = due.Add(time.Second - 1).Truncate(time.Second)
	id := fmt.Sprintf("%s:%d", tasks.TypeFreshness, due.Unix())
	if id == job.ID() {
		id += "+" // this one ran early, by another clock
	}
	wait := max(0, due.Sub(m.d.Now()))
	_, err := m.d.Enqueue(ctx, tasks.Freshness{Confirm: true, By: by}, asynq.TaskID(id), asynq.ProcessIn(wait))
	return err
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
