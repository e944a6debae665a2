// Package governor decides how hard stoker may work on the cache Redis, so that visitors do not
// notice. It is pure arithmetic: samples in, pace out; no clock, no server. Package throttle below
// it takes the samples and makes works wait.
//
// # Slices and pauses
//
// Work on a namespace is cut into slices. A Redis server does one thing at a time, so a slice
// makes every visitor who arrives during it wait for its end: the size of a slice bounds the
// wait, the pause between slices bounds how many visitors wait at all. After each slice a [Governor]
// is given the server time it took and the items it went through, and says how large the next
// one may be and how long the pause before it is.
//
// The size follows the measured cost of an item towards a target time. A slice above the
// target shrinks the next one at once, in proportion; one below it lets the next one grow by
// a quarter at most. A slice that failed (no items) halves the size and doubles a pause that
// only successes end. So errors and slowness slow the work down quickly, and neither ever
// speeds it up.
//
// # The brake
//
// How a server fares beside the work is in its [Readings]:
//
//   - Round trips, as a visitor has them, against the fastest of some that were taken when the
//     sampling began. What the work's own slices explain is no reason to brake; what goes beyond
//     makes slices smaller and pauses longer in proportion. One that was not answered counts as a
//     very slow one.
//   - Invalidations and releases that wait in their lanes. Work that others wait for is
//     not braked by them: it is what they wait for.
//   - Memory, against maxmemory less the headroom. Work that adds to it ends there, with an error;
//     work that frees it goes on.
//
// The brake's factor divides both the slices' target and the share of the time spent in them. Slower,
// fuller and deeper never speed anything up, and a reading that failed leaves the one before it.
// On a Cluster each primary has readings of its own.
//
// # Not promised
//
// The first slices of a work whose items are very large may miss the target, and a single item
// that takes longer than the target cannot be cut here. Workers do not know of one another: each
// process keeps to its pace, and where several together are too much, all of them see it as
// latency. Memory is looked at every [Every] while work adds to it; what visitors and the work
// take within that time is what the headroom is for.
package governor
