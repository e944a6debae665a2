package freshness

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
)

const (
	// Window is what the nines speak of: all looks of a day.
	Window = 24 * time.Hour
	// shownStale is how many stale entries a report names.
	shownStale = 20
)

// Report is one look at every place.
type Report struct {
	At      time.Time `json:"at"`
	Confirm bool      `json:"confirm,omitempty"` // only suspects were looked at
	Places  []Result  `json:"places"`
}

// Stale returns how many entries of all places are confirmed to be stale.
func (r Report) Stale() int {
	n := 0
	for _, row := range r.Places {
		n += row.Stale
	}
	return n
}

// Result is what a look showed of one place.
type Result struct {
	Release string        `json:"release"`
	State   release.State `json:"state"`
	Archive string        `json:"archive,omitempty"` // the archive looked at; "" for the namespace
	Problem string        `json:"problem,omitempty"` // why it could not be looked at

	// Of this look. What was sampled was compared, was not comparable or overtaken, or is under
	// suspicion already.
	Sampled       int `json:"sampled"`
	Compared      int `json:"compared"`
	NotComparable int `json:"not_comparable"`
	Gone          int `json:"gone"`      // of those not comparable: the plan's query has no such row
	Overtaken     int `json:"overtaken"` // invalidated, expired or removed while it was looked at
	Confirmed     int `json:"confirmed"` // comparisons that proved to be stale by this look

	// As of this look.
	Suspects int     `json:"suspects"` // differing, not confirmed
	Stale    int     `json:"stale"`    // confirmed, and not repaired
	Tag      *Tag    `json:"tag,omitempty"`
	Entries  []Entry `json:"entries,omitempty"` // the stale ones that were found first
	Day      Tally   `json:"day"`
}

// Entry is a stale entry and the smallest tag that lists it; without one only its key names it.
type Entry struct {
	Key   tasks.Bytes `json:"key"`
	Tag   *Tag        `json:"tag,omitempty"`
	Since time.Time   `json:"since"`
	Stale time.Time   `json:"stale"` // when it was confirmed
}

// Remedy is the target of the invalidation that removes the place's stale entries: their smallest common
// tag, or the first one's key. false when nothing is stale.
func (n Result) Remedy() (tasks.Target, bool) {
	switch {
	case n.Tag != nil:
		return tasks.Target{Kind: tasks.KindTag, Name: n.Tag.Name}, true
	case len(n.Entries) > 0:
		return n.Entries[0].Remedy(), true
	}
	return tasks.Target{}, false
}

// Remedy is the target of the invalidation that removes the entry.
func (e Entry) Remedy() tasks.Target {
	if e.Tag != nil {
		return tasks.Target{Kind: tasks.KindTag, Name: e.Tag.Name}
	}
	return tasks.Target{Kind: tasks.KindKey, Name: e.Key}
}

// finish completes the place's row: the suspects as they are now, and the day's figure.
func (l *looking) finish(history []Report) Result {
	row := l.row
	var stale []Suspect
	for _, s := range l.known {
		if s.confirmed() {
			stale = append(stale, s)
		}
	}
	slices.SortFunc(stale, func(a, b Suspect) int {
		return cmp.Or(a.Since.Compare(b.Since), strings.Compare(string(a.Key), string(b.Key)))
	})
	row.Stale, row.Suspects = len(stale), len(l.known)-len(stale)
	row.Tag = explained(stale)
	for _, s := range stale[:min(shownStale, len(stale))] {
		row.Entries = append(row.Entries, Entry{Key: s.Key, Tag: explained([]Suspect{s}), Since: s.Since, Stale: s.Stale})
	}
	row.Day = tally(row, l.at, history)
	return row
}

func explained(stale []Suspect) *Tag {
	if t, ok := smallest(stale); ok {
		return &t
	}
	return nil
}

// Latest returns the newest report, or an error that wraps [tasks.ErrNotFound] when there is none.
func (m *Monitor) Latest(ctx context.Context) (Report, error) {
	reports, err := m.History(ctx, 1)
	if err != nil {
		return Report{}, err
	}
	if len(reports) == 0 {
		return Report{}, fmt.Errorf("%w: no freshness report yet: run `stoker freshness --now`, or start a worker and a scheduler", tasks.ErrNotFound)
	}
	return reports[0], nil
}

// History returns up to n reports, newest first.
func (m *Monitor) History(ctx context.Context, n int) ([]Report, error) {
	raw, err := m.d.Queue.LRange(ctx, m.d.Keys.Freshness(), 0, int64(n)-1).Result()
	if err != nil {
		return nil, fmt.Errorf("read freshness reports: %w", err)
	}
	reports := make([]Report, len(raw))
	for i, text := range raw {
		if err := json.Unmarshal([]byte(text), &reports[i]); err != nil {
			return nil, fmt.Errorf("read freshness report %d: %w", i, err)
		}
	}
	return reports, nil
}

// keep stores a report as the newest and drops the oldest beyond the cap.
func (m *Monitor) keep(ctx context.Context, r Report) error {
	text, err := json.Marshal(r)
	if err == nil {
		_, err = m.d.Queue.TxPipelined(ctx, func(p redis.Pipeliner) error {
			p.LPush(ctx, m.d.Keys.Freshness(), text)
			p.LTrim(ctx, m.d.Keys.Freshness(), 0, int64(m.cfg.FreshnessKeep)-1)
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("store freshness report: %w", err)
	}
	return nil
}
