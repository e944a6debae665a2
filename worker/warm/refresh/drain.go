package refresh

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/alphanode/stoker/tasks"
)

const (
	batch      = 50               // keys loaded at a time
	rest       = time.Second      // between two loads of a key that is edited again and again
	leaseLife  = 10 * time.Second // how long a drain that died keeps others off
	leaseRenew = leaseLife / 4
	drainFor   = time.Minute // then another task goes on: a worker that stops waits for no edit
	giveUp     = time.Hour   // after which a key whose source cannot be read is left to the site
	maxExample = 5
)

// Refreshed is the result of a drain. Every key that was taken counts once for each time.
type Refreshed struct {
	Release  string   `json:"release"`
	Busy     bool     `json:"busy,omitempty"`    // another task is at it
	NoPlan   bool     `json:"no_plan,omitempty"` // nothing can be reloaded
	NotLive  bool     `json:"not_live,omitempty"`
	Dropped  int64    `json:"dropped,omitempty"`  // keys forgotten because of that
	Stored   int64    `json:"stored"`             // reloaded
	Gone     int64    `json:"gone,omitempty"`     // no longer at the origin
	Unowned  int64    `json:"unowned,omitempty"`  // keys that no source of the plan owns
	Failed   int64    `json:"failed,omitempty"`   // left to the site
	Again    int64    `json:"again,omitempty"`    // taken in vain: overtaken by an edit, or too early, or being filled by the site
	Loads    int64    `json:"loads,omitempty"`    // keys that sources were asked for
	Examples []string `json:"examples,omitempty"` // of failures
}

// Refresh drains a release's dirty keys. It may run any number of times, anywhere.
func (r *Refresher) Refresh(ctx context.Context, job tasks.Job, p tasks.Refresh) (Refreshed, error) {
	d := &drain{r: r, job: job, dirtySet: r.dirty(p.Release), token: rand.Text()}
	d.result.Release = p.Release
	has, err := d.lease(ctx, d.token)
	if err != nil || !has {
		d.result.Busy = !has
		return d.result, err
	}
	ctx, cancel := context.WithCancel(ctx)
	renewed := make(chan struct{})
	go func() { defer close(renewed); d.renew(ctx) }()
	err = d.run(ctx)
	cancel()
	<-renewed
	d.end(ctx)
	d.report(err)
	return d.result, err
}

// drain is one task's work.
type drain struct {
	dirtySet
	r      *Refresher
	job    tasks.Job
	token  string
	look   Sources
	result Refreshed
}

// renew holds the lease until ctx ends.
func (d *drain) renew(ctx context.Context) {
	tick := time.NewTicker(leaseRenew)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			// A lease that is lost shows in the next take.
			_, _ = d.lease(ctx, d.token)
		}
	}
}

// end gives back the lease and the sources. What it cannot give back ends by itself.
func (d *drain) end(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = d.unlease(ctx, d.token)
	if d.look != nil {
		if err := d.look.Close(); err != nil {
			d.r.deps.Log.Warn("source not closed", "release", d.release, "error", err)
		}
	}
}

func (d *drain) report(err error) {
	res := d.result
	if err == nil && res.Stored+res.Gone+res.Unowned+res.Failed+res.Dropped > 0 {
		d.r.deps.Log.Info("refreshed", "release", res.Release, "stored", res.Stored, "gone", res.Gone, "unowned", res.Unowned,
			"failed", res.Failed, "dropped", res.Dropped, "no_plan", res.NoPlan, "loads", res.Loads, "examples", res.Examples)
	}
}

func (d *drain) run(ctx context.Context) error {
	if ok, err := d.open(ctx); !ok {
		return err
	}
	for until := time.Now().Add(drainFor); time.Now().Before(until); {
		t, err := d.take(ctx, d.token, batch, d.r.rest)
		switch {
		case err != nil || t.over:
			return err
		case t.wait > 0:
			err = d.pause(ctx, t.wait)
		default:
			err = d.load(ctx, t.keys)
		}
		if err != nil {
			return err
		}
		d.job.Progress("refresh "+d.release, d.result.Stored, 0)
		select {
		case <-d.job.Draining():
			return tasks.ErrDraining
		default:
		}
	}
	return nil // the sweep asks for another task
}

// open finds the plan; false when there is nothing to be done with the dirty keys.
func (d *drain) open(ctx context.Context) (bool, error) {
	live, err := d.r.deps.Live(ctx)
	if err != nil {
		return false, err
	}
	if d.result.NotLive = !slices.Contains(live, d.release); !d.result.NotLive {
		look, err := d.r.deps.Sources(ctx, d.release)
		if err == nil {
			d.look = look
			return true, nil
		}
		if d.result.NoPlan = errors.Is(err, tasks.ErrNotFound) || errors.Is(err, tasks.ErrInvalid); !d.result.NoPlan {
			return false, err
		}
		d.fail(d.release, err)
	}
	if d.result.Dropped, err = d.count(ctx); err != nil {
		return false, fmt.Errorf("count dirty keys of release %q: %w", d.release, err)
	}
	return false, d.drop(ctx)
}

// pause waits for a rest to end.
func (d *drain) pause(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-d.job.Draining():
		return tasks.ErrDraining
	case <-timer.C:
		return nil
	}
}

func (d *drain) fail(what string, err error) {
	if len(d.result.Examples) < maxExample {
		d.result.Examples = append(d.result.Examples, fmt.Sprintf("%s: %v", tasks.Bytes(what), err))
	}
}
