package warm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
)

// finish ends a run: certificate, ledger, people, status, in that order, each step safe to repeat.
// cause is why it ends before its batches did, nil when they are done.
func (r *Runner) finish(ctx context.Context, run, id string, cause error) error {
	rec := r.record(run)
	st, err := rec.load(ctx, "")
	if err != nil {
		return err
	}
	if st.status != statusRunning {
		return nil
	}
	cert, err := r.certificate(ctx, rec, st, id, cause)
	if err != nil {
		return fmt.Errorf("certify release %q: %w", id, err)
	}
	if err := r.enter(ctx, st, id, cert); err != nil {
		return fmt.Errorf("finish run %q: %w", run, err)
	}
	if cert.Verdict == Fail && r.deps.Failed != nil {
		if err := r.deps.Failed(ctx, id, cert); err != nil {
			return fmt.Errorf("finish run %q: %w", run, err)
		}
	}
	values := []any{"status", string(cert.Verdict), "finished_at", cert.At.UnixMicro()}
	if cause != nil {
		values = append(values, "error", cause.Error())
	}
	return rec.end(ctx, st.cut, values...)
}

// giveUp ends a run whose task failed for good, so that nothing waits for it.
func (r *Runner) giveUp(ctx context.Context, run, id string, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
	defer cancel()
	rec := r.record(run)
	st, err := rec.load(ctx, "")
	if errors.Is(err, tasks.ErrNotFound) {
		return nil // there is nothing to end
	}
	if err != nil {
		return err
	}
	if st.status == statusQueued {
		return rec.set(ctx, "status", statusRefused, "error", cause.Error())
	}
	return r.finish(ctx, run, id, cause)
}

// certificate judges a run, once: a repeated finish gets the certificate of the first.
func (r *Runner) certificate(ctx context.Context, rec runRecord, st state, id string, cause error) (Certificate, error) {
	raw, err := rec.queue.HGet(ctx, rec.key(), "certificate").Bytes()
	if err != nil && !errors.Is(err, redis.Nil) {
		return Certificate{}, err
	}
	var c Certificate
	if err == nil && cause == nil {
		return c, json.Unmarshal(raw, &c)
	}
	o, err := r.judge(ctx, rec, st, id, cause)
	if err != nil {
		return c, err
	}
	c = certify(o)
	if raw, err = json.Marshal(c); err != nil {
		return c, err
	}
	return c, rec.set(ctx, "certificate", raw)
}

// judge gathers what the verdict rests on.
func (r *Runner) judge(ctx context.Context, rec runRecord, st state, id string, cause error) (outcome, error) {
	o := outcome{run: rec.run, share: st.share, at: r.now().UTC()}
	if cause != nil {
		o.gaveUp = shorten(cause.Error(), tasks.MaxReasonLen)
	}
	if st.cut == nil {
		return o, nil
	}
	plan, err := ParsePlan([]byte(st.plan))
	if err != nil {
		return o, err
	}
	o.demand, o.left = plan.Certificate, st.cut.Left
	fields, err := rec.queue.HGetAll(ctx, rec.key()).Result()
	if err != nil {
		return o, err
	}
	all, err := gather(*st.cut, fields, plan.Certificate.sample())
	o.sources = all.sources
	if err != nil || cause != nil {
		return o, err
	}
	found, err := r.lookUp(ctx, id, all)
	if err != nil {
		return o, err
	}
	o.sampled, o.missing, o.first = found.sampled, found.missing, found.first
	o.minute, o.begins = sameMinute(found.lives, found.sampled)
	if o.hot, o.unclear, err = r.hotFigures(ctx, rec, *st.cut, id, all.mark); err != nil {
		return o, err
	}
	usage, err := r.deps.Cache.EstimateOf(ctx, id, []string{""})
	o.entries, o.about = usage.Entries, usage.About
	return o, err
}

