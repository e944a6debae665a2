package worker

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphanode/stoker/tasks"
)

// verbs answers every verb with the payload it was called with.
type verbs struct{}

func (verbs) Apply(context.Context) (int, error) { return 1, nil }

func (verbs) ApplyBulk(context.Context) (int, error) { return 1, nil }

func (verbs) Run(_ context.Context, _ tasks.Job, p tasks.WarmRun) (tasks.WarmRun, error) {
	return p, nil
}

func (verbs) Refresh(_ context.Context, _ tasks.Job, p tasks.Refresh) (tasks.Refresh, error) {
	return p, nil
}

func (verbs) Batch(_ context.Context, _ tasks.Job, p tasks.WarmBatch) (tasks.WarmBatch, error) {
	return p, nil
}

func (verbs) Snapshot(_ context.Context, _ tasks.Job, p tasks.Snapshot) (tasks.Snapshot, error) {
	return p, nil
}

func (verbs) Expire(_ context.Context, _ tasks.Job, p tasks.Expire) (tasks.Expire, error) {
	return p, nil
}

func (verbs) Rollback(_ context.Context, _ tasks.Job, p tasks.Rollback) (tasks.Rollback, error) {
	return p, nil
}

func (verbs) Check(_ context.Context, _ tasks.Job, p tasks.Health) (tasks.Health, error) {
	return p, nil
}

func (verbs) Look(_ context.Context, _ tasks.Job, p tasks.Freshness) (tasks.Freshness, error) {
	return p, nil
}

func (verbs) Baseline(_ context.Context, _ tasks.Job, p tasks.Baseline) (tasks.Baseline, error) {
	return p, nil
}

func (verbs) Watch(_ context.Context, _ tasks.Job, p tasks.Watch) (tasks.Watch, error) {
	return p, nil
}

func (verbs) Send(_ context.Context, _ tasks.Job, p tasks.Notify) (tasks.Notify, error) {
	return p, nil
}

// TestHandlers: each handler decodes the payload of its type for its verb, and refuses another's.
func TestHandlers(t *testing.T) {
	v := verbs{}
	version := tasks.Payloads.Last()
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		handle  Handler
		payload tasks.Payload
		want    any
	}{
		{Invalidate(v), tasks.Invalidate{Numbers: []int64{7}, Targets: 1}, nil},
		{InvalidateBulk(v), tasks.InvalidateBulk{Number: 7, Targets: 1}, nil},
		{Refresh(v), tasks.Refresh{Release: "r1"}, tasks.Refresh{V: version, Release: "r1"}},
		{WarmRun(v), tasks.WarmRun{Run: "a", Release: "r1", By: by}, tasks.WarmRun{V: version, Run: "a", Release: "r1", By: by}},
		{WarmBatch(v), tasks.WarmBatch{Run: "a", Release: "r1", Source: "s"}, tasks.WarmBatch{V: version, Run: "a", Release: "r1", Source: "s"}},
		{Snapshot(v), tasks.Snapshot{Release: "r1", By: by}, tasks.Snapshot{V: version, Release: "r1", By: by}},
		{Expire(v), tasks.Expire{Release: "r1", NoSnapshot: true, By: by}, tasks.Expire{V: version, Release: "r1", NoSnapshot: true, By: by}},
		{Rollback(v), tasks.Rollback{To: "r1", By: by}, tasks.Rollback{V: version, To: "r1", By: by}},
		{Health(v), tasks.Health{By: by}, tasks.Health{V: version, By: by}},
		{Freshness(v), tasks.Freshness{Confirm: true, By: by}, tasks.Freshness{V: version, Confirm: true, By: by}},
		{Baseline(v), tasks.Baseline{Release: "r1", By: by}, tasks.Baseline{V: version, Release: "r1", By: by}},
		{Watch(v), tasks.Watch{Release: "r1", Before: "r0", By: by}, tasks.Watch{V: version, Release: "r1", Before: "r0", By: by}},
		{Notify(v), tasks.Notify{Event: tasks.EventTest, At: noon, App: app, Title: "a"}, tasks.Notify{V: version, Event: tasks.EventTest, At: noon, App: app, Title: "a"}},
		{Prune(Pruner{}), tasks.Prune{By: by}, Pruned{}},
	} {
		body, err := tasks.Encode(tt.payload)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tt.handle(context.Background(), tasks.Alone("a"), body)
		if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", tt.payload.TaskType(), err, diff)
		}
		for bad, want := range map[string]error{
			`{"v":1,"who":"knows"}`: tasks.ErrInvalid, `{"v":99}`: tasks.ErrNewer, `{}`: tasks.ErrInvalid, ``: tasks.ErrInvalid, `null`: tasks.ErrInvalid,
		} {
			if _, err := tt.handle(context.Background(), tasks.Alone("a"), []byte(bad)); !errors.Is(err, want) {
				t.Errorf("%s of payload %q: %v, want %v", tt.payload.TaskType(), bad, err, want)
			}
		}
	}
}

// TestPruner: one broken step does not keep the others from their work.
func TestPruner(t *testing.T) {
	broken := errors.New("broken")
	p := Pruner{
		{"first", func(context.Context) (int64, error) { return 1, broken }},
		{"second", func(context.Context) (int64, error) { return 2, nil }},
	}
	got, err := p.Prune(context.Background(), tasks.Alone("a"), tasks.Prune{By: by})
	if diff := cmp.Diff(Pruned{"first": 1, "second": 2}, got); diff != "" || !errors.Is(err, broken) {
		t.Errorf("pruned with %v (-want +got):\n%s", err, diff)
	}
}
