package governor

import (
	"slices"
	"time"

	"github.com/alphanode/stoker/tasks"
)

// How samples are taken and weighed.
const (
	Every      = 50 * time.Millisecond // between two round trips, and between two looks at memory that fills
	EverySlow  = time.Second           // between two looks at the queue, and at memory that does not fill
	IdleTrips  = 10                    // round trips whose fastest is the idle one
	NoAnswer   = time.Second           // what a round trip without an answer counts as
	window     = 16                    // round trips that count
	fewest     = 4                     // below so many, latency says nothing
	upper      = 0.75                  // of the trips in the window, so many are at or below the latency that counts
	tolerance  = 2                     // times the idle round trip, before what the slices explain
	leastIdle  = 50 * time.Microsecond // shorter than this is the noise of clocks and schedulers
	crowd      = 50                    // so many that wait halve the pace
	mostBraked = 16                    // the largest factor
)

// Reason says why work is braked.
type Reason string

// The reasons.
const (
	Latency Reason = "latency" // visitors' round trips are slower than the work explains
	Queue   Reason = "queue"   // invalidations or releases wait
	Full    Reason = "memory"  // the server has no room for work that adds to it
)

// Brake is by how much work must be slower than its pace.
type Brake struct {
	Factor float64 // 1 and below means not at all
	Why    Reason  // "" when not at all
}

func (b Brake) factor() float64 {
	if !(b.Factor > 1) {
		return 1
	}
	return min(b.Factor, mostBraked)
}

// Harder returns the harder of two brakes.
func (b Brake) Harder(c Brake) Brake {
	if c.factor() > b.factor() {
		return c
	}
	return b
}

// brakeBy is a brake by a factor, for a reason.
func brakeBy(factor float64, why Reason) Brake {
	if !(factor > 1) {
		return Brake{Factor: 1}
	}
	return Brake{min(factor, mostBraked), why}
}

// Readings are what was last seen of one server. The zero value has seen nothing. It is not safe
// for concurrent use.
type Readings struct {
	Memory Memory

	idle    time.Duration
	trips   []time.Duration // the newest last
	waiting int
}

// Idle says how long a round trip takes when nothing delays it.
func (r *Readings) Idle(trip time.Duration) { r.idle = trip }

// Trip adds a round trip: [NoAnswer] for one without an answer.
func (r *Readings) Trip(took time.Duration) {
	if len(r.trips) == window {
		r.trips = slices.Delete(r.trips, 0, 1)
	}
	r.trips = append(r.trips, max(took, 0))
}

// Waiting says how many invalidations and releases wait.
func (r *Readings) Waiting(n int) { r.waiting = n }

// Latency returns the round trip that most of the last ones do not exceed, 0 while there are few.
func (r *Readings) Latency() time.Duration {
	if len(r.trips) < fewest {
		return 0
	}
	sorted := slices.Sorted(slices.Values(r.trips))
	return sorted[int(float64(len(sorted)-1)*upper)]
}

// Brake returns how hard a work of that pace is braked. Those who wait do not brake urgent work.
func (r *Readings) Brake(p tasks.Pace, urgent bool) Brake {
	tolerated := tolerance*max(r.idle, leastIdle) + ruleOf(p).target
	b := brakeBy(float64(r.Latency())/float64(tolerated), Latency)
	if urgent {
		return b
	}
	return b.Harder(brakeBy(1+float64(max(r.waiting, 0))/crowd, Queue))
}
