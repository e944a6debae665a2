package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	api "go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"

	"github.com/alphanode/stoker/tasks"
)

// scope is the instrumentation scope of the spans that this module's processes make themselves.
const scope = "github.com/alphanode/stoker"

// What a process waits at its end for the spans that are not sent yet, at most.
const (
	FlushLimit        = 3 * time.Second        // one that runs on: its work has been given back already
	CommandFlushLimit = 500 * time.Millisecond // a command: somebody waits for its prompt
)

// complainEvery is how often the log tells that spans cannot be sent.
const complainEvery = time.Minute

// Tracing makes this process's spans and sends them. A nil one is off: its methods, but for Command, do nothing. It is
// safe for concurrent use.
type Tracing struct {
	provider *trace.TracerProvider
	tracer   api.Tracer
	stop     sync.Once
}

// Start returns the tracing that the environment asks for, nil where it names no collector
// (OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT). service is the spans'
// service.name unless OTEL_SERVICE_NAME says another. Nothing is dialled yet. A variable of a wrong form
// is an error that wraps [tasks.ErrInvalid]. Call [Tracing.Stop].
func Start(ctx context.Context, service, version string, log *slog.Logger) (*Tracing, error) {
	cfg, err := read(os.Getenv)
	if err != nil || !cfg.on {
		return nil, err
	}
	otel.SetErrorHandler(complaints(log)) // the SDK tells of what goes wrong in the background nowhere else
	var client otlptrace.Client
	if cfg.protocol == protocolGRPC {
		client = otlptracegrpc.NewClient()
	} else {
		client = otlptracehttp.NewClient()
	}
	exporter, err := otlptrace.New(ctx, client)
	if err != nil {
		return nil, fmt.Errorf("%w: OTEL_EXPORTER_OTLP_*: %v", tasks.ErrInvalid, err)
	}
	about, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", service), attribute.String("service.version", version)),
		resource.WithTelemetrySDK(), resource.WithHost(), resource.WithProcessPID(), resource.WithFromEnv())
	if err != nil {
		log.Warn("traces lack what the environment says of this process", "error", err)
	}
	provider := trace.NewTracerProvider(trace.WithResource(about), trace.WithBatcher(discreet{exporter}))
	return newTracing(provider), nil
}

func newTracing(provider *trace.TracerProvider) *Tracing {
	return &Tracing{provider: provider, tracer: provider.Tracer(scope)}
}

// complaints logs what goes wrong in the background, once a minute.
func complaints(log *slog.Logger) otel.ErrorHandlerFunc {
	some := rate.Sometimes{Interval: complainEvery}
	return func(err error) {
		some.Do(func() { log.Warn("traces are not complete", "error", err) })
	}
}

// Stop sends what is left, for up to limit. Calling it again is fine.
func (t *Tracing) Stop(limit time.Duration) {
	if t == nil {
		return
	}
	t.stop.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := t.provider.Shutdown(ctx); err != nil {
			otel.Handle(fmt.Errorf("send the last spans: %w", err))
		}
	})
}

// Tracer returns what makes spans, nil where tracing is off.
func (t *Tracing) Tracer() api.Tracer {
	if t == nil {
		return nil
	}
	return t.tracer
}

// Command begins the span of a command line, below the span that TRACEPARENT and TRACESTATE name
// when a script or a pipeline sets them. Call end with the command's error. Tracing must be on.
func (t *Tracing) Command(ctx context.Context, name string) (_ context.Context, end func(error)) {
	ctx = tasks.WithTrace(ctx, map[string]string{"traceparent": os.Getenv("TRACEPARENT"), "tracestate": os.Getenv("TRACESTATE")})
	ctx, span := t.tracer.Start(ctx, name)
	return ctx, func(err error) {
		if err != nil {
			span.SetStatus(codes.Error, "")
		}
		span.End()
	}
}
