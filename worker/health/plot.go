package health

import (
	"fmt"
	"math"
	"strings"
)

// plot is a small drawing in units of its own, without anything to run.
type plot struct {
	Title         string
	Width, Height int
	Grid          []segment
	Bars          []box
	Curves        []curve
	Labels        []label
}

type (
	segment struct{ X1, Y1, X2, Y2 string }
	box     struct{ X, Y, W, H string }
	point   struct{ X, Y string }
	curve   struct {
		Class, Points string
		Dots          []point
	}
	label struct{ X, Y, Anchor, Class, Text string }
)

// The frame that is drawn into: what is left of it holds the scale, below it the names.
const (
	plotWidth, plotHeight           = 720, 240
	plotLeft, plotRight             = 64, 96
	plotTop, plotBottom             = 14, 30
	innerWidth, innerHeight float64 = plotWidth - plotLeft - plotRight, plotHeight - plotTop - plotBottom
)

// newPlot draws the frame of a plot whose values go from 0 to about top milliseconds.
func newPlot(title string, top float64) (p *plot, y func(float64) float64) {
	step := tick(top)
	most := step * math.Ceil(max(top, step)/step)
	p = &plot{Title: title, Width: plotWidth, Height: plotHeight}
	y = func(v float64) float64 { return plotTop + innerHeight*(1-min(v, most)/most) }
	for v := 0.0; v <= most+step/2; v += step {
		p.Grid = append(p.Grid, segment{number(plotLeft), number(y(v)), number(plotWidth - plotRight), number(y(v))})
		p.Labels = append(p.Labels, label{number(plotLeft - 8), number(y(v) + 4), "end", "", fmt.Sprintf("%.4g ms", v)})
	}
	return p, y
}

// tick is the step of a scale up to top: 1, 2 or 5 times a power of ten, about four of them.
func tick(top float64) float64 {
	if top <= 0 {
		return 1
	}
	raw := top / 4
	power := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 5} {
		if raw <= m*power {
			return m * power
		}
	}
	return 10 * power
}

// number writes a coordinate.
func number(v float64) string { return fmt.Sprintf("%.1f", v) }

// line adds a curve with its name at its end; nudge moves the name so that it does not cover another.
func (p *plot) line(class, name string, xs, ys []float64, nudge float64) {
	var points []string
	var dots []point
	for i := range xs {
		points = append(points, number(xs[i])+","+number(ys[i]))
		if len(xs) < 20 {
			dots = append(dots, point{number(xs[i]), number(ys[i])})
		}
	}
	last := len(xs) - 1
	p.Curves = append(p.Curves, curve{class, strings.Join(points, " "), dots})
	p.Labels = append(p.Labels, label{number(xs[last] + 8), number(ys[last] + 4 + nudge), "start", class, name})
}

// apart returns how far two names at the ends of curves have to move to stay readable.
func apart(a, b float64) (float64, float64) {
	const height = 14
	gap := height - math.Abs(a-b)
	if gap <= 0 {
		return 0, 0
	}
	if a < b {
		return -gap / 2, gap / 2
	}
	return gap / 2, -gap / 2
}

// latencyPlot shows which share of the answers was as fast as what, before and after.
func latencyPlot(before, after Baseline) (plot, bool) {
	const shown = 20 // up to 95 %: beyond it a single answer sets the scale
	if len(before.Quantiles) <= shown || len(after.Quantiles) <= shown {
		return plot{}, false
	}
	a, b := before.Quantiles[:shown], after.Quantiles[:shown]
	p, y := newPlot("Latency by share of the answers, up to 95 %", max(a[shown-1], b[shown-1]))
	var xs, ya, yb []float64
	for i := range shown {
		x := plotLeft + innerWidth*float64(i)/(shown-1)
		xs, ya, yb = append(xs, x), append(ya, y(a[i])), append(yb, y(b[i]))
		if i%5 == 0 || i == shown-1 {
			p.Labels = append(p.Labels, label{number(x), number(plotHeight - 8), "middle", "", fmt.Sprintf("%d %%", 5*i)})
		}
	}
	na, nb := apart(ya[shown-1], yb[shown-1])
	p.line("before", "before", xs, ya, na)
	p.line("after", "after", xs, yb, nb)
	return *p, true
}

// looksPlot shows the median and the slow tail of each look, and its errors as bars.
func looksPlot(s Watching, before Baseline) (plot, bool) {
	if len(s.Looks) < 2 {
		return plot{}, false
	}
	top := max(before.P95, before.P50)
	for _, l := range s.Looks {
		top = max(top, l.P95)
	}
	p, y := newPlot("Each look: median (below) and 95th percentile (above); bars are its share of errors; dashed: before", top)
	var xs, y50, y95 []float64
	for i, l := range s.Looks {
		x := plotLeft + innerWidth*float64(i)/float64(len(s.Looks)-1)
		xs, y50, y95 = append(xs, x), append(y50, y(l.P50)), append(y95, y(l.P95))
		p.Labels = append(p.Labels, label{number(x), number(plotHeight - 8), "middle", "", since(s.ActivatedAt, l.At)})
		if l.Errors > 0 {
			h := max(2, innerHeight*share(l.Errors, l.Requests))
			p.Bars = append(p.Bars, box{number(x - 6), number(plotTop + innerHeight - h), "12", number(h)})
		}
	}
	if before.P95 > 0 {
		ends := []float64{plotLeft, plotLeft + innerWidth}
		p.Curves = append(p.Curves,
			curve{"before", fmt.Sprintf("%s,%s %s,%s", number(ends[0]), number(y(before.P50)), number(ends[1]), number(y(before.P50))), nil},
			curve{"before", fmt.Sprintf("%s,%s %s,%s", number(ends[0]), number(y(before.P95)), number(ends[1]), number(y(before.P95))), nil})
	}
	last := len(xs) - 1
	n50, n95 := apart(y50[last], y95[last])
	p.line("after", "median", xs, y50, n50)
	p.line("after", "95 %", xs, y95, n95)
	return *p, true
}
