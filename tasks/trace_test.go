package tasks

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/propagation"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/alphanode/stoker/worker/redistest"
)

// TestUntracedCostsNothing: outside of a trace, calls make neither spans nor headers nor garbage.
func TestUntracedCostsNothing(t *testing.T) {
	ctx := context.Background()
	if n := testing.AllocsPerRun(100, func() {
		same, span := startSpan(ctx, trace.SpanKindProducer, "enqueue", TypeWarmRun)
		if same != ctx || traceHeaders(ctx) != nil || traceOf(ctx) != "" || WithTrace(ctx, nil) != ctx {
			t.Error("there is a trace")
		}
		endSpan(span, ErrInvalid)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestTraceTravels: a record and headers bring a trace to another process; one that nobody records
// travels in headers alone, so that nobody begins another, and baggage stays.
func TestTraceTravels(t *testing.T) {
	ctx, span := sdk.NewTracerProvider().Tracer("app").Start(context.Background(), "edit")
	arrived := trace.SpanContextFromContext(WithTrace(context.Background(), traceHeaders(ctx)))
	if want := span.SpanContext().WithRemote(true); !arrived.Equal(want) {
		t.Errorf("headers bring %v, want %v", arrived, want)
	}
	call := Invalidation{Targets: []Target{{KindKey, "a"}}, Trace: traceOf(ctx), By: By{Actor: "ann"}}
	plain := Invalidation{Targets: call.Targets, By: call.By}
	raw, err := Record{ID: "r", Calls: []Invalidation{call, plain}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeRecord(string(raw))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Invalidation{call, plain}, got.Calls); diff != "" {
		t.Error(diff)
	}
	if c := got.Calls[0].Traced(); !c.Equal(arrived) || got.Calls[1].Traced().IsValid() || strings.Count(string(raw), "trace") != 1 {
		t.Errorf("a record brings %v: %s", c, raw)
	}

	unsampled := trace.ContextWithSpanContext(context.Background(), span.SpanContext().WithTraceFlags(0))
	if headers := traceHeaders(unsampled); traceOf(unsampled) != "" || !strings.HasSuffix(headers[traceParent], "-00") {
		t.Errorf("what is not sampled has %q and %v", traceOf(unsampled), headers)
	}
	baggage := propagation.Baggage{}.Extract(ctx, propagation.MapCarrier{"baggage": "password=hunter2"})
	if headers := traceHeaders(baggage); len(headers) != 1 {
		t.Errorf("headers %v", headers)
	}
}

// BenchmarkTraces: what a trace costs a call, and what the possibility of one costs a call that has none:
// the latter is within the noise of `untraced`.
func BenchmarkTraces(b *testing.B) {
	client, err := NewClientFrom(redistest.Start(b).Client, nil, Config{App: "site", KeyTemplate: DefaultTemplate, FillLimit: 30e9})
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	traced, span := sdk.NewTracerProvider().Tracer("app").Start(context.Background(), "edits")
	defer span.End()
	call := Invalidation{Targets: []Target{{KindKey, "post:42"}}, By: By{Actor: "bench"}}
	for _, way := range []struct {
		name string
		ctx  context.Context
	}{{"untraced", context.Background()}, {"traced", traced}} {
		b.Run("invalidate/"+way.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := client.Invalidate(way.ctx, call); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("alone/"+way.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ctx, span := startSpan(way.ctx, trace.SpanKindProducer, "enqueue", TypeWarmRun)
				if headers := traceHeaders(ctx); len(headers) > 1 {
					b.Fatal(fmt.Sprint(headers))
				}
				endSpan(span, nil)
			}
		})
	}
}
