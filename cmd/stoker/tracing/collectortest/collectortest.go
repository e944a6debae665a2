// Package collectortest is an OpenTelemetry collector for tests: it keeps the spans that processes send it.
package collectortest

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	wire "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/alphanode/stoker/worker/redistest"
)

// Span is a span as it arrived.
type Span struct {
	Service    string // that made it
	Name       string
	Trace      string // hexadecimal, as the next two
	ID, Parent string
	Kind       wire.Span_SpanKind
	Failed     bool
	Attributes map[string]string
	Linked     []string // IDs
	Text       string   // all of it, for finding what must not be there
}

// Collector is an OTLP receiver over HTTP. It is safe for concurrent use.
type Collector struct {
	t   testing.TB
	URL string

	mu    sync.Mutex
	spans []Span
}

// Start runs a collector until the test ends.
func Start(t testing.TB) *Collector {
	t.Helper()
	c := &Collector{t: t}
	server := httptest.NewServer(http.HandlerFunc(c.receive))
	t.Cleanup(server.Close)
	c.URL = server.URL
	return c
}

func (c *Collector) receive(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var request collector.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &request)
	}
	if err != nil || r.URL.Path != "/v1/traces" {
		c.t.Errorf("%s to the collector: %v", r.URL.Path, err)
		http.Error(w, "no traces", http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, process := range request.ResourceSpans {
		service := attributes(process.Resource.GetAttributes())["service.name"]
		for _, scope := range process.ScopeSpans {
			for _, s := range scope.Spans {
				c.spans = append(c.spans, spanOf(service, s))
			}
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func spanOf(service string, s *wire.Span) Span {
	found := Span{
		Service: service, Name: s.Name, Trace: hex.EncodeToString(s.TraceId), ID: hex.EncodeToString(s.SpanId), Parent: hex.EncodeToString(s.ParentSpanId),
		Kind: s.Kind, Failed: s.Status.GetCode() == wire.Status_STATUS_CODE_ERROR, Attributes: attributes(s.Attributes), Text: s.String(),
	}
	for _, l := range s.Links {
		found.Linked = append(found.Linked, hex.EncodeToString(l.SpanId))
	}
	return found
}

func attributes(list []*common.KeyValue) map[string]string {
	all := map[string]string{}
	for _, a := range list {
		if text, ok := a.Value.Value.(*common.AnyValue_StringValue); ok {
			all[a.Key] = text.StringValue
		} else {
			all[a.Key] = strings.TrimSpace(fmt.Sprint(a.Value))
		}
	}
	return all
}

// Spans returns what has arrived.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// Find waits for a span that fits.
func (c *Collector) Find(what string, fits func(Span) bool) (found Span) {
	c.t.Helper()
	redistest.Eventually(c.t, "the span "+what, func() bool {
		all := c.Spans()
		i := slices.IndexFunc(all, fits)
		if i >= 0 {
			found = all[i]
		}
		return i >= 0
	})
	return found
}

// Under waits for a span of that name whose parent is given.
func (c *Collector) Under(parent Span, name string) Span {
	c.t.Helper()
	return c.Find(fmt.Sprintf("%q under %q", name, parent.Name), func(s Span) bool { return s.Name == name && s.Parent == parent.ID && s.Trace == parent.Trace })
}

// Tree writes a trace as an indented list, for people.
func (c *Collector) Tree(trace string) string {
	var b strings.Builder
	all := c.Spans()
	var write func(parent, indent string)
	write = func(parent, indent string) {
		for _, s := range all {
			if s.Trace == trace && s.Parent == parent {
				fmt.Fprintf(&b, "%s%s (%s)\n", indent, s.Name, s.Service)
				write(s.ID, indent+"  ")
			}
		}
	}
	write("", "")
	return b.String()
}
