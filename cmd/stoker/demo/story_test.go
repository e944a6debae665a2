package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm"
)

// openDemo is a demo over the in-process stoker, told fast.
func openDemo(t *testing.T, m *memory, out *bytes.Buffer) *Demo {
	t.Helper()
	t.Setenv("PATH", t.TempDir())
	t.Setenv(DSNVariable, "")
	o := DefaultOptions()
	o.Latency, o.Visitors, o.Rate = 0, 2, 500
	o.Articles = write(t, "a.jsonl", jsonArticles(12))
	o.Events = write(t, "e.jsonl", jsonEvents())
	d, err := Open(t.Context(), o, Wiring{
		Client: m.client, Active: m.Active, Redis: start(t, EmbeddedRedis), Operator: m, Log: quiet(), Out: out,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	d.tempo = tempo{dwell: 20 * time.Millisecond, storm: 1e6, calm: 100, before: 20, after: 15, whileArchived: 10}
	return d
}

func jsonArticles(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"slug":"a/%d","title":"T%d","body_markdown":"text","tags":["t%d"],"authors":["w%d"],"updated":"2024-01-01"}`+"\n", i, i, i%3, i%2)
	}
	return b.String()
}

func jsonEvents() string {
	return `{"changes":[{"op":"M","slug":"a/1"}]}
{"changes":[{"op":"A","slug":"new"},{"op":"D","slug":"a/2"}]}
{"changes":[{"op":"R","slug":"a/2","from":"new"}]}
`
}

func TestStory(t *testing.T) {
	var out bytes.Buffer
	m := newMemory()
	d := openDemo(t, m, &out)
	report, err := d.Run(t.Context())
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if len(report.Phases) != 9 || report.Edits < 45 || report.Articles != 12 {
		t.Errorf("report: %+v", report)
	}
	for _, p := range report.Phases {
		if p.Stoker.Rest.Pages < 12 || p.Stoker.Entries == 0 || p.Stoker.Seen.Requests == 0 && p.Edits == 0 {
			t.Errorf("phase %q shows nothing: %+v", p.Name, p)
		}
	}
	if fully := report.Phases[0].Stoker.Rest; fully.Cached != fully.Pages {
		t.Errorf("after the first warm %d of %d pages are cached", fully.Cached, fully.Pages)
	}
	for _, want := range []string{"goes live as release r1", "r1 is back from archive", "at rest:", "hits", "plain", "# r2"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the story does not say %q:\n%s", want, out.String())
		}
	}
}

func TestStoryFindsALostInvalidation(t *testing.T) {
	var out bytes.Buffer
	m := newMemory()
	m.forget = "post:"
	report, err := openDemo(t, m, &out).Run(t.Context())
	if !errors.Is(err, ErrFaults) {
		t.Errorf("got %v, report %+v", err, report)
	}
}

// refusing is stoker with one step that fails.
type refusing struct {
	*memory
}

func (refusing) Archive(context.Context, string, string, Watch) (Archived, error) {
	return Archived{}, fmt.Errorf("archive: %w", tasks.ErrRefused)
}

func TestStoryEndsWithAFailedStep(t *testing.T) {
	var out bytes.Buffer
	d := openDemo(t, newMemory(), &out)
	d.wire.Operator = refusing{d.wire.Operator.(*memory)}
	report, err := d.Run(t.Context())
	if !errors.Is(err, tasks.ErrRefused) || len(report.Phases) != 8 {
		t.Errorf("got %v after %d phases", err, len(report.Phases))
	}
}

func TestPlanIsOneThatStokerReads(t *testing.T) {
	for _, carry := range []bool{false, true} {
		text, err := plan("http://127.0.0.1:1", "http://127.0.0.1:2", []string{"/", "/a/b"}, carry)
		if err != nil {
			t.Fatal(err)
		}
		p, err := warm.ParsePlan(text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if want := map[bool]int{false: 2, true: 3}[carry]; len(p.Sources) != want {
			t.Errorf("%d sources, want %d", len(p.Sources), want)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"one file":    func(o *Options) { o.Articles = "x" },
		"no visitors": func(o *Options) { o.Visitors = 0 },
		"no rate":     func(o *Options) { o.Rate = 0 },
		"slow":        func(o *Options) { o.Latency = time.Minute },
		"no file":     func(o *Options) { o.Articles, o.Events = "no such", "file" },
	} {
		o := DefaultOptions()
		change(&o)
		if _, err := Open(t.Context(), o, Wiring{}); !errors.Is(err, tasks.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEditorStopsWhenAnEditCannotSettle(t *testing.T) {
	store := openStore(t, tiny())
	e := &editor{store: store, truth: NewTruth(tiny().Articles), caches: []Cache{unsettled{}}, history: tiny().Events}
	err := e.storm(t.Context(), 1000, 1e6, func(int64, int64) {})
	if !errors.Is(err, tasks.ErrFull) || e.truth.Settled() != 0 || e.made > 2*inFlight {
		t.Errorf("got %v after %d edits, settled %d", err, e.made, e.truth.Settled())
	}
}

type unsettled struct{ Cache }

func (unsettled) Invalidate(context.Context, []string, string) (func(context.Context) error, error) {
	return func(context.Context) error { return tasks.ErrFull }, nil
}

func TestTrickleLeavesMassEditsToTheStorm(t *testing.T) {
	mass := Event{}
	for i := range massEdit {
		mass.Changes = append(mass.Changes, Change{Op: Add, Slug: fmt.Sprint("x", i)})
	}
	c := tiny()
	e := &editor{store: openStore(t, c), truth: NewTruth(c.Articles), history: []Event{mass, c.Events[0]}}
	stop := e.trickle(t.Context(), 1e6)
	eventually(t, "the history has started over", func() bool { return e.truth.Settled() >= 3 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if alive, _ := e.truth.Slugs(); len(alive) != 2 {
		t.Errorf("a mass edit has been made: %q", alive)
	}
	if err := e.storm(t.Context(), 1, 1e6, func(int64, int64) {}); err != nil {
		t.Fatal(err)
	}
	if alive, _ := e.truth.Slugs(); len(alive) != 2+massEdit {
		t.Errorf("the storm did not begin with the mass edit: %q", alive)
	}
}

func TestBarTellsQuartersWithoutATerminal(t *testing.T) {
	var out bytes.Buffer
	watch, end := teller{out: &out}.bar("warm")
	for i := range int64(101) {
		watch(i, 100)
	}
	watch(5, 0)
	end()
	if got := out.String(); got != "  warm: 25 of 100\n  warm: 50 of 100\n  warm: 75 of 100\n" {
		t.Errorf("got %q", got)
	}
	out.Reset()
	watch, end = teller{out: &out, terminal: true}.bar("warm")
	watch(0, 0)
	watch(50, 100)
	watch(100, 100)
	end()
	if !strings.Contains(out.String(), "warm") {
		t.Errorf("no bar: %q", out.String())
	}
}
