package tracing

import (
	"context"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/trace"
)

// discreet takes the queries out of addresses, which may hold secrets, before spans leave the process.
type discreet struct{ trace.SpanExporter }

var _ trace.SpanExporter = discreet{}

// ExportSpans implements [trace.SpanExporter].
func (d discreet) ExportSpans(ctx context.Context, spans []trace.ReadOnlySpan) error {
	shown := make([]trace.ReadOnlySpan, len(spans))
	for i, span := range spans {
		shown[i] = span
		if attrs := span.Attributes(); slices.ContainsFunc(attrs, tells) {
			shown[i] = without{span, withoutQueries(attrs)}
		}
	}
	return d.SpanExporter.ExportSpans(ctx, shown)
}

// tells reports whether an attribute holds an address's query.
func tells(a attribute.KeyValue) bool {
	return a.Key == "url.query" || a.Key == "url.full" && strings.Contains(a.Value.AsString(), "?")
}

func withoutQueries(attrs []attribute.KeyValue) []attribute.KeyValue {
	kept := make([]attribute.KeyValue, 0, len(attrs))
	for _, a := range attrs {
		switch {
		case a.Key == "url.query":
		case a.Key == "url.full":
			address, _, _ := strings.Cut(a.Value.AsString(), "?")
			kept = append(kept, attribute.String("url.full", address))
		default:
			kept = append(kept, a)
		}
	}
	return kept
}

// without is a span with other attributes.
type without struct {
	trace.ReadOnlySpan
	attrs []attribute.KeyValue
}

// Attributes implements [trace.ReadOnlySpan].
func (w without) Attributes() []attribute.KeyValue { return w.attrs }
