package web

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/hibiken/asynq"

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
