package main

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/governor/throttle"
)

// pace is the value of --pace; "" where it was not given.
type pace struct{ tasks.Pace }

var _ pflag.Value = (*pace)(nil)

// Set implements [pflag.Value].
func (p *pace) Set(s string) error {
	p.Pace = tasks.Pace(s)
	return p.Validate()
}

// String implements [pflag.Value].
func (p *pace) String() string { return string(p.Pace) }

// Type implements [pflag.Value].
func (p *pace) Type() string { return "pace" }

// paceFlag adds --pace to a command; otherwise says what holds without it.
func paceFlag(cmd *cobra.Command, p *pace, otherwise string) {
	cmd.Flags().Var(p, "pace", "gentle, normal or full (default "+otherwise+")")
	var names []string
	for _, known := range tasks.Paces() {
		names = append(names, string(known))
	}
	// It fails only for a flag that there is not.
	_ = cmd.RegisterFlagCompletionFunc("pace", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp))
}

// workersPace is what holds without --pace, but for rollbacks.
const workersPace = "the worker's STOKER_PACE"

// here is a context whose work this process does itself, at that pace.
func (p pace) here(ctx context.Context) context.Context {
	return throttle.With(ctx, throttle.NewTask(p.Pace, false))
}
