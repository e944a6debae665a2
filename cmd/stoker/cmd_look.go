package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/hibiken/asynq"
	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/scheduler"
	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/health"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/snapshot"
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
			return c.with(cmd.Context(), func(r *rooms) error {
				o, err := r.overview(cmd.Context())
				if err != nil {
					return err
				}
				return c.show(o, func(w io.Writer) { o.print(w) })
			})
		},
	}
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

func (c *cli) healthCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "health",
		Short:   "Run the health checks now",
		Example: "  stoker health --json",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(r *rooms) error {
				report, err := r.monitor.Check(cmd.Context(), tasks.Alone("health"), tasks.Health{By: c.by()})
				if err != nil {
					return err
				}
				if err := c.show(report, func(w io.Writer) { printChecks(w, report.Checks) }); err != nil {
					return err
				}
				return failing(report.Checks)
			})
		},
	}
}

func printChecks(w io.Writer, checks []health.Check) {
	var rows [][]string
	for _, check := range checks {
		seen := check.Detail
		if check.Remedy != "" {
			seen += "\n→ " + check.Remedy
		}
		rows = append(rows, []string{strings.ToUpper(string(check.Status)), check.Name, seen})
	}
	table(w, []string{"", "CHECK", "SEEN, AND WHAT TO DO"}, rows)
}

// failing is the error of a list of checks with a failed one.
func failing(checks []health.Check) error {
	var names []string
	for _, check := range checks {
		if check.Status == health.Fail {
			names = append(names, check.Name)
		}
	}
	if len(names) > 0 {
		return fmt.Errorf("%d of %d checks fail: %s", len(names), len(checks), strings.Join(names, ", "))
	}
	return nil
}

func (c *cli) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "The security and readiness checklist, each line with its remedy",
		Long: `Examine the installation: eviction and persistence of the Redises, transport, passwords and what
their users may do, secrets and file modes, how the console answers strangers, clocks and
versions, memory for a second release, the snapshot store and the last drill, the schedule and the plan. It
changes nothing but for a probe that it writes to the snapshot store and removes. Exit code 1
when a check fails; warnings and what could not be asked do not count.`,
		Example: "  stoker doctor",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			set, err := loadSettings()
			if err != nil {
				return err
			}
			r, err := wire(set, c.log(slog.LevelError), c.traces)
			if err != nil {
				return err
			}
			defer r.close()
			checks := health.Doctor(cmd.Context(), r.doctorDeps(), set.Health)
			for _, name := range unknownSettings() {
				checks = append(checks, health.Check{Name: "settings", Status: health.Warn, Detail: name + " is set, and no setting has that name", Remedy: "see `stoker config` for the names"})
			}
			if err := c.show(checks, func(w io.Writer) { printChecks(w, checks) }); err != nil {
				return err
			}
			return failing(checks)
		},
	}
}

// doctor stands where a name is needed for what does not exist.
const doctor = "doctor"

func (r *rooms) doctorDeps() health.DoctorDeps {
	d := health.DoctorDeps{
		Queue: r.queue, Cache: r.cache, QueueURL: r.set.Tasks.RedisURL, CacheURL: r.set.Tasks.CacheURL,
		Template: r.tmpl.String(), WebAddr: r.set.Web.WebAddr, WebURL: r.set.Web.WebURL, WebGuarded: r.set.Web.Guarded(),
		QueueKeys:   []string{r.keys.Cursor(doctor), "asynq:{" + tasks.LaneHealth.Queue(r.set.Tasks.App) + "}:" + doctor},
		CacheKeys:   r.doctored(doctor),
		SecretFiles: map[string]string{},
		Records:     r.ledger.List,
		ActiveBytes: func(ctx context.Context, id string) (int64, error) {
			u, err := r.ns.Usage(ctx, id)
			return u.Bytes, err
		},
		Store: func(ctx context.Context) (string, error) {
			return storeDetail(r.set.Snapshot, r.store), snapshot.Probe(ctx, r.store)
		},
	}
	for _, name := range secrets {
		switch file, value := os.Getenv(name+"_FILE"), os.Getenv(name); {
		case file != "":
			d.SecretFiles[name+"_FILE"] = file
		case value != conceal(name, value):
			d.EnvSecrets = append(d.EnvSecrets, name)
		}
	}
	for setting, file := range map[string]string{
		"STOKER_WEB_TOKENS_FILE": r.set.Web.WebTokensFile, "STOKER_WEB_OIDC_SECRET_FILE": r.set.Web.WebOIDCSecretFile,
		"STOKER_SNAPSHOT_KEY_FILE": r.set.Snapshot.SnapshotKeyFile,
	} {
		if file != "" {
			d.SecretFiles[setting] = file
		}
	}
	if file := r.set.Scheduler.Schedule; file != "" {
		d.Schedule = func() (string, error) {
			s, err := scheduler.Load(file)
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("%d entries", len(s.Entries)), nil
		}
	}
	if file := r.set.Warm.Plan; file != "" {
		d.Plan = func() (string, error) {
			_, plan, err := readPlan(file)
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("%d sources", len(plan.Sources)), nil
		}
	}
	return d
}

