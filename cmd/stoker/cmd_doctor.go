package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/cmd/stoker/web"
	"github.com/alphanode/stoker/scheduler"
	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/health"
	"github.com/alphanode/stoker/worker/snapshot"
)

func (c *cli) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "The security and readiness checklist, each line with its remedy",
		Long: `Examine the installation: eviction and persistence of the Redises, transport, passwords and what
their users may do, secrets and file modes, how the console answers strangers and what it takes from them,
who is noted for what is done, which processes run and in which versions, clocks, memory for a
second release, the snapshot store and the last drill, the schedule and its ticks, the plan. It
changes nothing but for a probe that it writes to the snapshot store and removes. Exit code 1
when a check fails; warnings and what could not be asked do not count.`,
		Example: "  stoker doctor",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.ported(cmd.Context(), false, func(p port) error {
				checks, err := ask(cmd.Context(), p, doctorOp, none{})
				if err != nil {
					return err
				}
				if err := c.show(checks, func(w io.Writer) { printChecks(w, checks) }); err != nil {
					return err
				}
				return failing(checks)
			})
		},
	}
}

var doctorOp = operation[none, []health.Check]{
	id: "doctor", says: "Examine the installation as the process that serves the API sees it, each check with its remedy",
	method: "POST", path: "/v1/doctor", scope: web.Operate, long: true,
	do: func(ctx context.Context, r *rooms, _ none, by tasks.By) ([]health.Check, error) {
		deps := r.doctorDeps()
		deps.Actor = by.Actor
		checks := health.Doctor(ctx, deps, r.set.Health)
		for _, name := range unknownSettings() {
			checks = append(checks, health.Check{Name: "settings", Status: health.Warn, Detail: name + " is set, and no setting has that name", Remedy: "see `stoker config` for the names"})
		}
		return checks, nil
	},
}

// doctor stands where a name is needed for what does not exist.
const doctor = "doctor"

func (r *rooms) doctorDeps() health.DoctorDeps {
	d := health.DoctorDeps{
		Queue: r.queue, Cache: r.cache, QueueURL: r.set.Tasks.RedisURL, CacheURL: r.set.Tasks.CacheURL,
		Template: r.tmpl.String(), WebAddr: r.set.Web.WebAddr, WebURL: r.set.Web.WebURL, WebGuarded: r.set.Web.Guarded(),
		QueueKeys: []string{r.keys.Cursor(doctor), "asynq:{" + tasks.LaneHealth.Queue(r.set.Tasks.App) + "}:" + doctor},
		CacheKeys: r.doctored(doctor),
		Version:   version, Headroom: float64(r.set.Governor.Headroom()),
		Records:   r.ledger.List,
		Processes: health.Processes{Queue: r.queue, Keys: r.keys}.List,
		Ticks:     r.ticks,
		ActiveBytes: func(ctx context.Context, id string) (int64, error) {
			u, err := r.ns.Usage(ctx, id)
			return u.Bytes, err
		},
		Store: func(ctx context.Context) (string, error) {
			return storeDetail(r.set.Snapshot, r.store), snapshot.Probe(ctx, r.store)
		},
	}
	d.EnvSecrets, d.SecretFiles = r.secretsAtHand()
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

// secretsAtHand returns the secrets that stand in the environment itself, by name, and the files that hold
// secrets, by the variable that names them.
func (r *rooms) secretsAtHand() (env []string, files map[string]string) {
	files = map[string]string{
		"STOKER_WEB_TOKENS_FILE": r.set.Web.WebTokensFile, "STOKER_WEB_OIDC_SECRET_FILE": r.set.Web.WebOIDCSecretFile,
		"STOKER_SNAPSHOT_KEY_FILE": r.set.Snapshot.SnapshotKeyFile, "AWS_SHARED_CREDENTIALS_FILE": os.Getenv("AWS_SHARED_CREDENTIALS_FILE"),
	}
	for _, name := range secrets {
		files[name+"_FILE"] = os.Getenv(name + "_FILE")
		if value := os.Getenv(name); files[name+"_FILE"] == "" && value != conceal(name, value) {
			env = append(env, name)
		}
	}
	for _, name := range r.dsns() {
		files[name+"_FILE"] = os.Getenv(name + "_FILE")
		// Only a URL without a password is known to have none: drivers take other forms as well.
		if value := os.Getenv(name); value != "" && (redact(value) != value || !strings.Contains(value, "://")) {
			env = append(env, name)
		}
	}
	for _, name := range []string{"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} {
		if os.Getenv(name) != "" {
			env = append(env, name)
		}
	}
	maps.DeleteFunc(files, func(_, file string) bool { return file == "" })
	return env, files
}

// dsns names the variables in which the plan's sources look for their databases; a file of SQLite has no
// password.
func (r *rooms) dsns() []string {
	_, plan, err := readPlan(r.set.Warm.Plan)
	if err != nil {
		return nil // the plan has a check of its own
	}
	var names []string
	for _, s := range plan.Sources {
		if s.Query != nil && s.Query.Driver != "sqlite" {
			names = append(names, s.Query.DSNEnv)
		}
	}
	return names
}

// ticks says how the schedule's entries fare.
func (r *rooms) ticks(ctx context.Context) ([]health.Tick, error) {
	s, err := scheduler.Load(r.set.Scheduler.Schedule)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	runs, err := s.Runs(ctx, r.queue, r.keys, now)
	if err != nil {
		return nil, err
	}
	var all []health.Tick
	for i, run := range runs {
		due, _ := s.Latest(s.Entries[i], now.Add(-health.MaxLate))
		all = append(all, health.Tick{Entry: run.Entry, Last: run.Last, Due: due})
	}
	return all, nil
}

// storeDetail says where snapshots are, and whether others could read them there.
func storeDetail(cfg snapshot.Config, s snapshot.Store) string {
	if cfg.SnapshotKeyFile == "" {
		return s.String() + ", not encrypted"
	}
	return s.String() + ", encrypted"
}

// doctored are keys like those that stoker uses on the cache Redis, of a release that is none.
func (r *rooms) doctored(release string) []string {
	keys := []string{r.tmpl.Key(release, release), r.keys.Fence(release), r.keys.Followers("")}
	if tasks.Sharded(r.cache) {
		keys = append(keys, r.keys.SlotFence(release, "1"), r.keys.Followers("1"), r.keys.Watermark(1))
	}
	return keys
}
