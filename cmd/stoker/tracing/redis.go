package tracing

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	api "go.opentelemetry.io/otel/trace"
)

// Redis makes a span for each command and pipeline of client within a recorded trace. It names the
// command and the server, never an argument. Call it before client is used.
func (t *Tracing) Redis(client redis.UniversalClient) {
	if t == nil {
		return
	}
	attrs := []attribute.KeyValue{attribute.String("db.system.name", "redis")}
	if c, ok := client.(*redis.Client); ok {
		attrs = append(attrs, server(c.Options())...)
	}
	client.AddHook(redisHook{t.tracer, attrs})
}

// server names the server that a client reaches.
func server(opt *redis.Options) []attribute.KeyValue {
	attrs := []attribute.KeyValue{attribute.String("db.namespace", strconv.Itoa(opt.DB))}
	host, port, err := net.SplitHostPort(opt.Addr)
	if err != nil {
		return append(attrs, attribute.String("server.address", opt.Addr))
	}
	attrs = append(attrs, attribute.String("server.address", host))
	if n, err := strconv.Atoi(port); err == nil {
		attrs = append(attrs, attribute.Int("server.port", n))
	}
	return attrs
}

// redisHook makes the spans. The well-known hook of go-redis's makers, redisotel, begins a trace with
// every poll of a queue and writes all arguments out to name a pipeline, traced or not.
type redisHook struct {
	tracer api.Tracer
	attrs  []attribute.KeyValue
}

var _ redis.Hook = redisHook{}

// DialHook implements [redis.Hook].
func (redisHook) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements [redis.Hook].
func (h redisHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if !api.SpanContextFromContext(ctx).IsSampled() {
			return next(ctx, cmd)
		}
		name := strings.ToUpper(cmd.FullName())
		ctx, span := h.start(ctx, name, attribute.String("db.operation.name", name))
		err := next(ctx, cmd)
		end(span, err)
		return err
	}
}

// ProcessPipelineHook implements [redis.Hook].
func (h redisHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if !api.SpanContextFromContext(ctx).IsSampled() {
			return next(ctx, cmds)
		}
		ctx, span := h.start(ctx, "PIPELINE", attribute.String("db.operation.name", "PIPELINE"), attribute.Int("db.operation.batch.size", len(cmds)))
		err := next(ctx, cmds)
		end(span, err)
		return err
	}
}

func (h redisHook) start(ctx context.Context, name string, more ...attribute.KeyValue) (context.Context, api.Span) {
	return h.tracer.Start(ctx, name, api.WithSpanKind(api.SpanKindClient), api.WithAttributes(h.attrs...), api.WithAttributes(more...))
}

// end ends a command's span. Of an error it tells the kind: the rest may quote keys and values.
func end(span api.Span, err error) {
	if kind := kindOf(err); kind != "" {
		span.SetAttributes(attribute.String("error.type", kind))
		span.SetStatus(codes.Error, kind)
	}
	span.End()
}

// kindOf returns a server's prefix of an error, such as OOM, or what became of the connection; "" for
// what is none: no value, and a script that the server has to be told first.
func kindOf(err error) string {
	var reply redis.Error
	switch {
	case err == nil, errors.Is(err, redis.Nil), redis.HasErrorPrefix(err, "NOSCRIPT"):
		return ""
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.As(err, &reply):
		if kind, _, _ := strings.Cut(reply.Error(), " "); strings.ToUpper(kind) == kind {
			return kind
		}
		return "ERR"
	}
	return "connection"
}
