package invalidation

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// mostTraced bounds the traces that are told of one batch.
const mostTraced = 64

// traced begins a span for the batch in the trace of every call that has one. The batch's
// commands are below the first, to which the others are linked. end ends them all.
func (b *batch) traced(ctx context.Context) (_ context.Context, end func(error)) {
	if b.a.Tracer == nil {
		return ctx, func(error) {}
	}
	callers := b.callers(ctx)
	if len(callers) == 0 {
		return ctx, func(error) {}
	}
	spans := make([]trace.Span, len(callers))
	for i, caller := range callers {
		opts := []trace.SpanStartOption{trace.WithAttributes(attribute.Int("stoker.records", len(b.records)),
			attribute.Int("stoker.targets", len(b.targets)), attribute.StringSlice("stoker.releases", b.live))}
		if i > 0 {
			opts = append(opts, trace.WithLinks(trace.Link{SpanContext: spans[0].SpanContext()}))
		}
		_, spans[i] = b.a.Tracer.Start(trace.ContextWithSpanContext(ctx, caller), "apply invalidations", opts...)
	}
	return trace.ContextWithSpan(ctx, spans[0]), func(err error) {
		for _, span := range spans {
			if err != nil {
				span.SetStatus(codes.Error, "") // the rest is for the log: it may quote a key
			}
			span.End()
		}
	}
}

// callers returns the spans that the batch's calls were made in, one a trace. Where ctx is of
// the same trace, as in the task that the call enqueued, its own span stands for it.
func (b *batch) callers(ctx context.Context) []trace.SpanContext {
	within := trace.SpanContextFromContext(ctx)
	var found []trace.SpanContext
	known := map[trace.TraceID]bool{}
	for _, r := range b.records {
		for _, call := range r.calls {
			caller := call.Traced()
			if !caller.IsSampled() || known[caller.TraceID()] || len(found) == mostTraced {
				continue
			}
			known[caller.TraceID()] = true
			if within.TraceID() == caller.TraceID() {
				caller = within
			}
			found = append(found, caller)
		}
	}
	return found
}
