package invalidation

import (
	"context"
	"crypto/rand"
	"testing"

	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	api "go.opentelemetry.io/otel/trace"

	"github.com/alphanode/stoker/tasks"
)

// TestTracedBatch: what is applied together has a span in the trace of each call, one a trace; the others are
// linked to the one that the work is below. Within a task of the same trace it is below the task.
func TestTracedBatch(t *testing.T) {
	s := newSite(t, "r1")
	spans := tracetest.NewInMemoryExporter()
	provider := trace.NewTracerProvider(trace.WithSyncer(spans))
	s.apply.Tracer = provider.Tracer("worker")
	called := func() (ctx context.Context, traceparent string) {
		ctx, span := provider.Tracer("app").Start(ctx, "call")
		defer span.End()
		c := span.SpanContext()
		return ctx, "00-" + c.TraceID().String() + "-" + c.SpanID().String() + "-01"
	}
	call := func(name, traceparent string) tasks.Invalidation {
		return tasks.Invalidation{Targets: []tasks.Target{key(name)}, Trace: traceparent, By: tasks.By{Actor: "ann"}}
	}
	record := func(calls ...tasks.Invalidation) {
		t.Helper()
		_, err := s.log.Journal.Record(ctx, tasks.Record{ID: rand.Text(), Calls: calls})
		s.check(err)
	}
	apply := func(ctx context.Context) []tracetest.SpanStub {
		t.Helper()
		spans.Reset()
		_, err := s.apply.Apply(ctx)
		s.check(err)
		return spans.GetSpans()
	}
	ann, annParent := called()
	_, bobParent := called()

	record(call("untraced", ""))
	if got := apply(ctx); len(got) != 0 {
		t.Errorf("%d spans of a call without a trace", len(got))
	}
	record(call("a", annParent), call("b", bobParent), call("c", annParent), call("d", "not a traceparent"))
	got := apply(ctx)
	if len(got) != 2 {
		t.Fatalf("%d spans of two traces: %v", len(got), got)
	}
	for i, parent := range []string{annParent, bobParent} {
		if want := got[i].Parent.TraceID().String() + "-" + got[i].Parent.SpanID().String(); parent != "00-"+want+"-01" {
			t.Errorf("span %d is below %s, want %s", i, want, parent)
		}
	}
	if len(got[0].Links) != 0 || len(got[1].Links) != 1 || got[1].Links[0].SpanContext.SpanID() != got[0].SpanContext.SpanID() {
		t.Errorf("links %v, %v", got[0].Links, got[1].Links)
	}

	record(call("e", annParent))
	task, span := provider.Tracer("worker").Start(ann, "task")
	if got := apply(task); len(got) != 1 || got[0].Parent.SpanID() != span.SpanContext().SpanID() {
		t.Errorf("within its own task: %v", got)
	}
	record(call("f", bobParent))
	if got := apply(task); len(got) != 1 || got[0].SpanContext.TraceID() == api.SpanContextFromContext(task).TraceID() {
		t.Errorf("within another's task: %v", got)
	}
	span.End()
}
