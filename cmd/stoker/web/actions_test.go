package web

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/release"
)

// fakeOperator keeps what it was asked to do.
type fakeOperator struct {
	refuse error // of rollbacks and switches

	mu   sync.Mutex
	done []string
	task Task
}

var _ Operator = (*fakeOperator)(nil)

func (f *fakeOperator) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = append(f.done, fmt.Sprintf(format, args...))
}

func (f *fakeOperator) MayRollback(context.Context, string) error { return f.refuse }
func (f *fakeOperator) MayActivate(context.Context, string) error { return f.refuse }

func (f *fakeOperator) Enqueue(_ context.Context, p tasks.Payload) (string, error) {
	raw, err := tasks.Encode(p)
	f.note("%s %s", p.TaskType(), raw)
	return "t-1", err
}

func (f *fakeOperator) Task(_ context.Context, taskType, id string) (Task, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if id != "t-1" {
		return Task{}, fmt.Errorf("task %q: %w", id, tasks.ErrNotFound)
	}
	return f.task, nil
}

func (f *fakeOperator) Pause(_ context.Context, lane tasks.Lane, paused bool) error {
	f.note("pause %s %v", lane, paused)
	return nil
}

func (f *fakeOperator) Preview(_ context.Context, targets []tasks.Target) ([]invalidation.Preview, error) {
	return []invalidation.Preview{{Release: "r42", Entries: int64(1200 * len(targets)), Bytes: 1 << 20, Sample: []tasks.Bytes{"page:<b>", "\x00odd"}}}, nil
}

func (f *fakeOperator) MaySnapshot(context.Context, string) error { return f.refuse }
func (f *fakeOperator) MayDrill(context.Context, string) error    { return f.refuse }

func (f *fakeOperator) PlanExpiry(_ context.Context, id string) ([]Expiry, error) {
	if f.refuse != nil {
		return nil, f.refuse
	}
	return []Expiry{{Release: cmp.Or(id, "r41"), From: release.Standby, To: release.Archived, Why: "beyond STOKER_RETAIN_STANDBY 1", Entries: 1777, Bytes: 12_600_000}}, nil
}

func (f *fakeOperator) Pin(_ context.Context, id string, pinned bool, by tasks.By) error {
	f.note("pin %s %v by %s: %s", id, pinned, by.Actor, by.Reason)
	return nil
}

func (f *fakeOperator) SetNotes(_ context.Context, id string, n release.Notes, by tasks.By) error {
	f.note("notes %s by %s: %+v", id, by.Actor, n)
	return nil
}

// operated is a console with an operator, and a browser without scripts that is signed in to operate.
func operated(t *testing.T, change ...func(*Deps)) (*site, *fakeOperator, *visitor) {
	t.Helper()
	op := &fakeOperator{task: Task{State: TaskRuns, Phase: "restore", Done: 500, Total: 1702}}
	s := newSite(t, Config{WebTokensFile: tokensFile(t)}, nil, append(change, func(d *Deps) { d.Operator = op })...)
	v := newVisitor(t, serve(t, s))
	v.page("/signin", url.Values{"token": {operateSecret}})
	return s, op, v
}

var hiddenField = regexp.MustCompile(`<input type="hidden" name="([a-z]+)" value="([^"]*)">`)

// form returns the hidden fields of a page, as a browser would send them, with a reason.
func form(page, reason string) url.Values {
	values := url.Values{"reason": {reason}}
	for _, m := range hiddenField.FindAllStringSubmatch(page, -1) {
		values.Set(m[1], m[2])
	}
	return values
}

