package tasks

import (
	"context"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// tracerName is the instrumentation scope of the client's spans.
const tracerName = "github.com/alphanode/stoker/tasks"

// traceParent is the W3C header that names a span, here one of a task's headers.
const traceParent = "traceparent"

// startSpan begins a span below ctx's, with whatever traces that one. Where ctx is not part of a
// recorded trace it costs a look at ctx, and the span is nil.
func startSpan(ctx context.Context, kind trace.SpanKind, verb, object string) (context.Context, trace.Span) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, nil
	}
	return parent.TracerProvider().Tracer(tracerName).Start(ctx, verb+" "+object, trace.WithSpanKind(kind))
}

// endSpan ends a span that may be nil. What the error says stays out of it: it may quote a key.
func endSpan(span trace.Span, err error) {
	if span == nil {
		return
	}
	if err != nil {
		span.SetStatus(codes.Error, "")
	}
	span.End()
}

// traceHeaders returns the W3C headers (traceparent, tracestate) of ctx's span, nil where it has none.
// Baggage stays behind: a task keeps its headers for as long as its queue keeps the task.
func traceHeaders(ctx context.Context) map[string]string {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return nil
	}
	headers := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, headers)
	return headers
}

// traceOf returns the W3C traceparent of ctx's span, "" where nobody records it.
func traceOf(ctx context.Context) string {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return ""
	}
	return traceHeaders(ctx)[traceParent]
}

// WithTrace returns ctx as a part of the trace that W3C headers name, those of a task or of an
// [Invalidation]; ctx itself where they name none.
func WithTrace(ctx context.Context, headers map[string]string) context.Context {
	if headers[traceParent] == "" {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier(headers))
}

// Traced returns the span that the call was made in; invalid where it was not traced.
func (i Invalidation) Traced() trace.SpanContext {
	if i.Trace == "" {
		return trace.SpanContext{}
	}
	return trace.SpanContextFromContext(WithTrace(context.Background(), map[string]string{traceParent: i.Trace}))
}
