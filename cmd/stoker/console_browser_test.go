package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/chromedp"

	"github.com/alphanode/stoker/worker/redistest"
)

// TestConsoleOfALife goes through the console of an installation that lives, in a real browser: every page shows
// what the rooms know, and a rollback by hand, from the first page on, is served. How long that took is told.
func TestConsoleOfALife(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: no browser")
	}
	bin, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium on the PATH")
	}
	s := newShopOf(t, 500)
	s.start("worker")
	s.start("scheduler")
	web := s.start("web")
	for _, id := range []string{"r1", "r2"} {
		s.must("release", "create", id, "--owner", "ann", "--why", "new <b>templates</b>")
		s.must("warm", id, "--wait")
		s.must("release", "activate", id, "--wait")
	}
	s.must("snapshot", "r1", "--wait")
	s.must("drill", "r1", "--wait")
	s.must("invalidate", "--tag", "post:post-00001", "--wait")
	s.must("health")
	var base string
	redistest.Eventually(t, "the console to listen", func() bool {
		if m := listensAt.FindStringSubmatch(web.text()); m != nil {
			base = "http://" + m[1]
		}
		return base != ""
	})

	b := openTab(t, bin)
	for _, p := range []struct{ name, path, text string }{
		{"now", "/", "Safe to roll back"}, {"releases", "/releases", "Timeline"}, {"release", "/releases/r1", "entries compared"}, {"served", "/releases/r2", "Warm by source"},
		{"invalidations", "/invalidations", "post:post-00001"}, {"health", "/health", "The plots show"}, {"schedule", "/schedule", "namespace:prune"},
		{"note", "/releases/r2/note", "<b>templates</b>"}, {"notes", "/releases/r2/notes", "Preview the note"}, {"expire", "/expire?release=r1", "verified archive"},
		{"snapshot", "/releases/r1/snapshot", "read back"}, {"drill", "/releases/r1/drill", "no visitor sees"}, {"pin", "/releases/r1/pin", "retention rule"},
	} {
		b.do(chromedp.Navigate(base + p.path))
		b.await(p.text)
		if dir := os.Getenv("STOKER_SCREENSHOTS"); dir != "" {
			shot, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, "life-"+p.name+".png"), shot, 0o600)
			}
			if err != nil {
				t.Error(err)
			}
		}
	}

	began := time.Now()
	b.do(chromedp.Navigate(base+"/"), chromedp.Click(`a[href="/rollback?to=r1"]`), chromedp.WaitVisible("#reason"),
		chromedp.SendKeys("#reason", "checkout is broken"), chromedp.Click("button.do"))
	b.await("r1 is served")
	t.Logf("from the page's loading to rolled back, by the console: %v", time.Since(began).Round(time.Millisecond))
	if got := s.state("r1"); got != "active" {
		t.Errorf("r1 is %s", got)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.problems) > 0 {
		t.Errorf("the browser complains: %q", b.problems)
	}
}

// tab is a Chromium that keeps account of its complaints.
type tab struct {
	*testing.T
	ctx context.Context

	mu       sync.Mutex
	problems []string
}

func openTab(t *testing.T, bin string) *tab {
	t.Helper()
	b := &tab{T: t}
	alloc, cancelAlloc := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(bin), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.WindowSize(1280, 900), chromedp.UserDataDir(t.TempDir()))...)
	ctx, cancel := chromedp.NewContext(alloc, chromedp.WithListener(func(event any) {
		if e, ok := event.(*log.EventEntryAdded); ok && (e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.problems = append(b.problems, e.Entry.Text+" "+e.Entry.URL)
		}
	}))
	b.ctx = ctx
	t.Cleanup(func() { _ = chromedp.Cancel(ctx); cancel(); cancelAlloc() })
	if _, err := chromedp.Call(ctx, log.Enable, cdp.Empty{}); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.Helper()
	limit, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	if err := chromedp.Do(limit, steps...); err != nil {
		b.Fatalf("chromium: %v", err)
	}
}

// await waits until the page shows a text.
func (b *tab) await(text string) {
	b.Helper()
	script := fmt.Sprintf(`document.readyState === "complete" && document.body.innerText.includes(%q)`, text)
	redistest.Eventually(b.T, "the page to show "+text, func() bool {
		shown, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](script))
		return err == nil && shown
	})
}
