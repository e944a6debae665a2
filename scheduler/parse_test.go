package scheduler

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphanode/stoker/tasks"
)

func TestParse(t *testing.T) {
	s, err := Parse([]byte(`
timezone: Europe/Berlin
entries:
  - name: health
    cron: "* * * * *"
    task: health:check
  - name: nightly-warm
    cron: "30 4 * * mon-fri"
    task: warm:run
    args: {release: active, sources: [articles, pages], sample: 0.5, reason: fresh for the morning}
  - name: gone
    cron: "0 5 * * *"
    task: namespace:expire
    args: {release: r1, no_snapshot: true}
`))
	if err != nil {
		t.Fatal(err)
	}
	if s.Location.String() != "Europe/Berlin" || len(s.Entries) != 3 {
		t.Fatalf("parsed %+v", s)
	}
	got, err := s.Entries[1].payload("r7", "the-run")
	want := &tasks.WarmRun{Run: "the-run", Release: "r7", Sources: []string{"articles", "pages"}, Sample: 0.5, By: tasks.By{Actor: Actor, Reason: "fresh for the morning"}}
	if diff := cmp.Diff(tasks.Payload(want), got); err != nil || diff != "" {
		t.Errorf("warm: %v (-want +got):\n%s", err, diff)
	}
	got, err = s.Entries[2].payload("r7", "")
	if diff := cmp.Diff(tasks.Payload(&tasks.Expire{Release: "r1", NoSnapshot: true, By: tasks.By{Actor: Actor}}), got); err != nil || diff != "" {
		t.Errorf("expire: %v (-want +got):\n%s", err, diff)
	}
	if s, err := Parse([]byte("entries: []")); err != nil || len(s.Entries) != 0 || s.Location != time.UTC {
		t.Errorf("an empty schedule: %+v, %v", s, err)
	}
}

// TestParseRefuses: every wrong file is refused with the line and a reason.
func TestParseRefuses(t *testing.T) {
	entry := func(rest string) string { return "entries:\n  - name: a\n    " + rest }
	for name, tt := range map[string]struct{ file, want string }{
		"empty":           {"", "no entries"},
		"no entries":      {"timezone: UTC\n", "line 1: no entries"},
		"not YAML":        {"entries:\n  - {", "line 2: "},
		"unknown field":   {"entries: []\nzone: UTC\n", `line 2: unknown field "zone"`},
		"duplicate field": {"entries: []\nentries: []\n", "line 2: "},
		"two documents":   {"entries: []\n---\nentries: []\n", "2 YAML documents"},
		"wrong kind":      {"timezone: UTC\nentries: 7\n", "line 2: "},
		"time zone":       {"timezone: Berlin\nentries: []\n", `line 1: timezone "Berlin": use a name such as Europe/Berlin`},
		"entry's field":   {entry("cron: 0 1 * * *\n    task: health:check\n    every: 5m\n"), `line 5: unknown field "every"`},
		"no name":         {"entries:\n  - cron: 0 1 * * *\n    task: health:check\n", `line 2: entry name ""`},
		"name":            {"entries:\n  - cron: 0 1 * * *\n    name: A b\n", `line 3: entry name "A b"`},
		"twice":           {"entries:\n  - {name: a, cron: 0 1 * * *, task: health:check}\n  - {name: a, cron: 0 1 * * *, task: health:check}\n", `line 3: name "a" is taken`},
		"interval":        {entry("cron: \"@every 5m\"\n    task: health:check\n"), `line 3: cron "@every 5m" of entry "a": intervals count from each process's start`},
		"shorthand":       {entry("cron: \"@daily\"\n    task: health:check\n"), "line 3: cron \"@daily\" of entry \"a\": use five fields"},
		"seconds":         {entry("cron: 0 0 1 * * *\n    task: health:check\n"), "line 3: cron \"0 0 1 * * *\" of entry \"a\": use five fields"},
		"own zone":        {entry("cron: TZ=UTC 0 1 * * *\n    task: health:check\n"), "line 3: "},
		"never":           {entry("cron: 0 0 30 2 *\n    task: health:check\n"), "line 3: cron \"0 0 30 2 *\" of entry \"a\": such a time never comes"},
		"task":            {entry("cron: 0 1 * * *\n    task: release:rollback\n"), `line 4: task "release:rollback" of entry "a": use one of [health:check `},
		"argument":        {entry("cron: 0 1 * * *\n    task: health:check\n    args:\n      depth: 3\n"), `line 6: args of entry "a": unknown field "depth"`},
		"argument's kind": {entry("cron: 0 1 * * *\n    task: namespace:expire\n    args: {no_snapshot: maybe}\n"), "line 5: args of entry \"a\": "},
		"actor":           {entry("cron: 0 1 * * *\n    task: health:check\n    args: {actor: ann}\n"), `line 5: args of entry "a": actor is set by the scheduler`},
		"missing":         {entry("cron: 0 1 * * *\n    task: namespace:snapshot\n"), `line 4: args of entry "a": release ""`},
		"payload's rule":  {entry("cron: 0 1 * * *\n    task: warm:run\n    args: {release: active, sample: 3}\n"), `line 5: args of entry "a": sample 3`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(tt.file))
			if !errors.Is(err, tasks.ErrInvalid) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v\nwant %s", err, tt.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(defaultFile)
	f.Add("entries:\n  - {name: a, cron: '@every 1s', task: x, args: {a: [1, {b: c}]}}")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse([]byte(text))
		if err != nil {
			if !errors.Is(err, tasks.ErrInvalid) {
				t.Errorf("%v does not wrap %v", err, tasks.ErrInvalid)
			}
			return
		}
		for _, e := range s.Entries {
			if _, err := e.payload("r1", "run"); err != nil {
				t.Errorf("entry %q passed and has no payload: %v", e.Name, err)
			}
		}
	})
}

