package health

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// Status is the answer to one check.
type Status string

// The answers, lightest first.
const (
	OK      Status = "ok"
	Unknown Status = "unknown" // the server would not say; not a failure
	Warn    Status = "warn"    // works today; needs someone's attention
	Fail    Status = "fail"    // something that users of the site rely on is broken or at risk
)

var weight = map[Status]int{OK: 0, Unknown: 1, Warn: 2, Fail: 3}

// Check is one question with its answer.
type Check struct {
	Name   string  `json:"name"` // stable, such as "queue.policy"
	Status Status  `json:"status"`
	Detail string  `json:"detail"`           // what was seen
	Remedy string  `json:"remedy,omitempty"` // what to do; empty when ok
	Value  float64 `json:"value"`            // for graphs: seconds, a share, or a count, as Detail says
}

// Report is all checks of one moment.
type Report struct {
	At     time.Time `json:"at"`
	Status Status    `json:"status"` // the worst of the checks'
	Checks []Check   `json:"checks"`
	Facts  Facts     `json:"facts"`
}

// Facts is what the next report needs to know of this one.
type Facts struct {
	Evicted   map[string]int64 `json:"evicted,omitempty"` // keys evicted since its start, by the server's run ID
	Release   string           `json:"release,omitempty"` // the release that was active
	Entries   int64            `json:"entries,omitempty"` // its entries, when they were last counted
	CountedAt time.Time        `json:"counted_at,omitzero"`
}

// Worst returns the heaviest status among checks, [OK] when there are none.
func Worst(checks []Check) Status {
	worst := OK
	for _, c := range checks {
		if weight[c.Status] > weight[worst] {
			worst = c.Status
		}
	}
	return worst
}

// Latest returns the newest report, or an error that wraps [tasks.ErrNotFound] when no check ran yet.
func (m *Monitor) Latest(ctx context.Context) (Report, error) {
	reports, err := m.History(ctx, 1)
	if err != nil {
		return Report{}, err
	}
	if len(reports) == 0 {
		return Report{}, fmt.Errorf("%w: no health report yet: run `stoker health`, or start a worker and a scheduler", tasks.ErrNotFound)
	}
	return reports[0], nil
}

// History returns up to n reports, newest first.
func (m *Monitor) History(ctx context.Context, n int) ([]Report, error) {
	if n < 1 {
		return nil, fmt.Errorf("%w: %d health reports: ask for 1 or more", tasks.ErrInvalid, n)
	}
	raw, err := m.d.Queue.LRange(ctx, m.d.Keys.Health(), 0, int64(n)-1).Result()
	if err != nil {
		return nil, fmt.Errorf("read health reports: %w", err)
	}
	reports := make([]Report, len(raw))
	for i, s := range raw {
		if err := json.Unmarshal([]byte(s), &reports[i]); err != nil {
			return nil, fmt.Errorf("read health report %d: %w", i, err)
		}
	}
	return reports, nil
}

// keep stores a report as the newest and drops the oldest beyond the cap.
func (m *Monitor) keep(ctx context.Context, r Report) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("store health report: %w", err)
	}
	key := m.d.Keys.Health()
	_, err = m.d.Queue.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.LPush(ctx, key, raw)
		p.LTrim(ctx, key, 0, int64(m.cfg.HealthKeep)-1)
		return nil
	})
	if err != nil {
		return fmt.Errorf("store health report: %w", err)
	}
	return nil
}

// previousFacts returns the facts of the newest report; nil when there is none or it cannot be
// read, which only means that nothing can be said about growth.
func (m *Monitor) previousFacts(ctx context.Context) (*Facts, error) {
	r, err := m.Latest(ctx)
	switch {
	case errors.Is(err, tasks.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return &r.Facts, nil
}
