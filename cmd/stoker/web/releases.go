package web

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/alphanode/stoker/worker/release"
)

// mostTimed is how many releases, the newest, the timeline shows.
const mostTimed = 16

// releasesPage is what the page of all releases shows.
type releasesPage struct {
	Releases []row
	Timeline *timeline // nil without anything to show
}

// showReleases answers /releases.
func (s *Server) showReleases(w http.ResponseWriter, r *http.Request) {
	p, err := within(r.Context(), readLimit, s.allReleases)
	if err != nil {
		s.fail(w, r, "The releases could not be read", err)
		return
	}
	s.render(w, r, http.StatusOK, s.pages.releases, "Releases", p)
}

func (s *Server) allReleases(ctx context.Context) (releasesPage, error) {
	rows, err := s.rows(ctx)
	if err != nil {
		return releasesPage{}, err
	}
	lives := make([]life, min(len(rows), mostTimed))
	var read sync.WaitGroup
	var mu sync.Mutex
	for i := range lives {
		read.Go(func() {
			moves, failed := s.deps.Ledger.History(ctx, rows[i].ID)
			lives[i] = life{rows[i].ID, moves}
			if failed != nil {
				mu.Lock()
				err = failed
				mu.Unlock()
			}
		})
	}
	read.Wait()
	return releasesPage{rows, newTimeline(lives, s.deps.Now())}, err
}

// life is what a release has been through.
type life struct {
	id    string
	moves []release.Move // oldest first
}

// timeline is a drawing of releases' states over time, one line a release.
type timeline struct {
	Width, Height int
	From          time.Time
	Lines         []timeLine
	Marks         []timeMark
}

type timeLine struct {
	ID    string
	TextY int
	Spans []timeSpan
}

type timeSpan struct {
	X, Y, W  float64
	State    release.State
	From, To time.Time
}

type timeMark struct {
	X    float64
	Text string
}

// The measures of a timeline, in units of its own.
const (
	timeWidth  = 960
	timeLeft   = 150 // for the names
	timeRow    = 26
	timeBottom = 24 // for the scale
	timeRecent = 14 * 24 * time.Hour
)

// newTimeline draws the last two weeks, or less when all has begun since.
func newTimeline(lives []life, now time.Time) *timeline {
	from := now
	for _, l := range lives {
		if len(l.moves) > 0 && l.moves[0].At.Before(from) {
			from = l.moves[0].At
		}
	}
	if oldest := now.Add(-timeRecent); from.Before(oldest) {
		from = oldest
	}
	whole := now.Sub(from)
	if whole <= 0 {
		return nil
	}
	x := func(t time.Time) float64 {
		return timeLeft + (timeWidth-timeLeft)*float64(max(t.Sub(from), 0))/float64(whole)
	}
	t := &timeline{Width: timeWidth, From: from}
	for _, l := range lives {
		y := len(t.Lines) * timeRow
		line := timeLine{ID: clip(l.id, 18), TextY: y + 17}
		for i, m := range l.moves {
			end := now
			if i+1 < len(l.moves) {
				end = l.moves[i+1].At
			}
			if end.Before(from) || m.To == release.Expired {
				continue
			}
			line.Spans = append(line.Spans, timeSpan{X: x(m.At), Y: float64(y + 5), W: max(x(end)-x(m.At), 2), State: m.To, From: m.At, To: end})
		}
		if len(line.Spans) > 0 {
			t.Lines = append(t.Lines, line)
		}
	}
	if len(t.Lines) == 0 {
		return nil
	}
	t.Height = len(t.Lines)*timeRow + timeBottom
	for _, part := range []float64{1, 0.75, 0.5, 0.25} {
		back := time.Duration(part * float64(whole))
		t.Marks = append(t.Marks, timeMark{x(now.Add(-back)), ago(back)})
	}
	return t
}

// ScaleY is where the names of moments stand.
func (t *timeline) ScaleY() int { return t.Height - 6 }

// Foot is where the lines end.
func (t *timeline) Foot() int { return t.Height - timeBottom }

// clip shortens a name that does not fit.
func clip(name string, most int) string {
	if runes := []rune(name); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return name
}

// States are those that the timeline tells apart, in the order of a release's life.
func (t *timeline) States() []release.State {
	var seen []release.State
	for _, s := range []release.State{release.New, release.Warming, release.Ready, release.Active, release.Standby, release.Restoring, release.Archived} {
		if slices.ContainsFunc(t.Lines, func(l timeLine) bool {
			return slices.ContainsFunc(l.Spans, func(p timeSpan) bool { return p.State == s })
		}) {
			seen = append(seen, s)
		}
	}
	return seen
}
