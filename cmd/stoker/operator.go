package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/alphanode/stoker/cmd/stoker/demo"
	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker"
	"github.com/alphanode/stoker/worker/health"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/restore"
	"github.com/alphanode/stoker/worker/retire"
	"github.com/alphanode/stoker/worker/snapshot"
	"github.com/alphanode/stoker/worker/warm"
)

// operator takes the demo's steps the way the command line does.
type operator struct{ r *rooms }

var _ demo.Operator = operator{}

func (o operator) by(reason string) tasks.By { return tasks.By{Actor: "demo", Reason: reason} }

func (o operator) port() port { return direct{o.r, o.by("demo")} }

// follow returns a task's result.
func (o operator) follow(ctx context.Context, taskType, id string, show func(worker.Progress), say func(string)) (json.RawMessage, error) {
	return follow(ctx, o.port(), queued{Task: id, Type: taskType}, show, say)
}

// Create implements [demo.Operator].
func (o operator) Create(ctx context.Context, id string, notes release.Notes) error {
	return o.r.ledger.Create(ctx, release.Record{ID: id, Template: o.r.tmpl.String(), Notes: notes}, o.by("demo"))
}

// Warm implements [demo.Operator].
func (o operator) Warm(ctx context.Context, id string, plan []byte, sample float64, watch demo.Watch) (demo.Warmed, error) {
	run, _, err := o.r.client.Warm(ctx, tasks.WarmRequest{Release: id, Plan: plan, Sample: sample, By: o.by("demo")})
	if err != nil {
		return demo.Warmed{}, err
	}
	s, err := followRun(ctx, o.port(), run, func(s warm.RunStatus) { watch(s.Done, s.Total) }, nil)
	if err != nil {
		return demo.Warmed{}, err
	}
	if s.Certificate == nil {
		return demo.Warmed{}, fmt.Errorf("warm %q: %s: %s", id, s.Status, s.Error)
	}
	w := demo.Warmed{Verdict: s.Status, Coverage: s.Certificate.Coverage, Detail: strings.Join(s.Certificate.Reasons, "; ")}
	for _, src := range s.Sources {
		w.Entries += src.Stored
	}
	if sample > 0 && s.Status == "inconclusive" {
		w.Verdict = "sample"
	}
	return w, nil
}

// Activate implements [demo.Operator].
func (o operator) Activate(ctx context.Context, id, reason string) error {
	task, err := o.r.client.Activate(ctx, id, false, o.by(reason))
	if err != nil {
		return err
	}
	if _, err := resultOf[worker.Activation](o.follow(ctx, tasks.TypeActivate, task, nil, nil)); err != nil {
		return err
	}
	return o.told(ctx, id)
}

// Rollback implements [demo.Operator].
func (o operator) Rollback(ctx context.Context, to, reason string, watch demo.Watch) (demo.RolledBack, error) {
	task, err := o.r.client.Rollback(ctx, to, o.by(reason))
	if err != nil {
		return demo.RolledBack{}, err
	}
	done, err := resultOf[restore.Report](o.follow(ctx, tasks.TypeRollback, task, shown(watch), nil))
	if err != nil {
		return demo.RolledBack{}, err
	}
	back := demo.RolledBack{From: done.Via, FreshAs: done.FreshAsOf, Replayed: done.Replayed}
	if done.Via == restore.ViaArchive {
		back.Restored = done.Entries
	}
	return back, o.told(ctx, to)
}

// Archive implements [demo.Operator].
func (o operator) Archive(ctx context.Context, id, reason string, watch demo.Watch) (demo.Archived, error) {
	task, err := o.r.client.Expire(ctx, id, false, o.by(reason))
	if err != nil {
		return demo.Archived{}, err
	}
	done, err := resultOf[retire.Report](o.follow(ctx, tasks.TypeExpire, task, shown(watch), nil))
	if err != nil {
		return demo.Archived{}, err
	}
	rec, err := o.r.ledger.Get(ctx, id)
	if err != nil {
		return demo.Archived{}, err
	}
	var d snapshot.Descriptor
	_, err = rec.Doc(release.DocSnapshot, &d)
	return demo.Archived{Entries: d.Entries, Bytes: d.Size, Removed: done.Deleted}, err
}

// Baseline implements [demo.Operator].
func (o operator) Baseline(ctx context.Context, id string) error {
	task, err := o.r.client.Enqueue(ctx, tasks.Baseline{Release: id, By: o.by("demo")})
	if err != nil {
		return err
	}
	_, err = resultOf[health.Baseline](o.follow(ctx, tasks.TypeBaseline, task, nil, nil))
	return err
}

// Compare implements [demo.Operator].
func (o operator) Compare(ctx context.Context, before, after string) (string, error) {
	v, err := o.r.compare(ctx, before, after)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s: %s", v.Verdict, strings.Join(v.Reasons, "; ")), nil
}

// Note implements [demo.Operator].
func (o operator) Note(ctx context.Context, id string) (string, error) { return o.r.note(ctx, id) }

// State implements [demo.Operator].
func (o operator) State(ctx context.Context, id string) (release.State, int64, error) {
	rec, err := o.r.ledger.Get(ctx, id)
	if err != nil {
		return "", 0, err
	}
	usage, err := o.r.ns.Usage(ctx, id)
	return rec.State, usage.Entries, err
}

// told returns when this process's client knows that id is active.
func (o operator) told(ctx context.Context, id string) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if active, err := o.r.client.Release(ctx); err == nil && active == id {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func shown(watch demo.Watch) func(worker.Progress) {
	return func(p worker.Progress) { watch(p.Done, p.Total) }
}