// gathered is what the batches of a run report together.
type gathered struct {
	sources []SourceFigures
	sample  []sampled
	// mark is the oldest of the batches': each one's replay applies what was invalidated since
	// its own mark to the whole namespace, to what the others wrote as well.
	mark tasks.Mark
}

// gather adds up the batches of a run, by source, with a sample of n of all they wrote.
func gather(c cutting, fields map[string]string, n int) (gathered, error) {
	all := gathered{sources: make([]SourceFigures, len(c.Sources))}
	kinds := map[string]string{}
	failed := make([]failures, len(c.Sources))
	for i, s := range c.Sources {
		kinds[s.Name] = s.Kind
		all.sources[i] = SourceFigures{Name: s.Name, Kind: s.Kind, Figures: Figures{Planned: s.Kept, Stored: s.Kept}, Kept: s.Kept}
		for _, one := range s.Sample {
			one.blind = true
			all.sample = append(all.sample, one)
		}
	}
	for _, b := range c.batches(tasks.WarmRun{}) {
		raw, ok := fields["batch:"+b.ID()]
		if !ok {
			continue
		}
		var t tally
		if err := json.Unmarshal([]byte(raw), &t); err != nil {
			return all, fmt.Errorf("read batch %s: %w", b.ID(), err)
		}
		for i := range all.sources {
			if s := &all.sources[i]; s.Name == b.Source {
				s.add(t.Figures)
				s.Took, s.Bytes = s.Took+t.Took, s.Bytes+t.Bytes
				room := maxExamples - len(s.Examples)
				s.Examples = append(s.Examples, t.Examples[:min(room, len(t.Examples))]...)
				for _, f := range t.Failures {
					failed[i].add(f)
				}
			}
		}
		for _, s := range t.Sample {
			s.blind = kinds[b.Source] != "query"
			all.sample = append(all.sample, s)
		}
		if t.Mark.Epoch != "" && (all.mark.Epoch == "" || t.Mark.Number < all.mark.Number) {
			all.mark = t.Mark
		}
	}
	for i, f := range failed {
		all.sources[i].Failures = f.sorted()
	}
	all.sample = lowest(all.sample, n)
	return all, nil
}

// enter writes a run's outcome into the ledger.
func (r *Runner) enter(ctx context.Context, st state, id string, c Certificate) error {
	rec, err := r.deps.Ledger.Get(ctx, id)
	if err != nil {
		return err
	}
	if rec.Run != "" && rec.Run != c.Run {
		return nil // another run took over
	}
	// A part of the plan says nothing of a release that is in use already.
	partial := c.Sample > 0 || st.cut != nil && len(st.cut.Left) > 0
	if rec.State == release.Warming || !partial {
		if err := r.deps.Ledger.SetDoc(ctx, id, release.DocCertificate, c); err != nil {
			return err
		}
	}
	if rec.State == release.Warming {
		if err := r.leaveWarming(ctx, st, id, c); err != nil {
			return err
		}
	}
	return r.deps.Ledger.SetRun(ctx, id, "")
}

func (r *Runner) leaveWarming(ctx context.Context, st state, id string, c Certificate) error {
	to, by := release.Ready, st.by
	if c.Verdict != Pass {
		to = release.New
	}
	by.Reason = shorten(strings.Join(append([]string{"warm: " + string(c.Verdict)}, c.Reasons...), "; "), tasks.MaxReasonLen-len("…"))
	err := r.deps.Ledger.Move(ctx, id, release.Warming, to, by)
	if !errors.Is(err, tasks.ErrRefused) {
		return err
	}
	rec, getErr := r.deps.Ledger.Get(ctx, id)
	if getErr != nil {
		return getErr
	}
	if rec.State != release.Warming {
		return nil // another try of this task was faster
	}
	// A writer has not finished: it will, or its mark is closed for it. Worth another try, so
	// the cause is not passed on.
	return fmt.Errorf("%v", err)
}
