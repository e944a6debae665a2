package health

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// tell has people told of an event, once for each id.
func (m *Monitor) tell(ctx context.Context, id, event, release, title string, lines ...string) error {
	if m.d.Tell == nil {
		return nil
	}
	for i, l := range lines {
		lines[i] = cut(l, 2*tasks.MaxReasonLen)
	}
	n := tasks.Notify{Event: event, At: m.now().UTC(), App: m.d.App, Release: release, Title: cut(title, tasks.MaxReasonLen), Lines: lines}
	if _, err := m.d.Tell(ctx, n, asynq.TaskID("notify:"+id)); err != nil {
		return fmt.Errorf("tell people that %s: %w", title, err)
	}
	return nil
}

// CertificateFailed tells people of a warm run whose certificate did not pass.
func (m *Monitor) CertificateFailed(ctx context.Context, release, run, verdict string, reasons []string) error {
	lines := append(slices.Clone(reasons[:min(len(reasons), 20)]), "What was filled, and what was not: stoker release show "+release)
	return m.tell(ctx, "certificate:"+run, tasks.EventCertificate, release, fmt.Sprintf("the warm of %s did not pass: %s", release, verdict), lines...)
}

// told is what people know of the health.
type told struct {
	N       int      `json:"n"`       // messages so far
	Failing []string `json:"failing"` // checks that they know to fail
}

const toldHealth = "health"

// tellHealth has people told when a check begins to fail, and when none does any more: once a
// change, not once a report. The message's ID is its number, so that of several workers, and of
// tries, one tells.
func (m *Monitor) tellHealth(ctx context.Context, r Report) error {
	if m.d.Tell == nil {
		return nil
	}
	var known told
	raw, err := m.d.Queue.HGet(ctx, m.d.Keys.Told(), toldHealth).Bytes()
	if err == nil {
		err = json.Unmarshal(raw, &known)
	}
	if err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("read what people know: %w", err)
	}
	var failing, lines []string
	news := false
	for _, c := range r.Checks {
		if c.Status == Fail {
			failing = append(failing, c.Name)
			lines = append(lines, fmt.Sprintf("%s: %s: %s", c.Name, c.Detail, c.Remedy))
			news = news || !slices.Contains(known.Failing, c.Name)
		}
	}
	next := told{N: known.N, Failing: failing}
	id := fmt.Sprintf("%s:%d", toldHealth, known.N+1)
	switch {
	case news:
		next.N++
		err = m.tell(ctx, id, tasks.EventHealthFailed, "", "health: "+strings.Join(failing, ", ")+" failing", lines...)
	case len(failing) == 0 && len(known.Failing) > 0:
		next.N++
		err = m.tell(ctx, id, tasks.EventHealthRecovered, "", "health: recovered; "+strings.Join(known.Failing, ", ")+" failed before")
	case slices.Equal(failing, known.Failing):
		return nil
	}
	if err != nil {
		return err
	}
	if raw, err = json.Marshal(next); err != nil {
		return err
	}
	if err := m.d.Queue.HSet(ctx, m.d.Keys.Told(), toldHealth, raw).Err(); err != nil {
		return fmt.Errorf("keep what people know: %w", err)
	}
	return nil
}

// cut shortens a text to at most so many bytes.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	end := most - len("…")
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "…"
}
