package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/alphanode/stoker/tasks"
)

// version is set by the linker: -ldflags "-X main.version=…".
var version = "dev"

// The exit codes of every command.
const (
	exitDone         = 0
	exitFailed       = 1
	exitBadInput     = 2
	exitRefused      = 3
	exitInconclusive = 4
)

// errInconclusive ends a command that has no verdict: too little was seen to say.
var errInconclusive = errors.New("inconclusive")

// exitCode is the one table from an error's cause to the process's exit code.
func exitCode(err error) int {
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errInconclusive):
		return exitInconclusive
	case errors.Is(err, tasks.ErrInvalid), errors.Is(err, tasks.ErrNotFound):
		return exitBadInput
	case errors.Is(err, tasks.ErrRefused), errors.Is(err, tasks.ErrNotFresh), errors.Is(err, tasks.ErrNewer):
		return exitRefused
	default:
		return exitFailed
	}
}

// cli is what every command shares: where it reads and writes, and who asks.
type cli struct {
	in       io.Reader
	out, err io.Writer
	json     bool
	reason   string
}

// run carries out one command line and returns its exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &cli{in: stdin, out: stdout, err: stderr}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	switch {
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(stderr, "stoker: interrupted")
	case err != nil:
		fmt.Fprintf(stderr, "stoker: %v\n", err)
	}
	return exitCode(err)
}

func (c *cli) root() *cobra.Command {
	root := group(&cobra.Command{
		Use:   "stoker",
		Short: "Makes a site's releases safe to take back when the site caches in Redis",
		Long: `stoker warms the cache of a new release, keeps the old one fresh, and brings
yesterday's back warm and correct. See it work: stoker demo

Settings are read from the environment (stoker config lists them).
Exit codes: 0 done, 1 failed, 2 bad input, 3 refused by a guard, 4 inconclusive.`,
		Example:       "  stoker demo\n  stoker status",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	})
	root.PersistentFlags().BoolVar(&c.json, "json", false, "print JSON")
	root.PersistentFlags().StringVar(&c.reason, "reason", "", "why: kept with whatever the command changes")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w: %v: see `%s --help`", tasks.ErrInvalid, err, cmd.CommandPath())
	})
	for _, group := range []cobra.Group{
		{ID: "try", Title: "Try it:"},
		{ID: "run", Title: "Run it:"},
		{ID: "release", Title: "Take a release through its life:"},
		{ID: "look", Title: "Look:"},
		{ID: "operate", Title: "Operate:"},
	} {
		root.AddGroup(&group)
	}
	add := func(group string, commands ...*cobra.Command) {
		for _, cmd := range commands {
			cmd.GroupID = group
			root.AddCommand(cmd)
		}
	}
	add("try", c.demoCommand(), c.devCommand())
	add("run", c.workerCommand(), c.schedulerCommand(), c.webCommand())
	add("release", c.releaseCommand(), c.planCommand(), c.warmCommand(), c.invalidateCommand(), c.snapshotCommand(),
		c.drillCommand(), c.expireCommand(), c.rollbackCommand(), c.baselineCommand(), c.compareCommand())
	add("look", c.statusCommand(), c.invalidationsCommand(), c.healthCommand(), c.freshnessCommand(), c.doctorCommand(), c.configCommand())
	add("operate", c.pauseCommand(), c.resumeCommand(), c.notifyCommand(), c.fillScriptsCommand(), c.manCommand())
	return root
}

// args turns a complaint about arguments into bad input that says how to call the command.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if check(cmd, given) != nil {
			return fmt.Errorf("%w: arguments %q: use `%s`", tasks.ErrInvalid, given, cmd.UseLine())
		}
		return nil
	}
}

// notEmpty refuses a flag that is given and empty: a script's unset variable must not turn
// "this one" into "the default".
func notEmpty(cmd *cobra.Command, flag string) error {
	if f := cmd.Flags().Lookup(flag); f.Changed && f.Value.String() == "" {
		return fmt.Errorf("%w: --%s is empty: name a release, or leave the flag out", tasks.ErrInvalid, flag)
	}
	return nil
}

// group is a command that only holds others: without one, or with an unknown one, it is bad input.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.SuggestionsMinimumDistance = 2
	cmd.Args = func(cmd *cobra.Command, given []string) error {
		if len(given) == 0 {
			return nil
		}
		like := ""
		if names := cmd.SuggestionsFor(given[0]); len(names) > 0 {
			like = fmt.Sprintf("did you mean %s? ", strings.Join(names, " or "))
		}
		return fmt.Errorf("%w: unknown command %q: %ssee `%s --help`", tasks.ErrInvalid, given[0], like, cmd.CommandPath())
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		_ = cmd.Help()
		return fmt.Errorf("%w: name one of the commands above", tasks.ErrInvalid)
	}
	return cmd
}

// by says who runs this command line, and why.
func (c *cli) by() tasks.By {
	name, host := "unknown", "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	return tasks.By{Actor: name + "@" + host, Reason: c.reason}
}

// log returns the process's logger: JSON for machines, text on a terminal. A command that
// answers and ends logs errors only: what else there is to say, it prints.
func (c *cli) log(level slog.Level) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if isTerminal(c.err) {
		return slog.New(slog.NewTextHandler(c.err, options))
	}
	return slog.New(slog.NewJSONHandler(c.err, options))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
