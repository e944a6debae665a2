package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

func TestQueuesPage(t *testing.T) {
	s := newSite(t, Config{WebTokensFile: tokensFile(t)}, nil)
	pages := map[string]string{}
	for name, as := range map[string]func(*http.Request){"view": basic("vera", viewSecret), "operate": basic("otto", operateSecret)} {
		resp := s.ask("GET", "/queues/queues/alpha.warm/tasks/page.js", as) // an address inside the UI
		page := body(t, resp)
		pages[name] = page
		if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
			t.Errorf("%s: status %d, type %q", name, resp.StatusCode, resp.Header.Get("Content-Type"))
		}
		for _, unwanted := range []string{"googleapis", "http://", "https://", `"//`, "manifest"} {
			if strings.Contains(page, unwanted) {
				t.Errorf("%s: the page holds %q", name, unwanted)
			}
		}
		if got := strings.Count(resp.Header.Get("Content-Security-Policy"), "'sha256-"); got != strings.Count(page, "<script>") || got == 0 {
			t.Errorf("%s: %d hashes for %d inline scripts", name, got, strings.Count(page, "<script>"))
		}
	}
	if !strings.Contains(pages["view"], `FLAG_READ_ONLY="true"`) || !strings.Contains(pages["operate"], `FLAG_READ_ONLY="false"`) {
		t.Error("the read-only flag does not follow the scope")
	}
}

func TestQueuesAssetTypes(t *testing.T) {
	s := newSite(t, Config{}, nil)
	page := body(t, s.ask("GET", "/queues/"))
	_, rest, _ := strings.Cut(page, `src="`)
	script, _, _ := strings.Cut(rest, `"`)
	for path, want := range map[string]string{
		script: "text/javascript; charset=utf-8", "/queues/favicon.ico": "image/x-icon", "/queues/favicon-32x32.png": "image/png",
	} {
		resp := s.ask("GET", path)
		if got := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || got != want {
			t.Errorf("%s: status %d, type %q, want %q", path, resp.StatusCode, got, want)
		}
	}
}

func TestDetach(t *testing.T) {
	got := string(detach([]byte(`<link rel="stylesheet" href="https://fonts.example/a.css"/><link href="//cdn/x"><link rel="icon" href="/queues/i.png"/><link rel="manifest" href="/queues/m.json"/>`)))
	if want := `<link rel="icon" href="/queues/i.png"/>`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, bad := range []string{`<script src="https://x/y.js">`, `<img SRC='//x'>`, `<a href= http://x>`} {
		if !outside.MatchString(bad) {
			t.Errorf("%s passes for the page's own", bad)
		}
	}
}

func TestQueuesRedactAndBound(t *testing.T) {
	queue := redistest.Mini(t)
	client := asynq.NewClientFromRedisClient(queue)
	for i := range maxPageSize + 5 {
		payload := fmt.Sprintf(`{"v":1,"run":"r%d","dsn":"postgres://ann:hunter2@db/site","password":"hunter2"}`, i)
		if _, err := client.EnqueueContext(context.Background(), asynq.NewTask("warm:batch", []byte(payload)), asynq.Queue("alpha.warm")); err != nil {
			t.Fatal(err)
		}
	}
	s := newSite(t, Config{}, queue)
	got := body(t, s.ask("GET", "/queues/api/queues/alpha.warm/pending_tasks?size=1000000&page=1"))
	if strings.Contains(got, "hunter2") || !strings.Contains(got, `\"run\":\"r7\"`) {
		t.Errorf("tasks are not shown redacted: %.300s", got)
	}
	if n := strings.Count(got, `"type":"warm:batch"`); n != maxPageSize {
		t.Errorf("%d tasks in one answer, want %d", n, maxPageSize)
	}
}

