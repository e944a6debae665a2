package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// shownReports is how far the page of health looks back: four hours, at one report a minute.
const shownReports = 240

// healthPage is what the page of health shows.
type healthPage struct {
	*report             // the newest; nil without one
	Checks    []history // in the report's order
	Reports   int       // that the plots show
	Since     time.Time // the oldest of them
	Stale     bool      // the newest is old: nobody checks
	Freshness string    // the newest report of freshness, as JSON; "" without one
}

// history is one check with what it was before.
type history struct {
	check
	Strip spark
}

// staleAfter is how old the newest report may be before somebody should look why: checks run every minute.
const staleAfter = 5 * time.Minute

// showHealth answers /health.
func (s *Server) showHealth(w http.ResponseWriter, r *http.Request) {
	p, err := within(r.Context(), readLimit, s.health)
	if err != nil {
		s.fail(w, r, "The health reports could not be read", err)
		return
	}
	s.render(w, r, http.StatusOK, s.pages.health, "Health", p)
}

func (s *Server) health(ctx context.Context) (healthPage, error) {
	raw, err := s.deps.Reads.Reports(ctx, shownReports)
	if err != nil || len(raw) == 0 {
		return healthPage{}, err
	}
	reports := make([]report, len(raw))
	for i := range raw {
		if err := json.Unmarshal(raw[i], &reports[i]); err != nil {
			return healthPage{}, fmt.Errorf("read health report %d: %w", i, err)
		}
	}
	slices.Reverse(reports) // oldest first
	newest := &reports[len(reports)-1]
	newest.sort()
	p := healthPage{report: newest, Reports: len(reports), Since: reports[0].At, Stale: s.deps.Now().Sub(newest.At) > staleAfter}
	for _, c := range newest.Checks {
		p.Checks = append(p.Checks, history{c, newSpark(reports, c.Name)})
	}
	if fresh, err := s.deps.Freshness(ctx); err == nil {
		p.Freshness = indent(redact(fresh))
	}
	return p, nil
}

// spark is a check's history as a small plot: its value as a line, and below it what came of it.
type spark struct {
	Width, Height int
	Line          string  // of the values; "" where they never differ
	Parts         []piece // of the strip below, oldest first
	Text          string  // the same in words
}

// piece is a stretch of reports with the same answer.
type piece struct {
	X, W   float64
	Status string
}

// The measures of a spark, in units of its own.
const (
	sparkWidth  = 240
	sparkHeight = 44
	sparkLine   = 32 // of it, for the line
)

// newSpark draws a check's answers in reports, oldest first.
func newSpark(reports []report, name string) spark {
	s := spark{Width: sparkWidth, Height: sparkHeight}
	var values []float64
	var xs []float64
	counts := map[string]int{}
	step := float64(sparkWidth) / float64(len(reports))
	for i, r := range reports {
		at := slices.IndexFunc(r.Checks, func(c check) bool { return c.Name == name })
		if at < 0 {
			continue
		}
		c, x := r.Checks[at], float64(i)*step
		counts[c.Status]++
		values, xs = append(values, c.Value), append(xs, x+step/2)
		if last := len(s.Parts) - 1; last >= 0 && s.Parts[last].Status == c.Status && x-s.Parts[last].X-s.Parts[last].W < step/2 {
			s.Parts[last].W = x + step - s.Parts[last].X
		} else {
			s.Parts = append(s.Parts, piece{x, step, c.Status})
		}
	}
	low, high := slices.Min(values), slices.Max(values)
	if high > low {
		var points strings.Builder
		for i, v := range values {
			fmt.Fprintf(&points, "%.1f,%.1f ", xs[i], 2+(sparkLine-4)*(1-(v-low)/(high-low)))
		}
		s.Line = strings.TrimSpace(points.String())
	}
	s.Text = inStatuses(counts)
	if s.Line != "" {
		s.Text += fmt.Sprintf("; value from %.4g to %.4g, now %.4g", low, high, values[len(values)-1])
	}
	return s
}

// inStatuses tells how often a check gave which answer, the worst first.
func inStatuses(counts map[string]int) string {
	var parts []string
	for _, status := range []string{"fail", "warn", "unknown", "ok"} {
		if n := counts[status]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, status))
		}
	}
	return strings.Join(parts, ", ")
}
