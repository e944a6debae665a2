package origin_test

import (
	_ "embed"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"text/template"
	"time"

	"github.com/alphanode/stoker/worker/warm/origin"
)

var update = flag.Bool("update", false, "draw origin.svg anew")

//go:embed plot.svg.tmpl
var plotText string

var plotTemplate = template.Must(template.New("plot").Parse(plotText))

// stretch is a part of the plot's story: how the origin behaves until a time.
type stretch struct {
	Name    string
	until   time.Duration
	healthy bool
	serve   func(at time.Duration, busy int) answer
}

// grows is an origin that answers so many requests at a time as fast as one; above, the others wait.
func grows(bears int) func(time.Duration, int) answer {
	return func(_ time.Duration, n int) answer { return answer{after: times(max(n, bears), bears)} }
}

// story is an origin that bears more and less, and fails in the three ways that there are.
var story = []stretch{
	{"bears 12 at a time", 40 * time.Second, true, grows(12)},
	{"bears 6", 80 * time.Second, true, grows(6)},
	{"503 for 25 s", 105 * time.Second, false, func(at time.Duration, _ int) answer {
		return answer{time.Millisecond, origin.Troubled, 105*time.Second - at}
	}},
	{"bears 12", 140 * time.Second, true, grows(12)},
	{"hangs", 165 * time.Second, false, func(time.Duration, int) answer { return answer{after: 5 * time.Second, is: origin.Troubled} }},
	{"bears 12", 200 * time.Second, true, grows(12)},
	{"resets", 225 * time.Second, false, func(time.Duration, int) answer { return answer{after: time.Millisecond, is: origin.Troubled} }},
	{"bears 12", 260 * time.Second, true, grows(12)},
}

// settle is how long after a change an origin's latency may be above twice its idle value.
const settle = 10 * time.Second

// TestStory plays the story that origin.svg shows, and draws it when told to: in healthy stretches the 95th
// percentile stays below twice the idle value, and troubled ones are hardly asked.
func TestStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{serve: func(at time.Duration, n int) answer {
			i := slices.IndexFunc(story, func(p stretch) bool { return at < p.until })
			return story[max(i, 0)].serve(at, n)
		}}
		end := story[len(story)-1].until
		busy := s.watch(end)
		s.visit(t, []*origin.Limiter{alone(t, origin.Default(), origin.Deps{})}, 64, end)
		from := time.Duration(0)
		for _, p := range story {
			all := s.between(from, p.until)
			if p.healthy && p95(s.between(from+settle, p.until)) > 2*idle {
				t.Errorf("%s, until %v: 95th percentile %v, more than twice %v", p.Name, p.until, p95(s.between(from+settle, p.until)), idle)
			}
			if !p.healthy && len(all) > 60 {
				t.Errorf("%s: asked %d times in %v", p.Name, len(all), p.until-from)
			}
			from = p.until
		}
		if *update {
			s.draw(t, end, <-busy)
		} else {
			<-busy
		}
	})
}

// tick is the width of what the plot tells apart.
const tick = 500 * time.Millisecond

// watch returns a channel that takes the most requests that were under way in each tick.
func (s *site) watch(lasts time.Duration) <-chan []int {
	out := make(chan []int, 1)
	go func() {
		most := make([]int, lasts/tick)
		for at := time.Duration(0); at < lasts; at += tick / 10 {
			s.mu.Lock()
			most[at/tick] = max(most[at/tick], s.busy)
			s.mu.Unlock()
			time.Sleep(tick / 10)
		}
		out <- most
	}()
	return out
}

// Measures of the plot, in pixels.
const (
	plotLeft, plotWidth   = 48, 820
	panelTop, panelHeight = 40, 130
	panelGap              = 40
)

// panel is one of the plot's two: a value over the time.
type panel struct {
	Title, Path string
	Top, Bottom float64
	Limit       float64 // where the dashed line is
	LimitText   string
	Grid        []mark
}

// mark is a text at a place.
type mark struct {
	At   float64
	Text string
}

// draw writes origin.svg.
func (s *site) draw(t *testing.T, end time.Duration, busy []int) {
	x := func(at time.Duration) float64 { return plotLeft + plotWidth*at.Seconds()/end.Seconds() }
	panelOf := func(i int, title string, most, limit float64, limitText string, values []float64) panel {
		top := float64(panelTop + i*(panelHeight+panelGap))
		y := func(v float64) float64 { return top + panelHeight*(1-min(v/most, 1)) }
		p := panel{Title: title, Top: top, Bottom: top + panelHeight, Limit: y(limit), LimitText: limitText}
		for _, v := range []float64{0, most / 2, most} {
			p.Grid = append(p.Grid, mark{y(v), fmt.Sprint(v)})
		}
		var points strings.Builder
		to := "M"
		for i, v := range values {
			if v < 0 {
				to = "M"
				continue
			}
			fmt.Fprintf(&points, "%s%.1f %.1f", to, x(time.Duration(i)*tick), y(v))
			to = "L"
		}
		p.Path = points.String()
		return p
	}
	took := make([][]served, len(busy))
	for _, v := range s.served {
		if i := int((v.at + v.took) / tick); i < len(took) && v.is == origin.Answered {
			took[i] = append(took[i], v)
		}
	}
	atOnce, slow := make([]float64, len(busy)), make([]float64, len(busy))
	for i := range busy {
		atOnce[i], slow[i] = float64(busy[i]), -1 // nothing was answered
		if len(took[i]) > 0 {
			slow[i] = p95(took[i]).Seconds() * 1000
		}
	}
	type change struct {
		mark
		Healthy bool
		Width   float64
	}
	var changes []change
	from := time.Duration(0)
	for _, p := range story {
		changes = append(changes, change{mark{x(from), p.Name}, p.healthy, x(p.until) - x(from)})
		from = p.until
	}
	var seconds []mark
	for at := time.Duration(0); at <= end; at += 20 * time.Second {
		seconds = append(seconds, mark{x(at), fmt.Sprint(int(at.Seconds()))})
	}
	twice := float64(2*idle) / float64(time.Millisecond)
	f, err := os.Create("origin.svg")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = plotTemplate.Execute(f, map[string]any{
		"Left": plotLeft, "Right": plotLeft + plotWidth, "Width": plotLeft + plotWidth + 20, "Height": panelTop + 2*(panelHeight+panelGap) + 10,
		"Changes": changes, "Seconds": seconds, "Panels": []panel{
			panelOf(0, "requests under way", 32, 32, "", atOnce),
			panelOf(1, "95th percentile of the answers, ms", 80, twice, "twice the idle value", slow),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
}
