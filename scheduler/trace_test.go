package scheduler

import (
	"context"
	"testing"

	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/alphanode/stoker/tasks"
)

// TestTracedTick: a tick begins a trace that its task is a part of.
func TestTracedTick(t *testing.T) {
	r := newRig(t)
	spans := tracetest.NewInMemoryExporter()
	s := r.scheduler(r.file("entries:\n  - {name: checks, cron: \"* * * * *\", task: \"health:check\"}\n"), nil)
	s.deps.Tracer = trace.NewTracerProvider(trace.WithSyncer(spans)).Tracer("scheduler")
	if err := s.fire(context.Background(), s.Schedule().Entries[0], at("2026-11-25T12:00:00Z")); err != nil {
		t.Fatal(err)
	}
	got := spans.GetSpans()
	if len(got) != 2 || got[0].Name != "enqueue health:check" || got[1].Name != "tick checks" || got[0].Parent.SpanID() != got[1].SpanContext.SpanID() || got[1].Parent.IsValid() {
		t.Fatalf("spans %+v", got)
	}
	info, err := r.inspector.GetTaskInfo(tasks.LaneHealth.Queue(app), TaskID("checks", at("2026-11-25T12:00:00Z")))
	if want := "00-" + got[0].SpanContext.TraceID().String() + "-" + got[0].SpanContext.SpanID().String() + "-01"; err != nil || info.Headers["traceparent"] != want {
		t.Errorf("the task has %v, %v; want %s", info, err, want)
	}
}
