package tracing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	api "go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// off takes every variable that tracing reads out of the environment.
func off(t *testing.T) {
	t.Helper()
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_SDK_DISABLED", "TRACEPARENT"} {
		t.Setenv(name, "")
	}
}

func TestRead(t *testing.T) {
	const endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318"
	for _, tt := range []struct {
		env  string
		want config
		err  string // in it
	}{
		{env: ""},
		{env: endpoint, want: config{true, protocolHTTP}},
		{env: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=https://collector/v1/traces", want: config{true, protocolHTTP}},
		{env: endpoint + " OTEL_SDK_DISABLED=true"},
		{env: endpoint + " OTEL_TRACES_EXPORTER=none"},
		{env: endpoint + " OTEL_TRACES_EXPORTER=otlp OTEL_EXPORTER_OTLP_PROTOCOL=grpc OTEL_TRACES_SAMPLER=parentbased_traceidratio", want: config{true, protocolGRPC}},
		{env: endpoint + " OTEL_EXPORTER_OTLP_PROTOCOL=grpc OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf", want: config{true, protocolHTTP}},
		{env: endpoint + " OTEL_TRACES_EXPORTER=zipkin", err: `OTEL_TRACES_EXPORTER "zipkin": use otlp or none`},
		{env: endpoint + " OTEL_EXPORTER_OTLP_PROTOCOL=http/json", err: `OTEL_EXPORTER_OTLP_PROTOCOL "http/json": use http/protobuf or grpc`},
		{env: endpoint + " OTEL_TRACES_SAMPLER=half", err: `OTEL_TRACES_SAMPLER "half": use one of`},
		{env: "OTEL_EXPORTER_OTLP_ENDPOINT=collector:4318", err: "OTEL_EXPORTER_OTLP_ENDPOINT is no address: use http://host:4318"},
		{env: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://ann:hunter2@%zz", err: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is no address"},
	} {
		got, err := read(func(name string) string {
			for _, pair := range strings.Fields(tt.env) {
				if value, ok := strings.CutPrefix(pair, name+"="); ok {
					return value
				}
			}
			return ""
		})
		switch {
		case tt.err == "" && (err != nil || got != tt.want):
			t.Errorf("%s: %+v, %v; want %+v", tt.env, got, err, tt.want)
		case tt.err != "" && (!errors.Is(err, tasks.ErrInvalid) || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "hunter2")):
			t.Errorf("%s: %v; want %s", tt.env, err, tt.err)
		}
	}
}

// recorded is tracing whose spans stay in memory.
func recorded() (*Tracing, *tracetest.InMemoryExporter) {
	spans := tracetest.NewInMemoryExporter()
	return newTracing(trace.NewTracerProvider(trace.WithSyncer(discreet{spans}))), spans
}

func TestOffIsNothing(t *testing.T) {
	off(t)
	tracing, err := Start(context.Background(), "stoker", "dev", slog.New(slog.DiscardHandler))
	if err != nil || tracing != nil || tracing.Tracer() != nil {
		t.Fatalf("%v, %v without a collector", tracing, err)
	}
	tracing.Redis(nil) // or it would panic
	base := &http.Transport{}
	if tracing.Transport(base) != base {
		t.Error("requests take another way")
	}
	tracing.Stop(FlushLimit)
}

// TestRedis: commands within a recorded trace have spans, which tell neither keys nor values; polls and what
// is not sampled have none.
func TestRedis(t *testing.T) {
	tracing, spans := recorded()
	client := redistest.Start(t).Client
	tracing.Redis(client)
	quiet := context.Background()
	unsampled := api.ContextWithSpanContext(quiet, api.NewSpanContext(api.SpanContextConfig{TraceID: api.TraceID{1}, SpanID: api.SpanID{1}}))
	for _, ctx := range []context.Context{quiet, unsampled} {
		client.Get(ctx, "secret-key")
		_, _ = client.Pipelined(ctx, func(p redis.Pipeliner) error { p.Incr(ctx, "secret-n"); return nil })
	}
	if n := len(spans.GetSpans()); n != 0 {
		t.Errorf("%d spans outside of any trace", n)
	}
	ctx, parent := tracing.Tracer().Start(quiet, "parent")
	client.Set(ctx, "secret-key", "secret-value", 0)
	client.Get(ctx, "secret-absent")
	client.LPush(ctx, "secret-key", "secret-value")
	_, _ = client.Pipelined(ctx, func(p redis.Pipeliner) error { p.Incr(ctx, "secret-n"); p.Get(ctx, "secret-n"); return nil })
	redis.NewScript("return redis.error_reply('secret-key is bad')").Run(ctx, client, []string{"secret-key"})
	ended, cancel := context.WithCancel(ctx)
	cancel()
	client.Get(ended, "secret-key")
	var got []string
	for _, s := range spans.GetSpans() {
		got = append(got, s.Name+" "+s.Status.Description)
		if s.Parent.SpanID() != parent.SpanContext().SpanID() || s.SpanKind != api.SpanKindClient || s.Status.Code == codes.Ok {
			t.Errorf("%s: %+v", s.Name, s)
		}
		if text := fmt.Sprintf("%+v", s); strings.Contains(text, "secret") {
			t.Errorf("%s tells a secret: %s", s.Name, text)
		}
	}
	want := []string{"SET ", "GET ", "LPUSH WRONGTYPE", "PIPELINE ", "EVALSHA ", "EVAL ERR", "GET canceled"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestHTTP: a request's server is told of its span, and nobody else of the query.
func TestHTTP(t *testing.T) {
	tracing, spans := recorded()
	var told string
	server := httptest.NewServer(tracing.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { told = r.Header.Get("traceparent") })))
	defer server.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	ask := func(ctx context.Context) {
		r, err := http.NewRequestWithContext(ctx, "GET", server.URL+"/page?token=secret", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := tracing.Transport(transport).RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	ask(context.Background())
	if told != "" {
		t.Errorf("told of %s outside of any trace", told)
	}
	spans.Reset()
	ctx, _ := tracing.Tracer().Start(context.Background(), "parent")
	ask(ctx)
	redistest.Eventually(t, "both spans", func() bool { return len(spans.GetSpans()) == 2 })
	var client, handler tracetest.SpanStub
	for _, s := range spans.GetSpans() {
		if s.SpanKind == api.SpanKindClient {
			client = s
		} else {
			handler = s
		}
		if text := fmt.Sprintf("%+v", s); strings.Contains(text, "secret") {
			t.Errorf("%s tells the query: %s", s.Name, text)
		}
	}
	if handler.Parent.SpanID() != client.SpanContext.SpanID() || !strings.Contains(told, client.SpanContext.SpanID().String()) {
		t.Errorf("the server was told of %s: %+v, %+v", told, client, handler)
	}
}

// TestCollectorThatHangs: spans are made, and dropped, while the collector says nothing, and the process
// ends before it does.
func TestCollectorThatHangs(t *testing.T) {
	off(t)
	asked, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	collector := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		once.Do(func() { close(asked) })
		<-release
	}))
	defer collector.Close()
	defer close(release)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
	var logged bytes.Buffer
	tracing, err := Start(context.Background(), "stoker", "dev", slog.New(slog.NewTextHandler(&logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	span := func() { _, s := tracing.Tracer().Start(context.Background(), "work"); s.End() }
	span()
	<-asked
	for range 10_000 { // five times what the queue holds
		span()
	}
	tracing.Stop(CommandFlushLimit)
	tracing.Stop(FlushLimit)
	if !strings.Contains(logged.String(), "traces are not complete") {
		t.Errorf("nobody is told: %s", logged.String())
	}
}
