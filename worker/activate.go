package worker

import (
	"context"
	"fmt"

	"github.com/hibiken/asynq"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
)

// An Activation is what became of a release:activate.
type Activation struct {
	Release  string `json:"release"`
	Previous string `json:"previous,omitempty"` // active before, standby now
	Forced   bool   `json:"forced,omitempty"`   // without a passed certificate
	Watch    string `json:"watch,omitempty"`    // ID of the task that takes the first look at before and after
}

// Activator makes a ready release the active one.
type Activator struct {
	Ledger  *release.Ledger
	Sweeper Sweeper // applies what is pending, so that the release is served fresh
	// Enqueue puts the watch into its lane; tasks.Client.Enqueue is one. nil: nothing can be
	// measured, so nothing is watched.
	Enqueue func(ctx context.Context, p tasks.Payload, opts ...asynq.Option) (string, error)
}

// Activate handles release:activate.
func Activate(verb *Activator) Handler { return calls(verb.Activate) }

// passed is the verdict of a certificate that lets a release become active.
const passed = "pass"

// Activate checks the certificate and flips. Without Force it wants a ready release with a passed
// certificate; the very first release of an app may be new, for there is nothing to compare
// it with and nobody is served yet. A retry of an activation that has happened succeeds.
func (a *Activator) Activate(ctx context.Context, j tasks.Job, p tasks.Activate) (Activation, error) {
	done := Activation{Release: p.Release}
	begun, err := j.Load(ctx, &done)
	if err != nil {
		return Activation{}, err
	}
	r, err := a.Ledger.Get(ctx, p.Release)
	if err != nil {
		return Activation{}, err
	}
	if r.State != release.Active {
		if done, err = a.flip(ctx, j, r, p); err != nil {
			return Activation{}, err
		}
	} else if !begun {
		return Activation{}, fmt.Errorf("activate: %w: release %q is active already", tasks.ErrRefused, p.Release)
	}
	return a.watch(ctx, j, done, p)
}

func (a *Activator) flip(ctx context.Context, j tasks.Job, r release.Record, p tasks.Activate) (Activation, error) {
	previous, err := a.Ledger.Active(ctx)
	if err != nil {
		return Activation{}, err
	}
	forced, err := Admit(r, previous == "", p.Force)
	if err != nil {
		return Activation{}, err
	}
	if _, err := a.Sweeper.Sweep(ctx, 0); err != nil {
		return Activation{}, fmt.Errorf("activate release %q: apply what is pending: %w", r.ID, err)
	}
	// A retry finds the release active and has only this to tell that it was this task.
	done := Activation{Release: r.ID, Previous: previous, Forced: forced}
	if err := j.Save(ctx, done); err != nil {
		return Activation{}, err
	}
	by := p.By
	if forced {
		by.Reason = note(by.Reason, "forced: no passed certificate")
	}
	_, err = a.Ledger.Flip(ctx, r.ID, r.State, by)
	return done, err
}

// Admit decides whether a release may become active; forced says that only Force let it pass.
func Admit(r release.Record, first, force bool) (forced bool, err error) {
	switch r.State {
	case release.Ready, release.New:
	case release.Standby, release.Archived:
		return false, fmt.Errorf("activate: %w: release %q is %s: bring it back with `stoker rollback --to %s`", tasks.ErrRefused, r.ID, r.State, r.ID)
	case release.Active:
		return false, fmt.Errorf("activate: %w: release %q is active already", tasks.ErrRefused, r.ID)
	default:
		return false, fmt.Errorf("activate: %w: release %q is %s: wait for it, or see `stoker release show %s`", tasks.ErrRefused, r.ID, r.State, r.ID)
	}
	why, err := lacks(r)
	switch {
	case err != nil:
		return false, err
	case why == "" || first:
		return false, nil
	case force:
		return true, nil
	}
	return false, fmt.Errorf("activate: %w: release %q %s: warm it with `stoker warm %s`, or use --force to serve it as it is", tasks.ErrRefused, r.ID, why, r.ID)
}

// lacks says what a release lacks for its activation, "" when it lacks nothing.
func lacks(r release.Record) (string, error) {
	var certificate struct {
		Verdict string `json:"verdict"`
	}
	ok, err := r.Doc(release.DocCertificate, &certificate)
	switch {
	case err != nil:
		return "", err
	case r.State != release.Ready:
		return fmt.Sprintf("is %s, not ready", r.State), nil
	case !ok:
		return "has no certificate", nil
	case certificate.Verdict != passed:
		return fmt.Sprintf("has a certificate that says %q", certificate.Verdict), nil
	}
	return "", nil
}

// watch enqueues the first look at before and after, once however often the task is retried.
func (a *Activator) watch(ctx context.Context, j tasks.Job, done Activation, p tasks.Activate) (Activation, error) {
	if a.Enqueue == nil || done.Previous == "" {
		return done, nil
	}
	id, err := a.Enqueue(ctx, tasks.Watch{Release: done.Release, Before: done.Previous, AutoRollback: p.AutoRollback, By: p.By}, asynq.TaskID("watch-after-"+j.ID()))
	if err != nil {
		return Activation{}, fmt.Errorf("release %q is active, but its watch is not enqueued: %w", done.Release, err)
	}
	done.Watch = id
	return done, nil
}

// note adds what happened to the words of whoever asked for it.
func note(reason, what string) string {
	if reason == "" {
		return what
	}
	if room := tasks.MaxReasonLen - len(what) - 2; len(reason) > room {
		return what
	}
	return reason + "; " + what
}