// TestActions: without scripts, each action shows its plan, asks for a reason, is done, and leads to where it
// can be watched.
func TestActions(t *testing.T) {
	ready := func(d *Deps) {
		l := exampleLedger()
		l.records[0].State = release.Ready
		d.Ledger = l
	}
	tests := []struct {
		path string
		plan []string // texts
		next string
		done string
	}{
		{"/rollback", []string{"<h1>Roll back to r41</h1>", "r42 is served until r41 is ready to be", "flip of the pointer: about 1 s", "2 invalidations are under way", ">Roll back to r41</button>"},
			"/tasks/release:rollback/t-1", `release:rollback {"v":1,"to":"r41","actor":"otto","reason":"checkout is broken"}`},
		{"/rollback?to=r40", []string{"<h1>Roll back to r40</h1>", "restored from its snapshot of 2026-11-20 18:00 UTC, 1,702 entries", "about 3 s, as its last good drill measured 7 h ago"},
			"/tasks/release:rollback/t-1", `release:rollback {"v":1,"to":"r40","actor":"otto","reason":"checkout is broken"}`},
		{"/releases/r43/activate", []string{"<h1>Serve r43</h1>", "r42 goes on standby"},
			"/tasks/release:activate/t-1", `release:activate {"v":1,"release":"r43","actor":"otto","reason":"checkout is broken"}`},
		{"/lanes/warm", []string{"<h1>Pause the lane warm</h1>", "0 tasks wait now"}, "/", "pause warm true"},
		{"/expire", []string{"r41 is written to a verified archive and leaves Redis: 1,777 entries", "beyond STOKER_RETAIN_STANDBY 1"},
			"/tasks/namespace:expire/t-1", `namespace:expire {"v":1,"actor":"otto","reason":"checkout is broken"}`},
		{"/expire?release=r40", []string{"<h1>Expire r40</h1>"},
			"/tasks/namespace:expire/t-1", `namespace:expire {"v":1,"release":"r40","actor":"otto","reason":"checkout is broken"}`},
		{"/releases/r41/snapshot", []string{"Its 1,777 entries, 12 MiB, are written to an archive", "takes the place of the one of 2026-11-22 07:00 UTC"},
			"/tasks/namespace:snapshot/t-1", `namespace:snapshot {"v":1,"release":"r41","actor":"otto","reason":"checkout is broken"}`},
		{"/releases/r40/drill", []string{"Its archive of 2026-11-20 18:00 UTC, 1,702 entries", "no visitor sees"},
			"/tasks/snapshot:drill/t-1", `snapshot:drill {"v":1,"release":"r40","actor":"otto","reason":"checkout is broken"}`},
		{"/releases/r40/pin", []string{"<h1>Pin r40</h1>"}, "/releases/r40", "pin r40 true by otto: checkout is broken"},
		{"/releases/r41/pin", []string{"<h1>Unpin r41</h1>"}, "/releases/r41", "pin r41 false by otto: checkout is broken"},
		{"/lanes/invalidate", []string{"every worker still applies"}, "/", "pause invalidate true"},
	}
	for _, tt := range tests {
		t.Run(tt.path, func(t *testing.T) {
			s, op, v := operated(t, ready)
			status, _, page := v.page(tt.path, nil)
			for _, want := range tt.plan {
				if !strings.Contains(page, want) {
					t.Errorf("the plan lacks %q", want)
				}
			}
			if t.Failed() {
				t.Fatalf("status %d:\n%s", status, page)
			}
			if status, _, text := v.page(tt.path, form(page, " \n")); status != 422 || !strings.Contains(text, "say why") || len(op.done) > 0 {
				t.Errorf("without a reason: status %d, done %q", status, op.done)
			}
			if status, _, text := v.page(tt.path, form(page, "a\x07b")); status != 422 || !strings.Contains(text, "control characters") || len(op.done) > 0 {
				t.Errorf("with a bell in the reason: status %d, done %q", status, op.done)
			}
			status, at, text := v.page(tt.path, form(page, "checkout is broken"))
			if status != 200 || at != tt.next {
				t.Errorf("status %d at %s\n%s", status, at, text)
			}
			if diff := gocmp.Diff([]string{tt.done}, op.done); diff != "" {
				t.Errorf("done (-want +got):\n%s", diff)
			}
			if want := `msg="console action" actor=otto`; !strings.Contains(s.logged.String(), want) || !strings.Contains(s.logged.String(), `reason="checkout is broken"`) {
				t.Errorf("the log does not tell of it:\n%s", s.logged)
			}
		})
	}
}

