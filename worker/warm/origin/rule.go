package origin

import (
	"math"
	"slices"
	"time"
)

// Quick is an answer's time that is good enough whatever it was when the origin was idle.
const Quick = 5 * time.Millisecond

const (
	tolerance  = 1.5              // times the idle time that a window may take
	upper      = 0.9              // the quantile that stands for a window
	fewest     = 10               // requests of a window
	looks      = 5                // requests alone that show the idle time
	kept       = 4 * looks        // of them, over several looks
	lookEvery  = 15 * time.Second // between two looks
	lookShare  = 20               // a look takes one in so many of the time at most
	troubled   = 0.1              // share of a window whose trouble halves the limit
	fewTrouble = 2                // so many of a window are no accident
	longest    = 62               // times of a request between two tries of a limit that was too high
)

// rule decides how many requests may be under way at one origin. It is pure: times in, a limit out.
// It is not safe for concurrent use.
type rule struct {
	most    float64 // that the limit may be
	limit   float64
	cap     float64 // above which the limit grows slowly
	round   int     // requests of an earlier round say nothing of the limit
	window  []time.Duration
	trouble int
	used    bool // as many were under way as the limit lets

	patience float64 // times of a request after which a limit above cap is tried: more after each that was too high
	wait     float64 // of them, that are to come

	alone   []time.Duration // the newest last; their high quantile is the idle time
	looking int             // requests that the look under way still needs; 0 when there is none
	cold    bool            // the next request alone is the first: it tells nothing
	last    time.Time       // when the last look began
	resume  float64         // limit after the look
}

// newRule returns the rule of an origin of which nothing is known.
func newRule(most int) *rule {
	r := &rule{most: float64(most), cap: math.Inf(1)}
	r.restart()
	return r
}

// restart begins again with one request, and grows slowly from half of what there was.
func (r *rule) restart() {
	if was := r.settled(); was > 1 {
		r.cap = min(r.cap, max(math.Floor(was/2), 1))
	}
	r.set(1)
	r.look(1)
	r.cold = true
}

// settled is the limit when no look is under way.
func (r *rule) settled() float64 {
	if r.looking > 0 {
		return max(r.resume, 1)
	}
	return r.limit
}

// set changes the limit, and begins a new round.
func (r *rule) set(limit float64) {
	r.limit = min(max(limit, 1), r.most)
	r.round++
	r.window, r.trouble, r.used = r.window[:0], 0, false
}

// look begins a look at the idle time, after which the limit is resume.
func (r *rule) look(resume float64) { r.looking, r.resume = looks, resume }

// begin notes that a request begins, as the busy-th under way, and returns its round. clock is the
// time that all workers share.
func (r *rule) begin(clock time.Time, busy int) int {
	switch {
	case r.last.IsZero():
		r.last = clock
	case r.looking == 0 && clock.Truncate(r.every()).After(r.last):
		r.last = clock
		before := r.limit
		r.set(1)
		r.look(before)
	}
	if r.looking > 0 && busy > 1 {
		return r.round - 1 // it is not alone
	}
	r.used = r.used || busy >= int(r.limit)
	return r.round
}

// every is how often the rule looks at the idle time: rarely where that takes long.
func (r *rule) every() time.Duration {
	return max(lookEvery, lookShare*looks*r.idle()).Truncate(lookEvery)
}

// idle is the idle time; 0 while it is not known.
func (r *rule) idle() time.Duration { return quantile(r.alone) }

// answered takes a request that was answered.
func (r *rule) answered(round int, took time.Duration) {
	switch {
	case round != r.round:
	case r.looking > 0 && r.cold:
		r.cold = false
	case r.looking > 0:
		r.alone = append(r.alone, took)
		r.alone = r.alone[max(len(r.alone)-kept, 0):]
		if r.looking--; r.looking == 0 {
			r.set(max(r.resume, min(2, r.cap)))
		}
	default:
		r.window = append(r.window, took)
		r.adjust()
	}
}

// failed takes a request that was trouble.
func (r *rule) failed(round int) {
	if round == r.round && r.looking == 0 {
		r.trouble++
		r.adjust()
	}
}

// adjust changes the limit once a window is full.
func (r *rule) adjust() {
	n := len(r.window) + r.trouble
	if n < max(fewest, int(2*r.limit)) {
		return
	}
	ratio := float64(quantile(r.window)) / float64(max(r.idle(), Quick))
	switch {
	case r.trouble >= fewTrouble && float64(r.trouble) >= troubled*float64(n):
		r.lower(r.limit / 2)
	case ratio > tolerance && r.limit == 1:
		r.set(1) // something else slows it down, or its idle time has changed: the next look tells
	case ratio > tolerance:
		r.lower(r.limit * max((tolerance-1)/(ratio-1), 0.5))
	case !r.used:
		r.set(r.limit)
	case r.limit < r.cap:
		r.set(min(r.limit*grow(ratio), r.cap))
	case ratio >= (1+tolerance)/2:
		r.set(r.limit)
	case r.wait > 0:
		r.wait -= float64(n) / r.limit
		r.set(r.limit)
	default:
		r.set(r.limit + 1)
	}
}

// lower sets a limit after a higher one was too high.
func (r *rule) lower(limit float64) {
	r.set(math.Floor(limit))
	r.cap = r.limit
	r.patience = min(2*r.patience+2, longest)
	r.wait = r.patience
}

// grow is by how much a limit may grow that makes requests ratio times as long as when alone.
func grow(ratio float64) float64 {
	if ratio <= 1 {
		return 2
	}
	return min(max((tolerance-1)/(ratio-1), 1), 2)
}

// quantile is the high quantile of times; 0 of none.
func quantile(of []time.Duration) time.Duration {
	if len(of) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(of))
	return sorted[int(upper*float64(len(sorted)-1))]
}