func TestDefault(t *testing.T) {
	s := Default()
	now := at("2026-11-22T19:41:30Z")
	got := map[string]string{}
	for _, e := range s.Entries {
		got[e.Task] = s.Next(e, now).Format(time.RFC3339)
	}
	want := map[string]string{
		tasks.TypeHealth:    "2026-11-22T19:42:00Z",
		tasks.TypeFreshness: "2026-11-22T19:44:00Z",
		tasks.TypeExpire:    "2026-11-22T20:17:00Z",
		tasks.TypePrune:     "2026-11-23T03:41:00Z",
		tasks.TypeDrill:     "2026-11-29T04:23:00Z",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("next ticks (-want +got):\n%s", diff)
	}
}

// TestTicks: ticks follow the time zone's own clock; summer time moves their instants.
func TestTicks(t *testing.T) {
	s, err := Parse([]byte(`
timezone: Europe/Berlin
entries:
  - {name: daily, cron: "30 4 * * *", task: health:check}
  - {name: within, cron: "30 2 * * *", task: health:check}
  - {name: minutely, cron: "* * * * *", task: health:check}
  - {name: leap, cron: "0 0 29 2 *", task: health:check}
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		entry        int
		now          string
		latest, next string
	}{
		{0, "2026-03-28T12:00:00Z", "2026-03-28T03:30:00Z", "2026-03-29T02:30:00Z"}, // spring
		{0, "2026-10-24T12:00:00Z", "2026-10-24T02:30:00Z", "2026-10-25T03:30:00Z"}, // autumn
		{1, "2026-03-29T12:00:00Z", "2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z"}, // skipped
		{1, "2026-10-25T00:45:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"}, // twice
		{2, "2026-10-25T01:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:01:00Z"},
		{2, "2026-10-25T01:00:59Z", "2026-10-25T01:00:00Z", "2026-10-25T01:01:00Z"},
		{3, "2027-12-31T00:00:00Z", "2024-02-28T23:00:00Z", "2028-02-28T23:00:00Z"},
	} {
		e := s.Entries[tt.entry]
		latest, ok := s.Latest(e, at(tt.now))
		next := s.Next(e, at(tt.now))
		if !ok || !latest.Equal(at(tt.latest)) || !next.Equal(at(tt.next)) {
			t.Errorf("%s at %s: latest %v, next %v; want %s, %s", e.Name, tt.now, latest, next, tt.latest, tt.next)
		}
	}
}
