package web

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/alphanode/stoker/worker/redistest"
)

// axeFile is the variable that names axe-core's script, which `make accessibility` fetches.
const axeFile = "STOKER_TEST_AXE"

// TestAccessible has axe-core judge every page of stoker's own, light and dark, wide and narrow, by the
// rules of WCAG 2.2 up to AA and axe's best practices.
func TestAccessible(t *testing.T) {
	path := os.Getenv(axeFile)
	if path == "" {
		t.Skipf("%s is not set: `make accessibility` fetches axe-core and sets it", axeFile)
	}
	axe, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bin := chromium(t)
	queue := redistest.Start(t)
	fillLanes(t, queue.Client)
	s := newSite(t, Config{}, queue.Client, func(d *Deps) {
		d.Operator = &fakeOperator{task: Task{State: TaskRuns, Phase: "restore", Done: 500, Total: 1702}}
	})
	b := openBrowser(t, bin, serve(t, s))
	closed := openBrowser(t, bin, serve(t, newSite(t, Config{WebTokensFile: tokensFile(t)}, nil)))
	pages := []struct {
		browser    *browser
		path, text string
	}{
		{b, "/", "Served now"}, {b, "/releases/r42", "Moves"}, {b, "/releases/r99", "No such release"}, {b, "/invalidations", "Applied"},
		{b, "/releases", "Timeline"}, {b, "/releases/r43", "812 of 1,774"}, {b, "/releases/r40", "entries compared"}, {b, "/releases/r42/note", "new article template"},
		{b, "/releases/r42/notes", "Preview the note"}, {b, "/health", "120 reports"}, {b, "/schedule", "Ticks have been missed"}, {b, "/expire", "verified archive"},
		{b, "/rollback", "flip of the pointer"}, {b, "/lanes/warm", "Pause"}, {b, "/tasks/release:rollback/t-1", "500 of 1,702"},
		{b, "/invalidate", "Show what it would remove"}, {closed, "/signin", "Token"},
	}
	for _, p := range pages {
		for _, look := range []struct {
			scheme string
			width  int64
		}{{"light", 1280}, {"dark", 1280}, {"light", 390}} {
			call(p.browser, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: look.width, Height: 900, DeviceScaleFactor: 1, Mobile: look.width < 500})
			call(p.browser, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: look.scheme}}})
			p.browser.do(chromedp.Navigate(p.browser.base + p.path))
			p.browser.await(p.text)
			get(p.browser, chromedp.Evaluate[any](string(axe)+"; axe.run().then(r => { window.axeFound = JSON.stringify(r.violations.map(v => ({id: v.id, impact: v.impact, help: v.help, at: v.nodes.map(n => n.target.join(' ') + ': ' + n.failureSummary)}))); window.axePasses = r.passes.length }); null"))
			redistest.Eventually(t, "axe-core", func() bool {
				return get(p.browser, chromedp.Evaluate[bool]("window.axeFound !== undefined"))
			})
			var found []struct {
				ID, Impact, Help string
				At               []string
			}
			if err := json.Unmarshal([]byte(get(p.browser, chromedp.Evaluate[string]("window.axeFound"))), &found); err != nil {
				t.Fatal(err)
			}
			if n := get(p.browser, chromedp.Evaluate[int]("window.axePasses")); n < 5 {
				t.Errorf("%s: only %d rules passed: was the page there?", p.path, n)
			}
			for _, v := range found {
				t.Errorf("%s, %s, %d wide: %s (%s): %s\n%q", p.path, look.scheme, look.width, v.ID, v.Impact, v.Help, v.At)
			}
		}
	}
	closed.problems, b.problems = nil, nil // statuses over 399, which were meant
}
