package demo

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
)

// Report is what the story came to.
type Report struct {
	Seed     uint64        `json:"seed"`
	Articles int           `json:"articles"`
	Edits    int           `json:"edits"`
	Took     time.Duration `json:"took_ns"`
	Phases   []Phase       `json:"phases"`
}

// Phase is one part of the story: what happened to both sites in it.
type Phase struct {
	Name   string        `json:"name"`
	Took   time.Duration `json:"took_ns"`
	Edits  int           `json:"edits"`
	Stoker Side          `json:"stoker"`
	Plain  Side          `json:"plain"`
}

// Side is one site's part of a phase.
type Side struct {
	Entries int64   `json:"entries"` // in the cache that is being served, at the phase's end
	Seen    Figures `json:"seen"`    // by visitors, all through the phase
	Rest    Settled `json:"rest"`    // after it, with the editor at rest
}

// Table writes the figures: two lines a phase, one for each site.
func (r Report) Table(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "phase\tsite\tentries\ttime\tedits\tvisits\tp50\tp99\thits\tdb calls\tstale\terrors\tat rest, cached\t")
	for _, p := range r.Phases {
		p.Stoker.row(w, p, p.Name, "stoker")
		p.Plain.row(w, p, "", "plain")
	}
	return w.Flush()
}

func (s Side) row(w io.Writer, p Phase, name, site string) {
	seen, rest := s.Seen, s.Rest
	atRest := fmt.Sprintf("%s/%s, %d stale", humanize.Comma(rest.Cached), humanize.Comma(rest.Pages), rest.Stale)
	if rest.Errors > 0 {
		atRest += fmt.Sprintf(", %d errors", rest.Errors)
	}
	fmt.Fprintf(w, "%s\t%s\t%s\t%.1f s\t%s\t%s\t%s\t%s\t%s\t%.2f\t%d\t%d\t%s\t\n",
		name, site, humanize.Comma(s.Entries), p.Took.Seconds(), humanize.Comma(int64(p.Edits)),
		humanize.Comma(seen.Requests), millis(seen.P50), millis(seen.P99), percent(seen.HitRate), seen.Calls, seen.Stale, seen.Errors, atRest)
}

// ErrFaults: a visitor of stoker's site met an error, or a page did not equal the database.
var ErrFaults = errors.New("the demo found faults")

// Err is nil when no visitor of stoker's site met an error and every page at rest equalled
// the database; otherwise it wraps [ErrFaults] and gives examples. What happened to the plain
// site is for the table alone.
func (r Report) Err() error {
	var stale, failed int64
	var examples []string
	for _, p := range r.Phases {
		rest := p.Stoker.Rest
		stale += rest.Stale
		failed += rest.Errors + p.Stoker.Seen.Errors
		for _, e := range append(rest.Examples, p.Stoker.Seen.Examples...) {
			examples = append(examples, p.Name+": "+e)
		}
	}
	if stale+failed == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d stale pages and %d errors:\n  %s", ErrFaults, stale, failed, strings.Join(examples, "\n  "))
}
