package web

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

// screenshotsDir is the variable that names a directory to keep the browser's pictures in.
const screenshotsDir = "STOKER_SCREENSHOTS"

// TestInBrowser looks at every page in a real Chromium: nothing may fail, break the content
// security policy or be loaded from elsewhere. It leaves a picture of each.
func TestInBrowser(t *testing.T) {
	bin := chromium(t)
	queue := redistest.Start(t)
	fillLanes(t, queue.Client)
	s := newSite(t, Config{}, queue.Client, func(d *Deps) {
		d.Operator = &fakeOperator{task: Task{State: TaskRuns, Phase: "restore", Done: 500, Total: 1702, Braked: "latency"}}
	})
	base := serve(t, s)
	b := openBrowser(t, bin, base)

	tests := []struct{ name, path, text string }{
		{"overview", "/", "Served now"},
		{"release", "/releases/r42", "first paint 200 ms sooner"},
		{"invalidations", "/invalidations", "post 42 edited"},
		{"absent", "/releases/r99", "No such release"},
		{"rollback", "/rollback", "flip of the pointer"},
		{"rollback-archive", "/rollback?to=r40", "restored from its snapshot"},
		{"lane", "/lanes/upkeep", "Resume the lane upkeep"},
		{"task", "/tasks/release:rollback/t-1", "500 of 1,702"},
		{"invalidate", "/invalidate?tags=post:42", "Show what it would remove"},
		{"releases", "/releases", "Timeline"},
		{"warming", "/releases/r43", "812 of 1,774"},
		{"archived", "/releases/r40", "1,702 entries compared"},
		{"health", "/health", "120 reports"},
		{"schedule", "/schedule", "Ticks have been missed"},
		{"note", "/releases/r42/note", "new article template"},
		{"notes", "/releases/r42/notes", "Preview the note"},
		{"expire", "/expire", "verified archive"},
		{"snapshot", "/releases/r41/snapshot", "read back"},
		{"drill", "/releases/r40/drill", "which no visitor sees"},
		{"pin", "/releases/r40/pin", "retention rule"},
		{"queues", "/queues/", "alpha.warm"},
		{"queue", "/queues/queues/alpha.warm?status=pending", "warm:batch"},
		{"servers", "/queues/servers", "Servers"},
		{"schedulers", "/queues/schedulers", "Scheduler"},
		{"redis", "/queues/redis", "Redis Info"},
	}
	for _, tt := range tests {
		var failed []string
		if tt.name == "absent" {
			failed = []string{"404"} // Chromium tells its console of every status above 399
		}
		b.visit(tt.name, tt.path, tt.text, failed...)
	}
	b.phone = true
	b.visit("overview-phone", "/", "Served now")
	b.visit("invalidations-phone", "/invalidations?q=author", "author:ann")
	b.visit("release-phone", "/releases/r42", "Moves")
	b.visit("rollback-phone", "/rollback", "flip of the pointer")
	b.visit("invalidate-phone", "/invalidate", "Show what it would remove")
	b.visit("releases-phone", "/releases", "Timeline")
	b.visit("warming-phone", "/releases/r43", "812 of 1,774")
	b.visit("health-phone", "/health", "120 reports")
	b.visit("schedule-phone", "/schedule", "Ticks have been missed")
	b.visit("notes-phone", "/releases/r42/notes", "Preview the note")
	b.dark, b.phone = true, false
	b.visit("overview-dark", "/", "Served now")
	b.visit("releases-dark", "/releases", "Timeline")
	b.visit("release-dark", "/releases/r42", "Moves")
	b.visit("health-dark", "/health", "120 reports")
	b.visit("notes-dark", "/releases/r42/notes", "Preview the note")
}

