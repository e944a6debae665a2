package scheduler

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
	_ "time/tzdata" // time zones on machines without them

	"github.com/redis/go-redis/v9"
	"github.com/robfig/cron/v3"

	"github.com/alphanode/stoker/tasks"
)

// Actor is who asks for every scheduled task.
const Actor = "scheduler"

// activeRelease, as an argument, stands for the release that is active at the tick.
const activeRelease = "active"

// Schedule is a checked set of entries.
type Schedule struct {
	Location *time.Location
	Entries  []Entry
}

// Entry is one line of a schedule.
type Entry struct {
	Name string // unique in its schedule
	Cron string // minute, hour, day of month, month, day of week
	Task string // task type
	Args []byte // JSON object: the payload's fields as the file has them

	ticks cron.Schedule
}

// payloads makes an empty payload of each task type that a schedule may hold. What is not here
// belongs to a moment or a decision, not to a clock.
var payloads = map[string]func() tasks.Payload{
	tasks.TypeHealth:    func() tasks.Payload { return &tasks.Health{} },
	tasks.TypeFreshness: func() tasks.Payload { return &tasks.Freshness{} },
	tasks.TypeExpire:    func() tasks.Payload { return &tasks.Expire{} },
	tasks.TypePrune:     func() tasks.Payload { return &tasks.Prune{} },
	tasks.TypeSnapshot:  func() tasks.Payload { return &tasks.Snapshot{} },
	tasks.TypeDrill:     func() tasks.Payload { return &tasks.Drill{} },
	tasks.TypeBaseline:  func() tasks.Payload { return &tasks.Baseline{} },
	tasks.TypeWarmRun:   func() tasks.Payload { return &tasks.WarmRun{} },
}

// Default is the schedule of an app that has no file.
func Default() Schedule {
	s, err := Parse([]byte(defaultFile))
	if err != nil {
		panic(err) // a test parses it
	}
	return s
}

// The minutes of all but the first are chosen apart from everybody else's full hour.
const defaultFile = `
timezone: UTC
entries:
  - {name: health, cron: "* * * * *", task: health:check}
  - {name: freshness, cron: "4-59/10 * * * *", task: health:freshness}
  - {name: expire, cron: "17 * * * *", task: namespace:expire}
  - {name: prune, cron: "41 3 * * *", task: namespace:prune}
  - {name: drill, cron: "23 4 * * 0", task: snapshot:drill}
`

// Load reads a schedule's file, or returns [Default] when path is "".
func Load(path string) (Schedule, error) {
	if path == "" {
		return Default(), nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return Schedule{}, fmt.Errorf("%w: read schedule: %v (STOKER_SCHEDULE)", tasks.ErrInvalid, err)
	}
	s, err := Parse(raw)
	if err != nil {
		return Schedule{}, fmt.Errorf("schedule %q: %w", path, err)
	}
	return s, nil
}

// payload makes the task's body. release replaces [activeRelease], run names a warm run.
func (e Entry) payload(release, run string) (tasks.Payload, error) {
	body := map[string]any{}
	if err := json.Unmarshal(e.Args, &body); err != nil {
		return nil, fmt.Errorf("%w: %v", tasks.ErrInvalid, err)
	}
	body["actor"] = Actor
	if e.follows() {
		body["release"] = release
	}
	if e.Task == tasks.TypeWarmRun {
		body["run"] = run
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", tasks.ErrInvalid, err)
	}
	p := payloads[e.Task]()
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(p); err != nil {
		return nil, fmt.Errorf("%w: %s", tasks.ErrInvalid, strings.TrimPrefix(err.Error(), "json: "))
	}
	return p, p.Validate()
}

// follows reports whether the entry's release is the one that is active at the tick.
func (e Entry) follows() bool {
	var args struct {
		Release string `json:"release"`
	}
	return json.Unmarshal(e.Args, &args) == nil && args.Release == activeRelease
}

// Next returns the entry's first tick after t.
func (s Schedule) Next(e Entry, t time.Time) time.Time { return e.ticks.Next(t.In(s.Location)).UTC() }

// Latest returns the entry's last tick up to t; false when there was none in five years.
func (s Schedule) Latest(e Entry, t time.Time) (tick time.Time, ok bool) {
	const furthest = 5 * 366 * 24 * time.Hour
	// A window that just reaches back to the last tick holds few others before it.
	for back := 2 * time.Minute; back < 8*furthest; back *= 8 {
		for next := s.Next(e, t.Add(-back)); !next.IsZero() && !next.After(t); next = s.Next(e, next) {
			tick, ok = next, true
		}
		if ok {
			return tick, true
		}
	}
	return time.Time{}, false
}

// Run is what a person wants to know of an entry.
type Run struct {
	Entry  string    `json:"entry"`
	Task   string    `json:"task"`
	Cron   string    `json:"cron"`
	Last   time.Time `json:"last,omitzero"`    // tick enqueued last
	Next   time.Time `json:"next"`             // zero when there is none in five years
	Missed int       `json:"missed,omitempty"` // ticks since the last that are over a minute late, up to [MostMissed]
}

// MostMissed is how far missed ticks are counted.
const MostMissed = 1000

// Runs lists the entries with their last and next tick, in the schedule's order and time zone.
func (s Schedule) Runs(ctx context.Context, queue redis.Cmdable, keys tasks.Keys, now time.Time) ([]Run, error) {
	last, err := ticks{queue, keys}.all(ctx)
	if err != nil {
		return nil, err
	}
	runs := make([]Run, 0, len(s.Entries))
	for _, e := range s.Entries {
		r := Run{Entry: e.Name, Task: e.Task, Cron: e.Cron}
		if next := s.Next(e, now); !next.IsZero() {
			r.Next = next.In(s.Location)
		}
		if t, ok := last[e.Name]; ok {
			r.Last, r.Missed = t.In(s.Location), s.missed(e, t, now)
		}
		runs = append(runs, r)
	}
	return runs, nil
}

// missed counts an entry's ticks after last that should have been enqueued by now. Schedulers catch up
// twice a minute, so what is a minute old is late.
func (s Schedule) missed(e Entry, last, now time.Time) (n int) {
	for t := s.Next(e, last); !t.IsZero() && now.Sub(t) > time.Minute && n < MostMissed; t = s.Next(e, t) {
		n++
	}
	return n
}