// TestQueuesMetrics: asynqmon asks Prometheus for what a viewer may see, and the page does not tell where that is.
func TestQueuesMetrics(t *testing.T) {
	var asked atomic.Value
	asked.Store("")
	prometheus := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(asked.Load().(string) + r.URL.Path + " " + r.URL.Query().Get("query") + "\n")
		_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"matrix","result":[]}}`)
	}))
	defer prometheus.Close()
	defer http.DefaultClient.CloseIdleConnections()
	s := newSite(t, Config{WebTokensFile: tokensFile(t), PrometheusURL: prometheus.URL}, nil)
	viewer := basic("vera", viewSecret)
	page := body(t, s.ask("GET", "/queues/q/metrics", viewer))
	if !strings.Contains(page, `FLAG_PROMETHEUS_SERVER_ADDRESS="set"`) || strings.Contains(page, "http://") {
		t.Errorf("the page: %.300s", page)
	}
	if resp := s.ask("GET", "/queues/api/metrics"); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a token: %d", resp.StatusCode)
	}
	resp := s.ask("GET", "/queues/api/metrics?duration=3600&queues=alpha.warm,alpha.release", viewer)
	if answer := body(t, resp); resp.StatusCode != 200 || !strings.Contains(answer, `"queue_size":{"status":"success"`) {
		t.Errorf("%d %s", resp.StatusCode, answer)
	}
	for _, name := range []string{"tasks_enqueued_total", "queue_size", "queue_latency_seconds", "queue_memory_usage_approx_bytes", "tasks_processed_total", "tasks_failed_total"} {
		if !strings.Contains(asked.Load().(string), "/api/v1/query_range ") || !strings.Contains(asked.Load().(string), "asynq_"+name) {
			t.Errorf("asynq_%s is not asked for: %s", name, asked.Load())
		}
	}
	asked.Store("")
	for _, evil := range []string{`x"} or up{a="`, "a b", "alpha.warm,", "{}"} {
		if resp := s.ask("GET", "/queues/api/metrics?queues="+url.QueryEscape(evil), viewer); resp.StatusCode != http.StatusBadRequest || asked.Load() != "" {
			t.Errorf("%q: %d, and Prometheus was asked %q", evil, resp.StatusCode, asked.Load())
		}
	}
	prometheus.Close()
	resp = s.ask("GET", "/queues/api/metrics", viewer)
	if answer := body(t, resp); resp.StatusCode != http.StatusBadGateway || strings.Contains(answer, "127.0.0.1") || !strings.Contains(answer, "STOKER_PROMETHEUS_URL") {
		t.Errorf("without Prometheus: %d %s", resp.StatusCode, answer)
	}
	without := newSite(t, Config{}, nil)
	if resp := without.ask("GET", "/queues/api/metrics"); resp.StatusCode != http.StatusNotFound || strings.Contains(body(t, without.ask("GET", "/queues/")), `ADDRESS="set"`) {
		t.Errorf("without an address: %d", resp.StatusCode)
	}
}

// TestQueuesMetricsBounded: a Prometheus that says nothing is asked by so many at a time and no more.
func TestQueuesMetricsBounded(t *testing.T) {
	release := make(chan struct{})
	prometheus := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { <-release; _, _ = io.WriteString(w, "{}") }))
	defer prometheus.Close()
	defer http.DefaultClient.CloseIdleConnections()
	ui, err := newQueuesUI(redistest.Mini(t), prometheus.URL, true)
	if err != nil {
		t.Fatal(err)
	}
	var under sync.WaitGroup
	ask := func(ctx context.Context) int {
		w := httptest.NewRecorder()
		ui.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/queues/api/metrics", nil))
		return w.Code
	}
	for range mostAsks {
		under.Go(func() { ask(context.Background()) })
	}
	redistest.Eventually(t, "all places to be taken", func() bool { return len(ui.asks) == mostAsks })
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	before := len(ui.asks)
	ask(gone)
	if len(ui.asks) != before {
		t.Error("one more was let in")
	}
	close(release)
	under.Wait()
	if code := ask(context.Background()); code != 200 {
		t.Errorf("afterwards: %d", code)
	}
}

// TestPrometheusAddress: one that cannot work is refused, and its password is not repeated.
func TestPrometheusAddress(t *testing.T) {
	for _, address := range []string{"prometheus:9090", "http://", "ftp://h", "http://ann:hunter2@h:9090", "http://ann:hun%zzhunter2@h"} {
		err := Config{WebAddr: "127.0.0.1:0", WebSession: time.Hour, PrometheusURL: address}.Validate()
		if !errors.Is(err, tasks.ErrInvalid) || !strings.Contains(err.Error(), "STOKER_PROMETHEUS_URL") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", address, err)
		}
	}
}