// TestSignedInByBrowser is asked to sign in, does so with the scope view, waits for the page to show
// by itself what has changed, and signs out.
func TestSignedInByBrowser(t *testing.T) {
	bin := chromium(t)
	ready := make(chan string, 1)
	ready <- "first reason"
	s := newSite(t, Config{WebTokensFile: tokensFile(t)}, nil, rollbackReason(ready))
	fillLanes(t, s.deps.Queue)
	base := serve(t, s)
	b := openBrowser(t, bin, base)
	b.visit("signin", "/releases/r42", "Sign in", "401") // Chromium tells its console of every status above 399
	b.phone = true
	b.visit("signin-phone", "/signin?next=/invalidations", "Sign in")
	b.phone = false
	b.do(chromedp.Navigate(base+"/"), chromedp.SetValue("#token", viewSecret), chromedp.Submit("#token"))
	b.await("first reason")
	b.visit("overview-signed-in", "/", "Sign out", "401") // of the page that asked
	<-ready
	ready <- "second reason"
	b.await("second reason")
	b.visit("queues-view", "/queues/", "alpha.warm")
	if get(b, chromedp.Evaluate[bool](`document.body.innerText.includes("Actions")`)) {
		t.Error("asynqmon offers actions to the scope view")
	}
	b.visit("overview-view", "/", "Sign out")
	b.do(chromedp.Click("form.who button"))
	b.await("Token")
	if get(b, chromedp.Evaluate[bool](`document.body.innerText.includes("alpha")`)) {
		t.Error("the page for signing in tells the app's name")
	}
}

// TestActsInBrowser rolls back in two clicks and a reason, with scripts and without, and watches the task's
// page come to its end by itself.
func TestActsInBrowser(t *testing.T) {
	bin := chromium(t)
	for _, scripts := range []bool{true, false} {
		op := &fakeOperator{task: Task{State: TaskRuns, Phase: "flip"}}
		s := newSite(t, Config{}, nil, func(d *Deps) { d.Operator = op })
		b := openBrowser(t, bin, serve(t, s))
		call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !scripts})
		b.do(chromedp.Navigate(b.base+"/"), chromedp.Click(`a[href="/rollback?to=r41"]`), chromedp.WaitVisible("#reason"),
			chromedp.SendKeys("#reason", "checkout is broken"), chromedp.Click("button.do"), chromedp.WaitVisible(`[role="status"]`))
		op.mu.Lock()
		done := slices.Clone(op.done)
		op.task = Task{State: TaskDone, Result: []byte(`{"from":"r42","to":"r41","via":"standby","fresh_as_of":17,"seconds":0.004}`)}
		op.mu.Unlock()
		if want := `release:rollback {"v":1,"to":"r41","actor":"local","reason":"checkout is broken"}`; len(done) != 1 || done[0] != want {
			t.Errorf("scripts %v: done %q, want %s once", scripts, done, want)
		}
		b.do(chromedp.WaitVisible("details.document")) // the report, which ends the page's reading again
		b.mu.Lock()
		if len(b.problems) > 0 {
			t.Errorf("scripts %v: %q", scripts, b.problems)
		}
		b.mu.Unlock()
	}
}

// TestEditsNotesInBrowser previews and saves notes, with scripts and without, by keyboard alone.
func TestEditsNotesInBrowser(t *testing.T) {
	bin := chromium(t)
	for _, scripts := range []bool{true, false} {
		op := &fakeOperator{}
		s := newSite(t, Config{}, nil, func(d *Deps) { d.Operator = op })
		b := openBrowser(t, bin, serve(t, s))
		call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !scripts})
		b.do(chromedp.Navigate(b.base+"/releases/r43"), chromedp.Focus(`a[href="/releases/r43/notes"]`), chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible("#reason"),
			chromedp.SendKeys("#reason", ": a **bold** step"),
			chromedp.Focus(`button[value="preview"]`), chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible(".preview strong"))
		b.complain("preview")
		if len(op.done) > 0 {
			t.Errorf("scripts %v: the preview has saved %q", scripts, op.done)
		}
		b.do(chromedp.Focus(`button[value="save"]`), chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible("#moves"))
		op.mu.Lock()
		if len(op.done) != 1 || !strings.Contains(op.done[0], ": a **bold** step") {
			t.Errorf("scripts %v: done %q", scripts, op.done)
		}
		op.mu.Unlock()
		b.complain("saved")
	}
}

