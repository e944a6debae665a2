package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"go.opentelemetry.io/otel/attribute"

	"github.com/alphanode/stoker/cmd/stoker/tracing/collectortest"
	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

// tracedApp is a traced app server.
func tracedApp(t *testing.T, in *install, c *collectortest.Collector) (*tasks.Client, *sdk.TracerProvider) {
	t.Helper()
	exporter, err := otlptracehttp.New(context.Background(), otlptracehttp.WithEndpointURL(c.URL+"/v1/traces"))
	if err != nil {
		t.Fatal(err)
	}
	provider := sdk.NewTracerProvider(sdk.WithSyncer(exporter), sdk.WithResource(resource.NewSchemaless(attribute.String("service.name", "blog"))))
	client, err := tasks.NewClient(tasks.Config{App: in.app, RedisURL: in.redis.URL, KeyTemplate: tasks.DefaultTemplate, FillLimit: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		if err := provider.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return client, provider
}

// toldSite is a site's new build that notes what its requests say of their trace.
type toldSite struct {
	*httptest.Server
	mu      sync.Mutex
	parents map[string]bool // traceparents
}

func newTold(t *testing.T) *toldSite {
	i := &toldSite{parents: map[string]bool{}}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.parents[r.Header.Get("traceparent")] = true
		w.Header().Set("X-Cache", "HIT")
		w.Header().Set("X-Release", r.Header.Get("X-Release"))
		fmt.Fprintf(w, "page %s", r.URL.Path)
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *toldSite) told(traceparent string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.parents[traceparent]
}

// TestOneTrace follows an edit from the app through the log and the task to the cache Redis, and a warm
// from a command line that a traced script calls to the origin. The worker sends its spans only when it stops.
func TestOneTrace(t *testing.T) {
	t.Parallel()
	c, site := collectortest.Start(t), newTold(t)
	in := newInstall(t, "OTEL_EXPORTER_OTLP_ENDPOINT="+c.URL, "OTEL_BSP_SCHEDULE_DELAY=3600000", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=2048")
	plan := filepath.Join(in.dir, "stoker.yaml")
	text := `version: 1
sources:
  - name: pages
    crawl: {base: "` + site.URL + `", urls: ["/a?token=` + canary + `", "/b?token=` + canary + `"], headers: {X-Release: "{{.Release}}"}}
    expect: {header: {X-Release: "{{.Release}}"}}
`
	if err := os.WriteFile(plan, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	worker := in.start("worker")
	in.must("release", "create", "r1")

	client, provider := tracedApp(t, in, c)
	ctx, save := provider.Tracer("app").Start(context.Background(), "save post")
	receipt, err := client.Invalidate(ctx, tasks.Invalidation{By: tasks.By{Actor: "ann", Reason: canary},
		Targets: []tasks.Target{{Kind: tasks.KindKey, Name: "post:" + canary}, {Kind: tasks.KindTag, Name: "tag:" + canary}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Wait(ctx, receipt); err != nil {
		t.Fatal(err)
	}
	save.End()

	carrier := propagation.MapCarrier{}
	ctx, deploy := provider.Tracer("app").Start(context.Background(), "deploy")
	propagation.TraceContext{}.Inject(ctx, carrier)
	in.must("release", "create", "r2")
	script := in.with("TRACEPARENT=" + carrier["traceparent"])
	script.run("warm", "r2", "--plan", plan, "--wait", "--reason", canary) // whatever its certificate says
	deploy.End()
	redistest.Eventually(t, "the invalidation's task to be done", func() bool { return in.queue.LLen(context.Background(), "asynq:{site.invalidate}:pending").Val() == 0 })
	worker.end(syscall.SIGTERM)

	root := c.Find("save post", func(s collectortest.Span) bool { return s.Name == "save post" })
	call := c.Under(root, "invalidate site")
	task := c.Under(c.Under(call, "enqueue cache:invalidate"), "process cache:invalidate")
	applied := c.Find("apply invalidations", func(s collectortest.Span) bool { return s.Name == "apply invalidations" })
	removal := c.Under(applied, "PIPELINE")
	if applied.Trace != root.Trace || applied.Parent != call.ID && applied.Parent != task.ID {
		t.Errorf("the removal is not a part of the call: %s", c.Tree(root.Trace))
	}
	if task.Service != "stoker-worker" || applied.Service != "stoker-worker" || call.Service != "blog" {
		t.Errorf("services %s, %s, %s", call.Service, task.Service, applied.Service)
	}
	if removal.Attributes["db.system.name"] != "redis" || removal.Attributes["server.port"] == "" {
		t.Errorf("the removal's attributes: %v", removal.Attributes)
	}

	script1 := c.Find("stoker warm", func(s collectortest.Span) bool { return s.Name == "stoker warm" })
	run := c.Under(c.Under(script1, "enqueue warm:run"), "process warm:run")
	batch := c.Under(c.Under(run, "enqueue warm:batch"), "process warm:batch")
	page := c.Find("a page under the batch", func(s collectortest.Span) bool {
		return s.Parent == batch.ID && strings.HasPrefix(s.Attributes["url.full"], site.URL+"/")
	})
	if script1.Trace != trace.SpanContextFromContext(ctx).TraceID().String() || script1.Service != "stoker" {
		t.Errorf("the command %s of %s is not a part of its script's trace", script1.Name, script1.Service)
	}
	if !site.told("00-" + page.Trace + "-" + page.ID + "-01") {
		t.Errorf("the origin was not told of span %s: %v", page.ID, site.parents)
	}
	c.Under(batch, "PIPELINE")
	for _, s := range c.Spans() {
		if strings.Contains(s.Text, canary) {
			t.Errorf("%s tells a secret: %s", s.Name, s.Text)
		}
	}
	t.Logf("\n%s\n%s", c.Tree(root.Trace), c.Tree(script1.Trace))
}

// TestTracedByHTTP: a call from an app in any language, which names its span, is a part of that trace.
func TestTracedByHTTP(t *testing.T) {
	t.Parallel()
	c := collectortest.Start(t)
	in := newInstall(t, "OTEL_EXPORTER_OTLP_ENDPOINT="+c.URL, "OTEL_BSP_SCHEDULE_DELAY=3600000")
	web := in.start("web")
	r, err := http.NewRequest("POST", "http://"+web.address()+"/v1/invalidations?token="+canary, strings.NewReader(`{"targets": [{"key": "`+canary+`"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		t.Errorf("status %d", resp.StatusCode)
	}
	web.end(syscall.SIGTERM)
	page := collectortest.Span{Name: "the page", ID: "b7ad6b7169203331", Trace: "0af7651916cd43dd8448eb211c80319c"}
	route := c.Under(page, "POST /v1/invalidations")
	c.Under(c.Under(route, "invalidate site"), "enqueue cache:invalidate")
	for _, s := range c.Spans() {
		if s.Service != "stoker-web" || strings.Contains(s.Text, canary) {
			t.Errorf("%s of %s: %s", s.Name, s.Service, s.Text)
		}
	}
}

// TestCollectorsHoldNothingUp: work is done, commands end and the worker drains while one collector says nothing
// and another is not there.
func TestCollectorsHoldNothingUp(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	release := make(chan struct{})
	hangs := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1); <-release }))
	defer hangs.Close()
	defer close(release)
	gone := httptest.NewServer(nil)
	gone.Close()
	for _, collector := range []string{hangs.URL, gone.URL} {
		in := newInstall(t, "OTEL_EXPORTER_OTLP_ENDPOINT="+collector, "OTEL_BSP_SCHEDULE_DELAY=1")
		worker := in.start("worker")
		in.must("release", "create", "r1")
		for range 3 {
			in.must("invalidate", "--key", "post:42", "--wait")
		}
		worker.end(syscall.SIGTERM)
		if text := worker.text(); !strings.Contains(text, "traces are not complete") || !strings.Contains(text, "worker stopped") {
			t.Errorf("%s: %s", collector, text)
		}
	}
	if asked.Load() == 0 {
		t.Error("nobody asked the collector that hangs")
	}
}

// TestTracesRefused: a variable that cannot work ends every command before it does anything.
func TestTracesRefused(t *testing.T) {
	t.Parallel()
	in := newInstall(t, "OTEL_EXPORTER_OTLP_ENDPOINT=collector")
	if _, msg, code := in.run("release", "create", "r1"); code != exitBadInput || !strings.Contains(msg, "OTEL_EXPORTER_OTLP_ENDPOINT is no address") {
		t.Errorf("exit code %d, %s", code, msg)
	}
	if n := in.queue.DBSize(context.Background()).Val(); n != 0 {
		t.Errorf("%d keys were written", n)
	}
}
