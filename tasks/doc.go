// Package tasks is stoker's contract: what an app server imports, and all that the command line,
// the console and the workers share. It does no work of its own beyond recording, reading the
// cache through, and enqueueing.
//
// # Terms
//
//	app         one site whose cache is tended
//	release     one immutable build of it; its entries live in its namespace
//	entry       one cached value, under a logical key: any bytes but a leading '#'
//	tag         a label on entries, for invalidating what belongs together
//	target      what an invalidation names: a key, a tag, or a prefix of logical keys
//	lane        one asynq queue with its own concurrency and polling
//
// # Telling of an edit
//
// Call [Client.Invalidate] after the change is committed at the origin. When it returns nil the
// targets are recorded in the log and will leave every live namespace, whatever dies.
//
// # Filling the cache
//
// [Client.Fetch] reads an entry through the cache. On a miss:
//
//  1. lease  one loader at a time; the server's clock is noted
//  2. mark   a number of the log below every pending invalidation
//  3. load   the origin
//  4. put    tag indexes first, then the entry, with an absolute expiry at the fill limit after (1):
//     a put that arrives later stores nothing, one that is never checked vanishes by itself. On a
//     Cluster a note of what is to be listed comes before both, in the entry's own slot: from it the workers list
//     again what a failover of an index's server has lost ([ListingKeys])
//  5. check  was the key, a tag or a prefix of it invalidated after the mark, or is the release no
//     longer live? then the value is dropped
//  6. settle the entry gets its real expiry, if it is still the very value that was put, and beside it
//     a companion that says which tags it has
//
// A writer in another language keeps the same promise by the same steps and scripts: deploy/fill.md
// is the contract, package tasks/filltest holds a port to it. An entry's tags are those of its
// last put: [Client.FetchTagged] takes them from what was loaded. A writer that leaves the
// companion out keeps the promise too; its entries are also removed by tags that they once had.
// To give an entry one more tag, put it again: listing it is not enough.
//
// # Traces
//
// A call whose context holds an OpenTelemetry span that is recorded has spans below it, made by that
// span's own provider, and the workers go on with the trace: its W3C traceparent travels in the task's
// headers and, with each invalidation, in the record. Without one, calls cost a look at the context.
//
// # Not promised
//
// A value may be visible for one round trip between (4) and (5) although an invalidation has just
// overtaken it. Code that sets keys without these steps can store a stale value after its
// invalidation; stoker cannot know.
package tasks