// TestLiveInBrowser: what changes shows by itself, leaves the keyboard where it is and what is unfolded open, and
// waits while somebody types.
func TestLiveInBrowser(t *testing.T) {
	bin := chromium(t)
	var mu sync.Mutex
	edits := int64(4821)
	s := newSite(t, Config{}, nil, func(d *Deps) {
		d.Reads.Edits = func(context.Context, time.Time) (*int64, error) {
			mu.Lock()
			defer mu.Unlock()
			n := edits
			return &n, nil
		}
	})
	b := openBrowser(t, bin, serve(t, s))
	b.do(chromedp.Navigate(b.base + "/releases/r42"))
	b.await("4,821")
	get(b, chromedp.Evaluate[any](`document.querySelector("details.document").open = true; document.querySelector('a[href="/releases/r42/notes"]').focus(); null`))
	mu.Lock()
	edits = 5000
	mu.Unlock()
	b.await("5,000")
	for what, script := range map[string]string{
		"the keyboard's place":   `document.activeElement.getAttribute("href") === "/releases/r42/notes"`,
		"what has been unfolded": `document.querySelector("details.document").open`,
	} {
		if !get(b, chromedp.Evaluate[bool](script)) {
			t.Errorf("a change has lost %s", what)
		}
	}
	b.complain("live")
}

// complain fails the test with whatever has gone wrong since the last look.
func (b *browser) complain(name string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.problems {
		b.t.Errorf("%s: %s", name, p)
	}
	b.problems = nil
}

// chromium returns the browser's path, or skips the test where there is none.
func chromium(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: the pages were not looked at in a browser")
	}
	bin, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium on the PATH: the pages were not looked at in a browser")
	}
	return bin
}

// rollbackReason makes a rollback's reason what is in the channel, which holds one text.
func rollbackReason(current chan string) func(*Deps) {
	return func(d *Deps) {
		d.Rollback = func(context.Context) (Readiness, error) {
			reason := <-current
			current <- reason
			return Readiness{Reason: reason}, nil
		}
	}
}

// fillLanes puts tasks into the lanes, one of them paused.
func fillLanes(t *testing.T, queue redis.UniversalClient) {
	t.Helper()
	client := asynq.NewClientFromRedisClient(queue)
	for i := range 30 {
		raw, err := tasks.Encode(tasks.WarmBatch{Run: "w-7f3a", Release: "r43", Source: "articles", From: i * 50, To: i*50 + 50})
		if err != nil {
			t.Fatal(err)
		}
		lane, opts := tasks.LaneWarm, []asynq.Option{}
		if i > 26 {
			lane, opts = tasks.LaneUpkeep, append(opts, asynq.ProcessIn(time.Hour))
		}
		if _, err := client.Enqueue(asynq.NewTask(tasks.TypeWarmBatch, raw), append(opts, asynq.Queue(lane.Queue("alpha")))...); err != nil {
			t.Fatal(err)
		}
	}
	if err := asynq.NewInspectorFromRedisClient(queue).PauseQueue(tasks.LaneUpkeep.Queue("alpha")); err != nil {
		t.Fatal(err)
	}
}

