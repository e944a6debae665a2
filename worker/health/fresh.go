package health

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/health/freshness"
)

// Freshness is the last report of the freshness monitor.
type Freshness struct {
	Report freshness.Report
	Known  bool // somebody was there to be asked
	Err    error
}

// oldFreshness is the age at which a freshness report says nothing about now: more than a day, for
// sites that look once a day.
const oldFreshness = 25 * time.Hour

func (m *Monitor) gatherFreshness(ctx context.Context) Freshness {
	if m.d.Freshness == nil {
		return Freshness{}
	}
	r, err := ask(ctx, m.cfg.HealthTimeout, m.d.Freshness)
	return Freshness{Report: r, Known: true, Err: err}
}

// judgeFreshness: a stale entry is a failure of what stoker is for. Anything that keeps it from
// looking is not known, and no failure: the plan may have nothing that can be compared.
func judgeFreshness(f Freshness, now time.Time) Check {
	c := Check{Name: "freshness", Status: OK, Value: float64(f.Report.Stale())}
	age := now.Sub(f.Report.At)
	switch {
	case errors.Is(f.Err, tasks.ErrNotFound):
		c.Status, c.Detail = Unknown, "nobody has compared entries with their origin yet"
		c.Remedy = "keep a scheduler running, which looks every ten minutes, or look now: stoker freshness --now"
		return c
	case f.Err != nil || !f.Known:
		return unknownFreshness(c, f.Err)
	case age > oldFreshness:
		c.Status, c.Detail = Unknown, fmt.Sprintf("entries were last compared with their origin %v ago", age.Round(time.Minute))
		c.Remedy = "keep a scheduler running with an entry for health:freshness, or look now: stoker freshness --now"
		return c
	case f.Report.Stale() > 0:
		return staleEntries(c, f.Report)
	}
	return freshEntries(c, f.Report)
}

func unknownFreshness(c Check, err error) Check {
	if err != nil {
		return unknown(c, "the freshness report", err)
	}
	c.Status, c.Detail = Unknown, "nobody could be asked about freshness"
	return c
}

// staleEntries says where stale entries are, and what removes them.
func staleEntries(c Check, r freshness.Report) Check {
	var where, how []string
	for _, n := range r.Places {
		if n.Stale == 0 {
			continue
		}
		where = append(where, fmt.Sprintf("%d in %s (%s)", n.Stale, n.Release, n.State))
		if target, ok := n.Remedy(); ok {
			how = append(how, fmt.Sprintf("%s (%s)", target, n.Release))
		}
	}
	c.Status = Fail
	c.Detail = "entries that differ from their origin, confirmed after 1 and 5 minutes: " + strings.Join(where, ", ")
	c.Remedy = "invalidate " + strings.Join(how, ", ") + " with `stoker invalidate`, then find out why nobody did when the content changed (stoker freshness); if all entries differ, the plan and the site do not store the same value"
	return c
}

// freshEntries says how sure it is that nothing is stale.
func freshEntries(c Check, r freshness.Report) Check {
	var figures, problems []string
	for _, n := range r.Places {
		switch {
		case n.Problem != "":
			problems = append(problems, n.Release+": "+n.Problem)
		case n.Day.Compared > 0:
			figures = append(figures, fmt.Sprintf("%s %.1f nines (%s compared)", n.Release, n.Day.Nines, humanize.Comma(int64(n.Day.Compared))))
		}
	}
	switch {
	case len(figures) > 0:
		c.Detail = "nothing stale; of the last day's samples at least, with 95% confidence: " + strings.Join(figures, ", ")
		if len(problems) > 0 {
			c.Detail += "; not known: " + strings.Join(problems, "; ")
		}
	case len(problems) > 0:
		c.Status, c.Detail = Unknown, "freshness is not known: "+strings.Join(problems, "; ")
		c.Remedy = "entries can be compared when the release was warmed by a plan, or STOKER_PLAN names one, and the worker reaches the plan's databases"
	default:
		c.Status, c.Detail = Unknown, "no entry could be compared with its origin"
		c.Remedy = "only entries that a plan's query makes can be compared; `stoker freshness` shows what was sampled"
	}
	return c
}
