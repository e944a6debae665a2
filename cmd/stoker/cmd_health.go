package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/cmd/stoker/web"
	"github.com/alphanode/stoker/scheduler"
	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/health"
	"github.com/alphanode/stoker/worker/snapshot"
)

func (c *cli) healthCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "health",
		Short:   "Run the health checks now",
		Example: "  stoker health --json",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(p port) error {
				report, err := ask(cmd.Context(), p, healthOp, none{})
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

var healthOp = operation[none, health.Report]{
	id: "checkHealth", says: "Run the health checks now",
	method: "POST", path: "/v1/health", scope: web.Operate, long: true,
	do: func(ctx context.Context, r *rooms, _ none, by tasks.By) (health.Report, error) {
		return r.monitor.Check(ctx, tasks.Alone("health"), tasks.Health{By: by})
	},
}

var latestHealthOp = operation[none, health.Report]{
	id: "health", says: "What the last health checks found",
	method: "GET", path: "/v1/health", scope: web.View,
	do: func(ctx context.Context, r *rooms, _ none, _ tasks.By) (health.Report, error) {
		return r.monitor.Latest(ctx)
	},
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
	do: func(ctx context.Context, r *rooms, _ none, _ tasks.By) ([]health.Check, error) {
		checks := health.Doctor(ctx, r.doctorDeps(), r.set.Health)
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

// doctored are keys like those that stoker uses on the cache Redis, of a release that is none.
func (r *rooms) doctored(release string) []string {
	keys := []string{r.tmpl.Key(release, release), r.keys.Fence(release), r.keys.Followers("")}
	if tasks.Sharded(r.cache) {
		keys = append(keys, r.keys.SlotFence(release, "1"), r.keys.Followers("1"), r.keys.Watermark(1))
	}
	return keys
}
