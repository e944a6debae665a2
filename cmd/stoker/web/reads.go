package web

import (
	"context"
	"encoding/json"
	"html/template"
	"time"

	"github.com/alphanode/stoker/worker/release"
)

// Reads are what the pages read beside what the API reads, too. Its functions are safe for concurrent use and
// return when their context ends; all are required.
type Reads struct {
	// Reports returns up to n health reports as JSON, newest first.
	Reports func(ctx context.Context, n int) ([]json.RawMessage, error)
	// Schedule lists the schedule's entries.
	Schedule func(ctx context.Context) (Schedule, error)
	// Note writes a release's final note as Markdown; notes, unless nil, stand in for the release's own.
	Note func(ctx context.Context, id string, notes *release.Notes) (string, error)
	// Measured tells how the site behaved before a release and under it.
	Measured func(ctx context.Context, rec release.Record) (Measured, error)
	// WarmRun says how far a warm run has come, or an error that wraps [tasks.ErrNotFound].
	WarmRun func(ctx context.Context, run string) (WarmRun, error)
	// Edits counts the invalidations recorded since a moment; nil when the log no longer tells.
	Edits func(ctx context.Context, since time.Time) (*int64, error)
}

// Schedule is what schedulers go by.
type Schedule struct {
	Source  string // the file, or that there is none
	Zone    string
	Entries []ScheduleEntry
}

// ScheduleEntry is one line of a schedule.
type ScheduleEntry struct {
	Name, Task, Cron string
	Last, Next       time.Time // zero: never
	Missed           int       // ticks since the last that nobody has enqueued
}

// Measured is a table of figures and the plots of them.
type Measured struct {
	Titles []string
	Rows   [][]string // a name, and a cell a title
	Plots  []template.HTML
}

// WarmRun is how far a warm run has come.
type WarmRun struct {
	Status      string
	Err         string
	Over        bool
	Done, Total int64 // entries; Total 0 means unknown
	Sources     []WarmSource
}

// WarmSource is one source's part of a run.
type WarmSource struct {
	Name, Kind                           string
	Total                                int64 // 0 means unknown
	Planned, Stored, Invalidated, Failed int64
}