// storeDetail says where snapshots are, and whether others could read them there.
func storeDetail(cfg snapshot.Config, s snapshot.Store) string {
	if cfg.SnapshotKeyFile == "" {
		return s.String() + ", not encrypted"
	}
	return s.String() + ", encrypted"
}

func (c *cli) configCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "config",
		Short:   "Every setting, its value (passwords blotted out) and where it came from",
		Example: "  stoker config\n  STOKER_APP=blog stoker config --json",
		Args:    args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			_, wrong := loadSettings()
			all := describe()
			if err := c.show(all, func(w io.Writer) { printSettings(w, all) }); err != nil {
				return err
			}
			return wrong
		},
	}
}

// printSettings shows each setting as a line that a shell could read, and what it means below.
func printSettings(w io.Writer, all []setting) {
	const indent = "    "
	for _, s := range all {
		fmt.Fprintf(w, "%s=%s\n", s.Name, plain(s.Value))
		help := s.Help
		if s.Source != "default" {
			help += fmt.Sprintf(" (from the %s)", s.Source)
		}
		for _, line := range wrap(help, textWidth(w)-len(indent)) {
			fmt.Fprintln(w, indent+line)
		}
	}
	for _, name := range unknownSettings() {
		fmt.Fprintf(w, "%s is set, and no setting has that name\n", name)
	}
}

func (c *cli) pauseCommand() *cobra.Command {
	return c.switchCommand("pause", "Stop a lane from taking new tasks: the kill switch",
		"Tasks under way finish, but for warms and refreshes: they stop within a second, and go on where they\nwere after `stoker resume`. New tasks wait in Redis. Invalidations are still recorded and, by the\nworkers' sweep, applied: nothing is lost, whatever is paused.")
}

func (c *cli) resumeCommand() *cobra.Command {
	return c.switchCommand("resume", "Let a paused lane go on", "")
}

func (c *cli) switchCommand(verb, short, long string) *cobra.Command {
	return &cobra.Command{
		Use: verb + " LANE", Short: short, Long: strings.TrimSpace(short + "\n\n" + long), Example: "  stoker " + verb + " warm",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			lane, err := tasks.ParseLane(a[0])
			if err != nil {
				return err
			}
			return c.with(cmd.Context(), func(r *rooms) error {
				paused := verb == "pause"
				if err := r.pauseLane(cmd.Context(), lane, paused); err != nil {
					return fmt.Errorf("%s lane %s: %w", verb, lane, err)
				}
				return c.show(map[string]any{"lane": lane, "paused": paused}, func(w io.Writer) { fmt.Fprintf(w, "lane %s: %sd\n", lane, verb) })
			})
		},
	}
}

// doctored are keys like those that stoker uses on the cache Redis, of a release that is none.
func (r *rooms) doctored(release string) []string {
	keys := []string{r.tmpl.Key(release, release), r.keys.Fence(release), r.keys.Followers("")}
	if tasks.Sharded(r.cache) {
		keys = append(keys, r.keys.SlotFence(release, "1"), r.keys.Followers("1"), r.keys.Watermark(1))
	}
	return keys
}

// pauseLane stops a lane from taking new tasks, or lets it go on. It is harmless twice.
func (r *rooms) pauseLane(ctx context.Context, lane tasks.Lane, paused bool) error {
	queue, inspector := lane.Queue(r.set.Tasks.App), asynq.NewInspectorFromRedisClient(r.queue)
	// asynq knows only queues that something was put into; another could not be shown as paused.
	if err := r.queue.SAdd(ctx, "asynq:queues", queue).Err(); err != nil {
		return err
	}
	now, err := inspector.GetQueueInfo(queue)
	if err != nil || now.Paused == paused {
		return err
	}
	if paused {
		return inspector.PauseQueue(queue)
	}
	return inspector.UnpauseQueue(queue)
}
