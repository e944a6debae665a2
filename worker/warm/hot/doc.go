// Package hot finds out what visitors want most, so that a warm begins with it, a sample is taken by
// it and the certificate weighs with it.
//
// A [List] comes from one of two places. An access log in common or combined format tells how often
// each path was asked for; rotated and compressed files count as well. The namespace of an earlier release
// tells how much each key is used, as far as the cache Redis counts that: its frequency under an LFU
// policy, otherwise only when it was used last.
//
// # What counts
//
// Of a log: GET requests that were answered with a 2xx or a 304, without stoker's own. Of a line
// that is not of the format nothing counts; a log most of whose lines are not is refused.
//
// # Memory
//
// A log may name millions of paths. They are counted by the space-saving algorithm (Metwally, Agrawal and
// El Abbadi, "Efficient computation of frequent and top-k elements in data streams", 2005) in a fixed number
// of counters. A count that it gives is never more than the true one here: what a path may owe
// to others is taken off. It falls short of the true one by at most all requests / counters.
package hot
