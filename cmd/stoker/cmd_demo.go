package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/cmd/stoker/demo"
	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/origin"
)

// demoApp is the demo's own app: its keys and queues are deleted when a demo starts.
const demoApp = "demo"

func (c *cli) demoCommand() *cobra.Command {
	o := demo.DefaultOptions()
	var exit bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See the whole job done, on a site of its own",
		Long: `Run a small content site, people who read it and editors who change it, and take it through a
release and back: warm, certify, switch, edit, roll back, archive, restore. Beside it runs the
same site deployed the plain way, with a cache that every deploy flushes. The table at the end
says what visitors of both saw.

Uses a redis-server of its own when one is on the PATH, an embedded one otherwise; or the
Redises that STOKER_REDIS_URL and STOKER_CACHE_URL name, where it deletes and writes keys and
queues of the app "demo" only.`,
		Example: "  stoker demo\n  stoker demo --exit\n  stoker demo --exit --articles articles.jsonl.gz --events events.jsonl.gz",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.Validate(); err != nil {
				return err
			}
			return c.runDemo(cmd.Context(), o, exit)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&exit, "exit", false, "end after the story; otherwise console and asynq UI stay up")
	f.StringVar(&o.Articles, "articles", o.Articles, "articles of another site (JSON lines, may be gzipped)")
	f.StringVar(&o.Events, "events", o.Events, "its edit history, with --articles")
	f.Uint64Var(&o.Seed, "seed", o.Seed, "seed of the generated site and of its visitors")
	f.IntVar(&o.Visitors, "visitors", o.Visitors, "visitors of each site")
	f.Float64Var(&o.Rate, "rate", o.Rate, "pages a second that the visitors of one site ask for at most")
	f.DurationVar(&o.Latency, "latency", o.Latency, "time that one database call takes at least")
	return cmd
}

func (c *cli) runDemo(ctx context.Context, o demo.Options, exit bool) (err error) {
	stop, err := c.ownRedis(ctx)
	if err != nil {
		return err
	}
	defer stop()
	set, err := c.demoSettings()
	if err != nil {
		return err
	}
	defer os.RemoveAll(set.Snapshot.SnapshotURL[len("file://"):])
	logger := slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: slog.LevelError}))
	r, err := wire(set, logger)
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.ping(ctx); err != nil {
		return err
	}
	if err := r.wipe(ctx); err != nil {
		return err
	}

	running, end := context.WithCancel(ctx)
	defer end()
	processes := make(chan error, 1)
	go func() { processes <- r.runAll(running) }()
	d, err := demo.Open(ctx, o, demo.Wiring{
		Client: r.demoClient, Active: r.client.Release, Redis: r.cache, Operator: operator{r},
		Log: logger, Out: c.out, Terminal: isTerminal(c.out),
	})
	if err == nil {
		_, err = d.Run(ctx)
		if err == nil && !exit {
			fmt.Fprintf(c.out, "\nthe site:    %s\nthe console: http://%s/\nthe queues:  http://%s/queues/\nctrl-C ends it\n", d.URL(), set.Web.WebAddr, set.Web.WebAddr)
			select {
			case <-ctx.Done():
			case err = <-processes:
			}
		}
		err = errors.Join(err, d.Close())
	}
	end()
	return errors.Join(err, <-drained(processes))
}

// drained returns a channel that has the processes' error, also after somebody took it.
func drained(processes chan error) <-chan error {
	out := make(chan error, 1)
	select {
	case err := <-processes:
		out <- err
	case <-time.After(time.Minute):
		out <- errors.New("the processes did not stop")
	}
	return out
}

// ownRedis starts a Redis for this process when the environment names none.
func (c *cli) ownRedis(ctx context.Context) (stop func(), err error) {
	if os.Getenv("STOKER_REDIS_URL") != "" || os.Getenv("STOKER_REDIS_URL_FILE") != "" {
		return func() {}, nil
	}
	url, kind, stop, err := demo.StartRedis(ctx)
	if err != nil {
		return nil, err
	}
	if err := os.Setenv("STOKER_REDIS_URL", url); err != nil {
		stop()
		return nil, err
	}
	fmt.Fprintf(c.err, "STOKER_REDIS_URL is not set: started a Redis of its own (%s)\n", kind)
	return stop, nil
}

// demoSettings are the environment's, with what makes a story of minutes out of one of days.
func (c *cli) demoSettings() (*settings, error) {
	set, err := loadSettings()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "stoker-demo-archive-")
	if err != nil {
		return nil, fmt.Errorf("make a place for the demo's archives: %w", err)
	}
	set.Tasks.App, set.Tasks.Release = demoApp, ""
	set.Tasks.FillLimit = 3 * time.Second
	set.Snapshot.SnapshotURL = "file://" + dir
	set.Retain.RetainMinAge = 0
	set.Origin.CrawlNetworks = append(set.Origin.CrawlNetworks, origin.Loopback()...)
	set.Web.WebAddr, err = freeAddr(set.Web.WebAddr)
	return set, err
}

// freeAddr returns addr, or another of the same host when its port is taken.
func freeAddr(addr string) (string, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		host, _, splitErr := net.SplitHostPort(addr)
		if splitErr != nil {
			return "", splitErr
		}
		if l, err = net.Listen("tcp", net.JoinHostPort(host, "0")); err != nil {
			return "", err
		}
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// wipe deletes what an earlier demo left: keys and queues of the app "demo".
func (r *rooms) wipe(ctx context.Context) error {
	patterns := []string{tasks.EscapeGlob("stoker:{"+demoApp+"}:") + "*", tasks.EscapeGlob(demoApp+":") + "*"}
	for _, l := range tasks.Lanes() {
		patterns = append(patterns, tasks.EscapeGlob("asynq:{"+l.Queue(demoApp)+"}:")+"*")
		if err := r.queue.SRem(ctx, "asynq:queues", l.Queue(demoApp)).Err(); err != nil {
			return fmt.Errorf("clear the last demo: %w", err)
		}
	}
	for _, client := range []redis.UniversalClient{r.queue, r.cache} {
		for _, pattern := range patterns {
			it := client.Scan(ctx, 0, pattern, 1000).Iterator()
			for it.Next(ctx) {
				if err := client.Unlink(ctx, it.Val()).Err(); err != nil {
					return fmt.Errorf("clear the last demo: %w", err)
				}
			}
			if err := it.Err(); err != nil {
				return fmt.Errorf("clear the last demo: %w", err)
			}
		}
	}
	return nil
}

// demoClient is an app server's client, pinned to a release unless it is "".
func (r *rooms) demoClient(id string) (demo.Cache, error) {
	cfg := r.set.Tasks
	cfg.Release = id
	client, err := tasks.NewClientFrom(r.queue, r.cache, cfg)
	return demo.StokerCache{Client: client}, err
}

func (c *cli) devCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "dev",
		Short: "Run worker, scheduler and console in one process, for one's own site",
		Long: `Run everything in one process. Without STOKER_REDIS_URL it starts a Redis of its own, which
forgets everything when it ends.`,
		Example: "  STOKER_APP=blog stoker dev",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			stop, err := c.ownRedis(cmd.Context())
			if err != nil {
				return err
			}
			defer stop()
			return c.serve(func(r *rooms) error {
				fmt.Fprintf(c.out, "app %s, Redis %s\nthe console: http://%s/\nthe queues:  http://%s/queues/\nctrl-C ends it\n",
					r.set.Tasks.App, redact(r.set.Tasks.RedisURL), r.set.Web.WebAddr, r.set.Web.WebAddr)
				return r.runAll(cmd.Context())
			})
		},
	}
}