// TestActionOfAnotherMoment: what was planned is done only while what it rests on is as it was: a second
// click, or a colleague's switch in between, does nothing.
func TestActionOfAnotherMoment(t *testing.T) {
	ledger := exampleLedger()
	_, op, v := operated(t, func(d *Deps) { d.Ledger = ledger })
	_, _, page := v.page("/rollback?to=r41", nil)
	sent := form(page, "checkout is broken")
	ledger.active = "r43" // nothing asks it at the same time
	if status, _, text := v.page("/rollback?to=r41", sent); status != 409 || !strings.Contains(text, "things have changed") || !strings.Contains(text, "checkout is broken") {
		t.Errorf("after a colleague's switch: status %d\n%s", status, text)
	}
	sent.Set("subject", "r40")
	if status, _, _ := v.page("/rollback?to=r41", sent); status != 409 {
		t.Errorf("another subject: status %d", status)
	}
	if status, _, _ := v.page("/rollback?to=r41", url.Values{"reason": {"no plan was looked at"}}); status != 409 {
		t.Errorf("without a plan: status %d", status)
	}
	if len(op.done) > 0 {
		t.Errorf("done all the same: %q", op.done)
	}
}

func TestActionRefused(t *testing.T) {
	_, op, v := operated(t)
	op.refuse = fmt.Errorf("%w: its log is another one: dial redis://u:hunter2@queue", tasks.ErrNotFresh)
	for _, path := range []string{"/rollback", "/releases/r43/activate", "/releases/r41/snapshot", "/releases/r40/drill"} {
		_, _, page := v.page(path, nil)
		if !strings.Contains(page, "would be refused now") || strings.Contains(page, "<button class=\"do\"") || strings.Contains(page, "hunter2") {
			t.Errorf("%s:\n%s", path, page)
		}
		if status, _, _ := v.page(path, url.Values{"reason": {"all the same"}}); status != 409 {
			t.Errorf("%s: status %d", path, status)
		}
	}
	for _, path := range []string{"/rollback?to=r99", "/rollback?to=%3Cb%3E", "/releases/r99/activate", "/releases/r99/snapshot", "/releases/r99/drill", "/releases/r99/pin", "/releases/r99/notes", "/expire?release=%3Cb%3E", "/lanes/none"} {
		if status, _, text := v.page(path, nil); status != 404 || strings.Contains(text, "<b>") {
			t.Errorf("%s: status %d, want 404", path, status)
		}
	}
	if len(op.done) > 0 {
		t.Errorf("done all the same: %q", op.done)
	}
}

func TestTaskPage(t *testing.T) {
	_, op, v := operated(t)
	tests := []struct {
		task Task
		want []string
		ends bool
	}{
		{Task{State: TaskWaits}, []string{"No worker has taken it up yet"}, false},
		{Task{State: TaskRuns, Phase: "restore", Done: 500, Total: 1702, Braked: "latency"}, []string{"restore: 500 of 1,702", `<progress max="1702" value="500"`, "slower than its pace: latency"}, false},
		{Task{State: TaskRetries, Err: "dial redis://u:hunter2@queue: <b>refused"}, []string{"is tried again", "dial redis://***@queue: &lt;b&gt;refused"}, false},
		{Task{State: TaskFailed, Err: "not fresh"}, []string{"failed", "not fresh"}, true},
		{Task{State: TaskDone, Result: []byte(`{"from":"r42","to":"r41","via":"standby","fresh_as_of":17,"seconds":0.004,"token":"hunter2"}`)}, []string{"r41 is served, from standby, after 4 ms. It is fresh as of number 17.", "fresh_as_of"}, true},
	}
	for _, tt := range tests {
		op.mu.Lock()
		op.task = tt.task
		op.mu.Unlock()
		status, _, page := v.page("/tasks/release:rollback/t-1", nil)
		for _, want := range tt.want {
			if !strings.Contains(page, want) {
				t.Errorf("%s: status %d, no %q in\n%s", tt.task.State, status, want, page)
			}
		}
		if strings.Contains(page, "hunter2") || strings.Contains(page, "data-live") == tt.ends || strings.Contains(page, `http-equiv="refresh"`) == tt.ends {
			t.Errorf("%s:\n%s", tt.task.State, page)
		}
	}
	if status, _, _ := v.page("/tasks/release:rollback/t-2", nil); status != 404 {
		t.Errorf("a task that nobody knows: status %d", status)
	}
}

