package worker

import (
	"context"
	"errors"
	"testing"

	"github.com/hibiken/asynq"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	api "go.opentelemetry.io/otel/trace"

	"github.com/alphanode/stoker/tasks"
)

// TestTracedTries: each try of a task has a span below the one that enqueued it; the handler's context holds it, and
// a failed one does not quote the error.
func TestTracedTries(t *testing.T) {
	r := newRig(t)
	spans := tracetest.NewInMemoryExporter()
	provider := trace.NewTracerProvider(trace.WithSyncer(spans))
	client, err := tasks.NewClientFrom(r.redis.Client, r.redis.Client, tasks.Config{App: app, KeyTemplate: tasks.DefaultTemplate, FillLimit: 1e9})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, root := provider.Tracer("app").Start(context.Background(), "edit")
	id, err := client.Enqueue(ctx, tasks.Rollback{By: by})
	if err != nil {
		t.Fatal(err)
	}
	root.End()
	within := make(chan api.SpanContext, 2)
	r.start(func(ctx context.Context, _ tasks.Job, _ []byte) (any, error) {
		within <- api.SpanContextFromContext(ctx)
		if n, _ := asynq.GetRetryCount(ctx); n == 0 {
			return nil, errors.New("secret key post:42 is broken")
		}
		return nil, nil
	}, func(_ *Config, d *Deps) { d.Tracer = provider.Tracer("worker") })
	first := receive(t, "the first try", within)
	second := receive(t, "the second try", within)
	until(t, "the task to be done", func() bool { return r.state(id) == asynq.TaskStateCompleted })

	named := map[string][]tracetest.SpanStub{}
	for _, s := range spans.GetSpans() {
		named[s.Name] = append(named[s.Name], s)
	}
	enqueued, tries := named["enqueue release:rollback"], named["process release:rollback"]
	if len(enqueued) != 1 || len(tries) != 2 {
		t.Fatalf("spans %v", named)
	}
	if enqueued[0].Parent.SpanID() != root.SpanContext().SpanID() || enqueued[0].SpanKind != api.SpanKindProducer {
		t.Errorf("enqueued below %v", enqueued[0].Parent)
	}
	for i, want := range []struct {
		span   api.SpanContext
		status trace.Status
	}{{first, trace.Status{Code: codes.Error, Description: string(retryLater)}}, {second, trace.Status{}}} {
		s := tries[i]
		if s.SpanContext.SpanID() != want.span.SpanID() || s.Parent.SpanID() != enqueued[0].SpanContext.SpanID() || s.SpanContext.TraceID() != root.SpanContext().TraceID() {
			t.Errorf("try %d: %v below %v, want %v below %v", i, s.SpanContext, s.Parent, want.span, enqueued[0].SpanContext)
		}
		if s.Status != want.status || len(s.Events) > 0 || s.SpanKind != api.SpanKindConsumer {
			t.Errorf("try %d ended as %+v %v", i, s.Status, s.Events)
		}
		for _, a := range s.Attributes {
			if a.Key == "messaging.message.retry.count" && a.Value.AsInt64() != int64(i) {
				t.Errorf("try %d says that it is try %d", i, a.Value.AsInt64())
			}
		}
	}
}
