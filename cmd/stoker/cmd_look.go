package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/hibiken/asynq"
	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/cmd/stoker/web"
	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/health"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/release"
)

// overview is what `stoker status` shows.
type overview struct {
	App      string              `json:"app"`
	Active   string              `json:"active,omitempty"`
	Rollback string              `json:"rollback"` // how, or why not
	Safe     bool                `json:"rollback_safe"`
	Log      invalidation.Status `json:"log"`
	Lanes    []laneStatus        `json:"lanes"`
	Braked   []string            `json:"braked"` // work that goes slower than its pace, and why
	Releases []release.Record    `json:"releases"`
	Watch    *watchStatus        `json:"watch,omitempty"` // of the release that is served
}

// watchStatus is what is known of a release since its switch.
type watchStatus struct {
	Release  string          `json:"release"`
	Verdict  health.Outcome  `json:"verdict"`
	Watching health.Watching `json:"watching"`
}

type laneStatus struct {
	Lane     tasks.Lane    `json:"lane"`
	Paused   bool          `json:"paused"`
	Waiting  int           `json:"waiting"`
	Active   int           `json:"active"`
	Retry    int           `json:"retry"`
	Archived int           `json:"archived"`
	Latency  time.Duration `json:"latency_ns"`
}

func (c *cli) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "What is served, whether a rollback would be safe, what is under way",
		Example: "  stoker status",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(p port) error {
				o, err := ask(cmd.Context(), p, statusOp, none{})
				if err != nil {
					return err
				}
				return c.show(o, func(w io.Writer) { o.print(w) })
			})
		},
	}
}

var statusOp = operation[none, overview]{
	id: "status", says: "What is served, whether a rollback would be safe, what is under way",
	method: "GET", path: "/v1/status", scope: web.View,
	do: func(ctx context.Context, r *rooms, _ none, _ tasks.By) (overview, error) { return r.overview(ctx) },
}

func (r *rooms) overview(ctx context.Context) (overview, error) {
	o := overview{App: r.set.Tasks.App}
	var err error
	if o.Active, err = r.ledger.Active(ctx); err != nil {
		return o, err
	}
	if o.Log, err = r.log.Status(ctx); err != nil {
		return o, err
	}
	if o.Releases, err = r.ledger.List(ctx); err != nil {
		return o, err
	}
	if o.Watch, err = watchOf(o.Releases, o.Active); err != nil {
		return o, err
	}
	if o.Rollback, err = r.rollbackReady(ctx); err != nil {
		o.Rollback = err.Error()
	} else {
		o.Safe = true
	}
	braked, err := r.braked(ctx)
	if err != nil {
		return o, err
	}
	o.Braked = append([]string{}, braked...) // without any, a list all the same
	o.Lanes, err = r.laneStatus()
	return o, err
}

// watchOf reads the watch of the active release, nil where there was none.
func watchOf(records []release.Record, active string) (*watchStatus, error) {
	i := slices.IndexFunc(records, func(r release.Record) bool { return r.ID == active })
	if i < 0 {
		return nil, nil
	}
	s := &watchStatus{Release: active}
	if ok, err := records[i].Doc(release.DocWatch, &s.Watching); err != nil || !ok || !s.Watching.ActivatedAt.Equal(records[i].ActivatedAt) {
		return nil, err
	}
	var v health.Verdict
	_, err := records[i].Doc(release.DocVerdict, &v)
	s.Verdict = v.Verdict
	return s, err
}

// String says how a watch stands.
func (s *watchStatus) String() string {
	text := fmt.Sprintf("Since its switch %s is %s: %d of %d looks taken", s.Release, s.Verdict, len(s.Watching.Looks), s.Watching.Planned)
	if s.Watching.Next.IsZero() {
		return text + ", " + s.Watching.Ended + "."
	}
	return text + ", the next " + humanize.Time(s.Watching.Next) + "."
}

func (r *rooms) laneStatus() ([]laneStatus, error) {
	inspector := asynq.NewInspectorFromRedisClient(r.queue)
	used, err := inspector.Queues()
	if err != nil {
		return nil, fmt.Errorf("read lanes: %w", err)
	}
	var all []laneStatus
	for _, l := range tasks.Lanes() {
		q := &asynq.QueueInfo{}
		if slices.Contains(used, l.Queue(r.set.Tasks.App)) {
			if q, err = inspector.GetQueueInfo(l.Queue(r.set.Tasks.App)); err != nil {
				return nil, fmt.Errorf("read lane %s: %w", l, err)
			}
		}
		all = append(all, laneStatus{l, q.Paused, q.Pending + q.Scheduled, q.Active, q.Retry, q.Archived, q.Latency})
	}
	return all, nil
}

func (o overview) print(w io.Writer) {
	serves := o.Active
	if serves == "" {
		serves = "no release yet"
	}
	fmt.Fprintf(w, "%s serves %s. Safe to roll back: %s, %s.\n", o.App, serves, yesNo(o.Safe), plain(o.Rollback))
	if o.Watch != nil {
		fmt.Fprintln(w, plain(o.Watch.String()))
	}
	fmt.Fprintf(w, "%d invalidations pending", o.Log.Pending)
	if o.Log.Pending > 0 {
		fmt.Fprintf(w, ", the oldest for %v", o.Log.OldestPending.Round(time.Millisecond))
	}
	fmt.Fprintf(w, "; the log holds %d targets.\n\n", o.Log.Targets)
	printReleases(w, o.Releases)
	fmt.Fprintln(w)
	var rows [][]string
	for _, l := range o.Lanes {
		rows = append(rows, []string{string(l.Lane), strconv.Itoa(l.Waiting), strconv.Itoa(l.Active), strconv.Itoa(l.Retry), strconv.Itoa(l.Archived), l.Latency.Round(time.Millisecond).String(), yesNo(l.Paused)})
	}
	table(w, []string{"LANE", "WAITING", "ACTIVE", "RETRY", "FAILED", "LATENCY", "PAUSED"}, rows)
	for _, b := range o.Braked {
		fmt.Fprintln(w, plain(b))
	}
}
