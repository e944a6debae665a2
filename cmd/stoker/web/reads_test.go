package web

import (
	"context"
	"encoding/json"
	"fmt"
	"html/template"
	"math"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
)

// exampleReads are what the pages of exampleLedger's releases show besides.
func exampleReads() Reads {
	return Reads{
		Reports: func(_ context.Context, n int) ([]json.RawMessage, error) { return exampleReports(min(n, 120)), nil },
		Schedule: func(context.Context) (Schedule, error) {
			return Schedule{Source: "From the file schedule.yml", Zone: "Europe/Berlin", Entries: []ScheduleEntry{
				{Name: "health", Task: tasks.TypeHealth, Cron: "* * * * *", Last: noon.Add(-20 * time.Second), Next: noon.Add(40 * time.Second)},
				{Name: "prune", Task: tasks.TypePrune, Cron: "41 3 * * *", Last: noon.Add(-56 * time.Hour), Next: noon.Add(15 * time.Hour), Missed: 2},
				{Name: "drill", Task: tasks.TypeDrill, Cron: "23 4 * * 0", Next: noon.Add(160 * time.Hour)},
			}}, nil
		},
		Note: func(_ context.Context, id string, notes *release.Notes) (string, error) {
			if id == "r99" {
				return "", fmt.Errorf("release %q: %w", id, tasks.ErrNotFound)
			}
			text := "# Release " + id + "\n\n- Owner: ann\n\n## Reason\n\nnew article template\n\n| figure | before | after |\n|---|---:|---:|\n| median | 21 ms | 18 ms |\n"
			if notes != nil {
				text += "\n## Given\n\n" + notes.Reason + "\n"
			}
			return text, nil
		},
		Measured: func(_ context.Context, rec release.Record) (Measured, error) {
			if rec.State != release.Active {
				return Measured{}, nil
			}
			return Measured{Titles: []string{"before", "after"}, Rows: [][]string{{"Requests", "600", "600"}, {"Median", "21 ms", "18 ms"}, {"95 %", "64 ms", "88 ms"}, {"Hit rate", "97.2 %", "96.8 %"}},
				Plots: []template.HTML{`<figure><svg viewBox="0 0 720 240" role="img" aria-label="Latency by share"><line class="grid" x1="64" y1="210" x2="624" y2="210"/><polyline class="curve before" points="64,200 344,180 624,90"/><polyline class="curve after" points="64,205 344,190 624,40"/><text class="after" x="632" y="44" text-anchor="start">after</text><text class="before" x="632" y="94" text-anchor="start">before</text></svg><figcaption>Latency by share</figcaption></figure>`}}, nil
		},
		WarmRun: func(context.Context, string) (WarmRun, error) {
			return WarmRun{Status: "running", Done: 812, Total: 1774, Sources: []WarmSource{
				{Name: "articles", Kind: "query", Total: 1502, Planned: 700, Stored: 697, Invalidated: 2, Failed: 1}, {Name: "pages", Kind: "crawl", Planned: 112, Stored: 112},
			}}, nil
		},
		Edits: func(context.Context, time.Time) (*int64, error) { n := int64(4821); return &n, nil },
	}
}

// exampleReports are n health reports, newest first, a minute apart.
func exampleReports(n int) []json.RawMessage {
	var all []json.RawMessage
	for i := range n {
		var r report
		if err := json.Unmarshal([]byte(exampleHealth), &r); err != nil {
			panic(err)
		}
		r.At = r.At.Add(-time.Duration(i) * time.Minute)
		for c := range r.Checks {
			r.Checks[c].Value *= 1 + math.Sin(float64(i)/7)/3
		}
		if i > 60 && i < 75 {
			r.Checks[0].Status = "fail"
		}
		raw, err := json.Marshal(r)
		if err != nil {
			panic(err)
		}
		all = append(all, raw)
	}
	return all
}
