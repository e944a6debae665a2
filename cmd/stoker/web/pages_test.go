package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
)

func TestOverview(t *testing.T) {
	s := newSite(t, Config{}, nil)
	resp := s.ask("GET", "/")
	page := strings.Join(strings.Fields(body(t, resp)), " ")
	if resp.StatusCode != 200 {
		t.Errorf("status %d", resp.StatusCode)
	}
	for _, want := range []string{
		`<h2>Served now</h2> <p class="figure"><a href="/releases/r42">r42</a>`, `title="2026-11-22 10:00:00 UTC">2 h ago`, "1,777 entries, 12 MiB",
		`<h2>Safe to roll back</h2> <p class="figure good">Yes</p>`, `To <a href="/releases/r41">r41</a>: it is standby and fresh`,
		`<h2>Pending invalidations</h2> <p class="figure">2</p>`, "Oldest 3 s old.", "48,210 targets", "1795348800000000",
		`<p class="figure fair"><a href="/health">warn</a></p>`, "6 checks,", "set appendonly yes",
		`<tr role="row" class="served">`, `<span class="state standby">standby</span>`, `<span class="note">pinned</span>`,
		`<span class="verdict inconclusive">`, `title="in the archive">1,702`, "42 h ago",
		"<b>ann</b> tag pages: &lt;related&gt; block", "<code>tag author:ann</code>", `<code>prefix &#34;nav:\x00&#34;</code>`, "cms: post 42 edited",
		`<a href="/lanes/invalidate" title="Pause…">invalidate</a>`, `<a href="/lanes/upkeep" title="Pause…">upkeep</a>`,
		`<span class="verdict worse">worse</span> since its switch<br>2 of 7 looks, the next at`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if strings.Index(page, "queue.persistence") > strings.Index(page, "queue.answers") {
		t.Error("a check that warns stands below one that is ok")
	}
}

func TestEmptyApp(t *testing.T) {
	s := newSite(t, Config{}, nil, func(d *Deps) {
		d.Ledger = &fakeLedger{}
		d.Status = func(context.Context) (LogStatus, error) { return LogStatus{}, nil }
		d.Pending = func(context.Context, int) ([]Pending, error) { return nil, nil }
		d.Health = func(context.Context) (json.RawMessage, error) { return nil, nil }
		d.Rollback = func(context.Context) (Readiness, error) {
			return Readiness{Reason: "no release was active before."}, nil
		}
	})
	resp := s.ask("GET", "/")
	page := body(t, resp)
	for _, want := range []string{"stoker release create ID", "No release is active yet", "None so far.", "No report yet", `<p class="figure bad">No</p>`, "no release was active before."} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if resp.StatusCode != 200 || strings.Contains(page, "Not yet applied everywhere") {
		t.Errorf("status %d:\n%s", resp.StatusCode, page)
	}
}

func TestOverviewTellsWhatItCouldNotRead(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	s := newSite(t, Config{}, nil, func(d *Deps) {
		d.Ledger = &fakeLedger{err: errors.New("dial redis://ann:hunter2@queue:6379: refused")}
		d.Status = func(context.Context) (LogStatus, error) { <-hang; return LogStatus{}, nil } // deaf to its context
	})
	resp := s.ask("GET", "/")
	page := body(t, resp)
	if resp.StatusCode != 503 {
		t.Errorf("status %d, want 503", resp.StatusCode)
	}
	for _, want := range []string{"Releases could not be read: dial redis://***@queue:6379: refused", "Invalidation log could not be read: no answer within 2s", "Safe to roll back", "queue.persistence"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(page, "hunter2") {
		t.Error("the page shows a password")
	}
}

func TestReleasePage(t *testing.T) {
	s := newSite(t, Config{}, nil)
	page := strings.Join(strings.Fields(body(t, s.ask("GET", "/releases/r42"))), " ")
	for _, want := range []string{
		"<h1>r42", "first paint 200 ms sooner", "nothing to undo in the database", "<code>9c1f3e2</code>", "<code>static/article.css</code>",
		"<code>stoker release activate r42</code>", "release window", "certificate: pass", `<code>&lt;app&gt;:&lt;release&gt;:&lt;key&gt;</code>`,
		`<dt>Since its switch</dt><dd><span class="verdict worse">worse</span>`, `<dt>Watch</dt><dd>2 of 7 looks, the next at <time`,
		`<dt>Rolled back by itself</dt><dd>to <a href="/releases/r41">r41</a>: refused, not fresh`,
		"<summary>certificate</summary>", `&#34;verdict&#34;: &#34;pass&#34;`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if strings.Index(page, "release window") > strings.Index(page, "certificate: pass") {
		t.Error("the history is not newest first")
	}
	archived := body(t, s.ask("GET", "/releases/r40"))
	if strings.Contains(archived, "hunter2") || !strings.Contains(archived, "s3://***@bucket/site") {
		t.Error("the snapshot's document is not redacted")
	}
	if resp := s.ask("GET", "/releases/r99"); resp.StatusCode != 404 || !strings.Contains(body(t, resp), "No such release") {
		t.Errorf("unknown release: status %d", resp.StatusCode)
	}
}

func TestPagesEscape(t *testing.T) {
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(1)>`
	s := newSite(t, Config{}, nil, func(d *Deps) {
		d.App = evil
		d.Operator = &fakeOperator{refuse: fmt.Errorf("%w: %s", tasks.ErrRefused, evil)}
		d.Ledger = &fakeLedger{
			active: evil,
			records: []release.Record{
				{ID: evil, State: release.State(evil), CreatedAt: noon, ChangedAt: noon},
				{ID: "r1", State: release.Standby, Template: evil, Run: evil, CreatedAt: noon, ChangedAt: noon,
					Notes: release.Notes{Owner: evil, Reason: evil, Expected: evil, RollbackNote: evil, Revision: evil, Files: []string{evil}, Commands: []string{evil}},
					Docs: map[release.Doc]json.RawMessage{release.Doc(evil): json.RawMessage(`{"x": "` + strings.ReplaceAll(evil, `"`, `\"`) + `"}`), release.DocCertificate: json.RawMessage(`{"verdict": "<script>alert(1)</script>", "sources": [{"name": "<script>alert(1)</script>", "kind": "<img src=x>", "examples": ["<script>alert(1)</script>"]}]}`),
						release.DocSnapshot: json.RawMessage(`{"entries": 1, "verified_at": "2026-11-22T10:00:00Z"}`), release.DocDrill: json.RawMessage(`{"at": "2026-11-22T10:00:00Z", "why": "<script>alert(1)</script>"}`)}},
			},
			history: []release.Move{{At: noon, From: release.State(evil), To: release.Standby, Note: evil, By: tasks.By{Actor: evil, Reason: evil}}},
		}
		d.Pending = func(context.Context, int) ([]Pending, error) {
			return []Pending{{Number: 1, By: tasks.By{Actor: evil, Reason: evil}, Sample: []tasks.Target{{Kind: tasks.KindKey, Name: evil}}}}, nil
		}
		d.Rollback = func(context.Context) (Readiness, error) { return Readiness{To: evil, Reason: evil}, nil }
		d.Reads.Reports = func(context.Context, int) ([]json.RawMessage, error) {
			raw, err := json.Marshal(report{At: noon, Status: evil, Checks: []check{{evil, evil, evil, evil, 1}}})
			return []json.RawMessage{raw, raw}, err
		}
		d.Reads.Schedule = func(context.Context) (Schedule, error) {
			return Schedule{Source: evil, Zone: evil, Entries: []ScheduleEntry{{Name: evil, Task: evil, Cron: evil}}}, nil
		}
		d.Reads.WarmRun = func(context.Context, string) (WarmRun, error) {
			return WarmRun{Status: evil, Err: evil, Sources: []WarmSource{{Name: evil, Kind: evil, Total: 2, Planned: 1}}}, nil
		}
		d.Reads.Measured = func(context.Context, release.Record) (Measured, error) {
			return Measured{Titles: []string{evil}, Rows: [][]string{{evil, evil}}}, nil
		}
		d.Health = func(context.Context) (json.RawMessage, error) {
			return json.Marshal(report{Status: evil, Checks: []check{{evil, evil, evil, evil, 1}}})
		}
	})
	for _, path := range []string{"/", "/releases", "/releases/r1", "/releases/r1/notes", "/health", "/schedule", "/releases/r1/drill", "/releases/%22%3E%3Cscript%3Ealert(1)"} {
		page := body(t, s.ask("GET", path))
		if strings.Contains(page, "<script>") || strings.Contains(page, "<img src=x") {
			t.Errorf("%s is not escaped", path)
		}
		if !strings.Contains(page, "&lt;script&gt;alert(1)") {
			t.Errorf("%s does not show the text", path)
		}
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0 ms", 40 * time.Millisecond: "40 ms", 90 * time.Second: "90 s", 5 * time.Minute: "5 min", 119 * time.Minute: "119 min",
		26 * time.Hour: "26 h", 72 * time.Hour: "3 days",
	} {
		if got := short(d); got != want {
			t.Errorf("short(%v) = %q, want %q", d, got, want)
		}
	}
}

// TestFeed: the newest calls with what they removed, and those that a search finds; whatever a
// caller wrote is text.
func TestFeed(t *testing.T) {
	s := newSite(t, Config{}, nil)
	ask := func(query string) string {
		resp := s.ask("GET", "/invalidations"+query)
		if resp.StatusCode != 200 {
			t.Errorf("%q: status %d", query, resp.StatusCode)
		}
		return strings.Join(strings.Fields(body(t, resp)), " ")
	}
	all := ask("")
	for _, want := range []string{
		"<code>tag author:ann</code>", "cms: post 42 edited", "<code>tag author:&lt;b&gt;bob</code>", "1 from r41<br>1,200 from r42<br>", "2 ms",
		"no release was live", `<code>key &#34;\x00odd&#34;</code>`,
	} {
		if !strings.Contains(all, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if found := ask("?q=AUTHOR%3A%3Cb"); !strings.Contains(found, "1,200 from r42") || strings.Contains(found, "odd") || strings.Contains(found, "post 42") || !strings.Contains(found, `value="AUTHOR:&lt;b"`) {
		t.Errorf("a search for one target shows:\n%s", found)
	}
	if none := ask("?q=nobody"); !strings.Contains(none, "None of the newest 2 matches") {
		t.Errorf("a search for nothing shows:\n%s", none)
	}
	s = newSite(t, Config{}, nil, func(d *Deps) {
		d.Recent = func(context.Context, int) ([]tasks.Applied, error) { return nil, errors.New("queue Redis is away") }
	})
	if resp := s.ask("GET", "/invalidations"); resp.StatusCode != 503 || !strings.Contains(body(t, resp), "could not be read") {
		t.Errorf("without the queue Redis: status %d", resp.StatusCode)
	}
}

// TestPagesTell: what the pages of releases, health and schedule tell at a glance.
func TestPagesTell(t *testing.T) {
	s := newSite(t, Config{}, nil)
	for path, wants := range map[string][]string{
		"/releases":     {`<h2 id="timeline">Timeline</h2>`, `<rect class="span active"`, "States of the newest releases since 2026-11-22 09:00:00 UTC", `<span class="state archived">`, `<span class="key warming">`, `href="/expire"`},
		"/releases/r43": {"812 of 1,774", "700 of 1,502, 2 overtaken by edits", `1 failed`, `<progress max="1502" value="700" aria-label="articles">`, `href="/releases/r43/snapshot"`},
		"/releases/r42": {"4,821", "/tags/&lt;b&gt;old&lt;/b&gt;", "1 not found", "Before its switch, and now", `<svg viewBox="0 0 720 240" role="img" aria-label="Latency by share">`, `href="/releases/r42/note"`},
		"/releases/r40": {`<span class="verdict ok">good</span>`, "1,702 entries compared; a rollback takes about 3 s", `href="/releases/r40/drill"`, `href="/expire?release=r40"`},
		"/health":       {"120 reports since", `<rect class="fail"`, `aria-label="14 fail, 106 ok; value from`, `aria-label="120 warn"`, "set appendonly yes"},
		"/schedule":     {"Ticks have been missed", "<code>41 3 * * *</code>", "in 40 s", `class="right bad">2</td>`, "none yet", "Europe/Berlin"},
	} {
		resp := s.ask("GET", path)
		page := strings.Join(strings.Fields(body(t, resp)), " ")
		if resp.StatusCode != 200 {
			t.Errorf("%s: status %d", path, resp.StatusCode)
		}
		for _, want := range wants {
			if !strings.Contains(page, want) {
				t.Errorf("%s lacks %s", path, want)
			}
		}
	}
	if page := body(t, s.ask("GET", "/releases/r42")); strings.Contains(page, `href="/expire?release=r42"`) {
		t.Error("what is served is offered for expiry")
	}
}
