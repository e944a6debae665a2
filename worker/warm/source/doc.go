// Package source is what the sources of a warm plan have in common: the interface that the
// runner drives, the templates they render and the small types of the plan they share.
//
// A source reads; the runner decides what may be written. The runner has registered the
// batch's mark before it calls [Source.Walk], so everything a source reads is read after the
// mark, and the runner checks each [Chunk] against the log before and after its write. What a
// source does not do: look at the log, count, retry a chunk, or keep its position.
package source
