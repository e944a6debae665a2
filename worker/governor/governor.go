// Package governor decides how hard stoker may work on the cache Redis, so that visitors do not
// notice. It is pure arithmetic: samples in, pace out; no clock, no server.
//
// Work on a namespace is cut into slices. A Redis server does one thing at a time, so a slice
// makes every visitor who arrives during it wait for its end: the size of a slice bounds the
// wait, the pause between slices bounds how many visitors wait at all. After each slice the
// caller reports the server time it took and the items it went through, and is told the size of
// the next slice and the pause before it.
//
// The size follows the measured cost of an item towards a target time. A slice above the
// target shrinks the next one at once, in proportion; one below it lets the next one grow by
// a quarter at most. A slice that failed (no items) halves the size and doubles a pause that
// only successes end. So errors and slowness slow the work down quickly, and neither ever
// speeds it up.
//
// What is not promised: the first slices of a work whose items are very large may miss the
// target, and a single item that takes longer than the target cannot be cut here.
package governor

import (
	"fmt"
	"time"

	"github.com/alphanode/stoker/tasks"
)

// Pace is how much of the server's time a work may take.
type Pace string

// The paces.
const (
	Gentle Pace = "gentle" // about a tenth
	Normal Pace = "normal" // about a third
	Full   Pace = "full"   // all that is left over between visitors' commands
)

// The bounds of every answer.
const (
	Start    = 100  // items of a first slice, before anything is known
	MinCount = 10   // items; smaller slices spend their time on round trips
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
var rules = map[Pace]rule{
	Gentle: {500 * time.Microsecond, 0.1},
	Normal: {500 * time.Microsecond, 0.3},
	Full:   {2 * time.Millisecond, 1},
}

// Paces lists the paces, gentlest first.
func Paces() []Pace { return []Pace{Gentle, Normal, Full} }

// Validate reports a pace that does not exist.
func (p Pace) Validate() error {
	if _, ok := rules[p]; !ok {
		return fmt.Errorf("%w: unknown pace %q: use one of %v (STOKER_PACE)", tasks.ErrInvalid, string(p), Paces())
	}
	return nil
}

// Governor paces one work. It is not safe for concurrent use: each work has its own.
type Governor struct {
	rule   rule
	count  float64       // items of the next slice
	failed time.Duration // pause after the last failure; 0 when the last slice succeeded
}

// New returns the governor of one work. A pace that does not exist means [Normal]; callers
// that take one from people call [Pace.Validate] first.
func New(p Pace) *Governor {
	r, ok := rules[p]
	if !ok {
		r = rules[Normal]
	}
	return &Governor{rule: r, count: Start}
}

// Next takes the sample of one slice and returns the number of items of the next slice,
// MinCount to MaxCount, and the pause before it, 0 to MaxPause. took is the server time the
// slice took. items is how many items it went through, whether or not it found work in them;
// 0 or less tells of a slice that failed.
func (g *Governor) Next(took time.Duration, items int) (count int, pause time.Duration) {
	took = max(took, 0)
	if items <= 0 {
		g.fail()
	} else {
		g.failed = 0
		g.resize(took, items)
	}
	return int(g.count), min(max(g.rest(took), g.failed), MaxPause)
}

// resize moves the size towards the one that would have met the target.
func (g *Governor) resize(took time.Duration, items int) {
	fit := float64(MaxCount)
	if took > 0 {
		fit = float64(items) * float64(g.rule.target) / float64(took)
	}
	if took > g.rule.target {
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

// rest is the pause that keeps a slice of that length within the pace's share.
func (g *Governor) rest(took time.Duration) time.Duration {
	return time.Duration(min(float64(took)*(1-g.rule.duty)/g.rule.duty, float64(MaxPause)))
}
