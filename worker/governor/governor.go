package governor

import (
	"time"

	"github.com/alphanode/stoker/tasks"
)

// The bounds of every answer.
const (
	Start    = 100  // items of a first slice, before anything is known
	MinCount = 5    // items; smaller slices spend their time on round trips
	MaxCount = 5000 // items; larger ones gain nothing and make replies heavy
	MaxPause = 5 * time.Second
)

const (
	growth       = 1.25
	failedPause  = 50 * time.Millisecond // after the first failure in a row
	failedShrink = 0.5
)

// rule is what a pace stands for.
type rule struct {
	target time.Duration // server time a slice aims at
	duty   float64       // share of the time spent in slices, in (0, 1]
}

// A visitor who meets a slice waits for half of it on average, so the slices of the paces that
// visitors must not notice are of the order of an idle server's own p99. With pauses longer
// than slices, small slices cost the work nothing.
var rules = map[tasks.Pace]rule{
	tasks.PaceGentle: {200 * time.Microsecond, 0.1},
	tasks.PaceNormal: {200 * time.Microsecond, 0.3},
	tasks.PaceFull:   {2 * time.Millisecond, 1},
}

// ruleOf returns a pace's rule. A pace that does not exist means normal; who takes one from people
// calls [tasks.Pace.Validate] first.
func ruleOf(p tasks.Pace) rule {
	if r, ok := rules[p]; ok {
		return r
	}
	return rules[tasks.PaceNormal]
}

// Governor paces one work. It is not safe for concurrent use.
type Governor struct {
	rule   rule
	count  float64       // items of the next slice
	failed time.Duration // pause after the last failure; 0 when the last slice succeeded
}

// New returns the governor of one work.
func New(p tasks.Pace) *Governor { return &Governor{rule: ruleOf(p), count: Start} }

// Next takes the sample of one slice and returns the number of items of the next slice,
// MinCount to MaxCount, and the pause before it, 0 to MaxPause. took is the server time the
// slice took. items is how many items it went through, whether or not it found work in them;
// 0 or less tells of a slice that failed.
func (g *Governor) Next(took time.Duration, items int, b Brake) (count int, pause time.Duration) {
	took = max(took, 0)
	r := g.rule.braked(b)
	if items <= 0 {
		g.fail()
	} else {
		g.failed = 0
		g.resize(took, items, r.target)
	}
	return g.Count(), min(max(r.rest(took), g.failed), MaxPause)
}

// Count returns the number of items of the next slice, MinCount to MaxCount.
func (g *Governor) Count() int { return int(g.count) }

// resize moves the size towards the one that would have met the target.
func (g *Governor) resize(took time.Duration, items int, target time.Duration) {
	fit := float64(MaxCount)
	if took > 0 {
		fit = float64(items) * float64(target) / float64(took)
	}
	if took > target {
		g.count = min(g.count, fit)
	} else {
		g.count = min(g.count*growth, max(fit, g.count))
	}
	g.count = min(max(g.count, MinCount), MaxCount)
}

func (g *Governor) fail() {
	g.count = max(g.count*failedShrink, MinCount)
	g.failed = min(max(2*g.failed, failedPause), MaxPause)
}

// rest is the pause that keeps a slice of that length within the rule's share of the time.
func (r rule) rest(took time.Duration) time.Duration {
	return time.Duration(min(float64(took)*(1-r.duty)/r.duty, float64(MaxPause)))
}

// braked is the rule under a brake.
func (r rule) braked(b Brake) rule {
	f := b.factor()
	return rule{time.Duration(float64(r.target) / f), r.duty / f}
}