// serve runs the console for the test's time and returns its address.
func serve(t *testing.T, s *site) string {
	t.Helper()
	listener := listen(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return "http://" + listener.Addr().String()
}

// browser is a Chromium that keeps account of what goes wrong in it.
type browser struct {
	t           *testing.T
	ctx         context.Context
	base, dir   string
	phone, dark bool

	mu       sync.Mutex
	problems []string
}

func openBrowser(t *testing.T, bin, base string) *browser {
	t.Helper()
	dir := os.Getenv(screenshotsDir)
	if dir == "" {
		dir = t.ArtifactDir()
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(bin), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-component-update", true), chromedp.Flag("hide-scrollbars", true), chromedp.UserDataDir(t.TempDir()))
	b := &browser{t: t, base: base, dir: dir}
	alloc, cancelAlloc := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(alloc, chromedp.WithListener(b.listen))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the browser's last complaints: %q", b.problems)
		}
		limit, stop := context.WithTimeout(ctx, 10*time.Second)
		defer stop()
		if err := chromedp.Cancel(limit); err != nil && !errors.Is(err, context.Canceled) {
			t.Logf("close chromium: %v", err)
		}
		cancel()
		cancelAlloc()
	})
	b.ctx = ctx
	call(b, log.Enable, cdp.Empty{})
	call(b, network.Enable, network.EnableParams{})
	call(b, audits.Enable, cdp.Empty{})
	return b
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	limit, cancel := context.WithTimeout(b.ctx, 60*time.Second)
	defer cancel()
	if err := chromedp.Do(limit, steps...); err != nil {
		b.t.Fatalf("chromium: %v", err)
	}
}

func call[P, R any](b *browser, command cdp.Command[P, R], params P) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, command, params); err != nil {
		b.t.Fatalf("chromium: %s: %v", command.Method, err)
	}
}

func get[T any](b *browser, action chromedp.Action[T]) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, action)
	if err != nil {
		b.t.Fatalf("chromium: %v", err)
	}
	return v
}

// await waits until the page shows a text.
func (b *browser) await(text string) {
	b.t.Helper()
	script := fmt.Sprintf(`document.readyState === "complete" && document.body.innerText.includes(%q)`, text)
	redistest.Eventually(b.t, "the page to show "+text, func() bool { return get(b, chromedp.Evaluate[bool](script)) })
}

// listen notes whatever a page must not do.
func (b *browser) listen(event any) {
	switch e := event.(type) {
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			b.note("log: %s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL)
		}
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			b.note("console: %s %s", e.Type, e.Args[0].Value)
		}
	case *runtime.EventExceptionThrown:
		b.note("exception: %s %s", e.ExceptionDetails.Text, e.ExceptionDetails.URL)
	case *audits.EventIssueAdded:
		if d := e.Issue.Details.ContentSecurityPolicyIssueDetails; d != nil {
			b.note("policy: %s %s %s", d.ContentSecurityPolicyViolationType, d.ViolatedDirective, d.BlockedURL)
		}
	case *network.EventRequestWillBeSent:
		if u, err := url.Parse(e.Request.URL); err != nil || u.Scheme != "data" && u.Scheme != "about" && u.Scheme+"://"+u.Host != b.base {
			b.note("request to another host: %s", e.Request.URL)
		}
	}
}

func (b *browser) note(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problems = append(b.problems, fmt.Sprintf(format, args...))
}

// visit opens a page, waits for a text, takes a picture, and fails the test with whatever
// went wrong and holds none of the expected texts.
func (b *browser) visit(name, path, text string, expected ...string) {
	b.t.Helper()
	width, height, scheme := int64(1280), int64(900), "light"
	if b.phone {
		width, height = 390, 844
	}
	if b.dark {
		scheme = "dark"
	}
	call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1, Mobile: b.phone})
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
	b.do(chromedp.Navigate(b.base + path))
	b.await(text)
	if get(b, chromedp.Evaluate[bool](`document.documentElement.scrollWidth > document.documentElement.clientWidth`)) {
		b.t.Errorf("%s: wider than the window", name)
	}
	if err := os.WriteFile(filepath.Join(b.dir, name+".png"), get(b, chromedp.FullScreenshot(100)), 0o644); err != nil {
		b.t.Error(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
problems:
	for _, p := range b.problems {
		for _, e := range expected {
			if strings.Contains(p, e) {
				continue problems
			}
		}
		b.t.Errorf("%s: %s", name, p)
	}
	b.problems = nil
}
