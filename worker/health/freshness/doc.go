// Package freshness looks whether what the caches hold is what the origin says. The protocol promises
// it for every edit that was announced; this is how somebody learns of the edit that was not, of
// the writer that does not follow the protocol, and of a fault in stoker itself. The idea is that
// of Meta's Polaris ("Cache made consistent", 2022), cut down for a small site.
//
// # Terms
//
//	place      a live namespace, or the archive that a rollback would restore
//	entry      of a place; its value is compared with what the release's plan makes of the origin now
//	suspect    an entry that differed; kept in the queue Redis until its case is clear
//	stale      a suspect that still differed after one minute, and again after five
//
// # A look
//
//  1. take a mark of the log, below every pending invalidation
//  2. read entries of the place: a few at random, and the suspects that are due
//  3. read the same entries from the origin
//  4. what differs is overtaken if the log has an invalidation of it above the mark that it was
//     last seen under: it is about to leave, or has left, and is no suspect (a new one, when it is
//     still there)
//
// An edit between 2 and 3 looks like a stale entry until its invalidation is applied. That is what
// the second and third look are for: a suspect whose entry is gone, holds another value, or agrees by
// then is cleared. An origin that lags ([Deps.OriginLag]) is given as much longer.
//
// A value that was rewritten but still differs starts over: a busy entry is stale only when one
// value of it has been wrong for five minutes.
//
// An archive does not change, so of its suspects the value's fingerprint is enough. What was
// invalidated since its mark would not be restored, and so differs from nothing.
//
// # What can be compared
//
// Entries that are strings and whose key belongs to a query of the plan alone. JSON is compared by what
// it says, anything else byte by byte. A page that a crawl made is not comparable: asking the site
// again would answer from the very cache that is in question, or fill it. Nor is an entry that the
// plan's query has no row for: it may be deleted, or outside what the plan selects.
// What is not comparable is counted and never called stale.
//
// # The load
//
// A look reads at most [Config.FreshnessSample] entries of each place, the suspects first. An archive
// is read for a sample four times a day.
//
// # The figure
//
// The share of stale entries is unknown; what can be said after n comparisons with k of them stale is
// what it is at most, with 95 % confidence (Clopper and Pearson, one-sided: with k = 0 about
// 3/n). Nines are that bound's: 0.1 % at most is 3 nines at least.
//
// # Not promised
//
// That a stale entry is found: it is sampled with a chance. Nor that the plan speaks the truth: when the
// site itself stores values of another form under the plan's keys, they all differ.
package freshness
