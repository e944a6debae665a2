package worker

import (
	"context"
	"errors"

	"github.com/hibiken/asynq"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/alphanode/stoker/tasks"
)

// traced begins a span for one try of a task, below the span that enqueued it. end ends it with the
// handler's error; what that says stays in the log, since it may quote a key.
func (r runner) traced(ctx context.Context, id string, t *asynq.Task) (_ context.Context, end func(error)) {
	if r.w.deps.Tracer == nil {
		return ctx, func(error) {}
	}
	retried, _ := asynq.GetRetryCount(ctx)
	ctx, span := r.w.deps.Tracer.Start(tasks.WithTrace(ctx, t.Headers()), "process "+t.Type(), trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithAttributes(attribute.String("messaging.system", "asynq"), attribute.String("messaging.destination.name", r.lane.lane.Queue(r.w.deps.App)),
			attribute.String("messaging.message.id", id), attribute.Int("messaging.message.retry.count", retried)))
	return ctx, func(err error) {
		switch {
		case errors.Is(err, tasks.ErrDraining):
			span.AddEvent("handed on")
		case err != nil:
			span.SetStatus(codes.Error, string(verdictOf(err)))
		}
		span.End()
	}
}