// TestInvalidatePage: first what it would remove, then, with a reason, the deed; and never other targets
// than those that were shown.
func TestInvalidatePage(t *testing.T) {
	var recorded []tasks.Invalidation
	fail := error(nil)
	_, _, v := operated(t, func(d *Deps) {
		d.Invalidate = func(_ context.Context, call tasks.Invalidation) (tasks.Receipt, error) {
			recorded = append(recorded, call)
			return tasks.Receipt{Number: 17}, fail
		}
	})
	typed := url.Values{"tags": {"post:42\r\nauthor:ann\r\n\r\n"}, "keys": {""}, "prefixes": {"nav:"}, "step": {"plan"}}
	_, _, page := v.page("/invalidate", typed)
	if !strings.Contains(page, "3,600") || !strings.Contains(page, "page:&lt;b&gt;") || len(recorded) > 0 {
		t.Fatalf("the dry run shows, having recorded %v:\n%s", recorded, page)
	}
	send := func(change func(url.Values)) (int, string, string) {
		values := form(page, "wrong price")
		for name, v := range typed {
			values[name] = v
		}
		values.Set("step", "do")
		change(values)
		return v.page("/invalidate", values)
	}
	send(func(v url.Values) { v.Set("tags", "post:43") })
	send(func(v url.Values) { v.Set("reason", "") })
	send(func(v url.Values) { v.Del("seen") })
	if status, _, text := send(func(v url.Values) { v.Set("tags", ""); v.Set("prefixes", "") }); status != 422 || !strings.Contains(text, "name a key, a tag or a prefix") {
		t.Errorf("no targets: status %d\n%s", status, text)
	}
	if len(recorded) > 0 {
		t.Fatalf("recorded what was not shown, or without a reason: %v", recorded)
	}
	if status, at, _ := send(func(url.Values) {}); status != 200 || at != "/invalidations" {
		t.Errorf("status %d at %s", status, at)
	}
	want := []tasks.Invalidation{{Targets: []tasks.Target{{Kind: tasks.KindTag, Name: "post:42"}, {Kind: tasks.KindTag, Name: "author:ann"}, {Kind: tasks.KindPrefix, Name: "nav:"}},
		By: tasks.By{Actor: "otto", Reason: "wrong price"}}}
	if diff := gocmp.Diff(want, recorded); diff != "" {
		t.Errorf("recorded (-want +got):\n%s", diff)
	}
	fail = tasks.ErrNotEnqueued
	if status, at, _ := send(func(url.Values) {}); status != 200 || at != "/invalidations" {
		t.Errorf("left to the sweep: status %d at %s", status, at)
	}
	fail = errors.New("the queue Redis is away")
	if status, _, text := send(func(url.Values) {}); status != 503 || !strings.Contains(text, "may or may not be recorded") {
		t.Errorf("without the queue Redis: status %d\n%s", status, text)
	}
}

// TestOffers: the pages offer actions to who may operate, and to nobody else.
func TestOffers(t *testing.T) {
	s, _, v := operated(t)
	for path, offer := range map[string]string{"/": `href="/rollback?to=r41"`, "/releases/r40": `href="/rollback?to=r40"`, "/invalidations": `href="/invalidate"`} {
		if _, _, page := v.page(path, nil); !strings.Contains(page, offer) {
			t.Errorf("%s does not offer %s", path, offer)
		}
		if page := body(t, s.ask("GET", path, basic("vera", viewSecret))); strings.Contains(page, offer) || strings.Contains(page, `href="/lanes/`) {
			t.Errorf("%s offers %s to a viewer", path, offer)
		}
	}
	if _, _, page := v.page("/releases/r42", nil); strings.Contains(page, "/rollback") {
		t.Error("a rollback to what is served is offered")
	}
}
