// Package invalidation is the workers' half of the log: apply, sweep, mark, replay, trim. The
// clients' half (record, mark, check) is [tasks.Journal].
//
// # Terms
//
//	log      for each target, the number of its last invalidation; one member a target
//	number   max(last + 1, the server's clock in µs): ordered, and never a caller's clock
//	pending  the records not yet applied to every live namespace
//	mark     a number below every pending one; what is read after taking it can be trusted
//	         unless an invalidation above it names it
//	floor    every invalidation above it is in the log; below it some were trimmed
//	epoch    which log: a lost one never passes for an empty one
//
// # Invalidating
//
//  1. record   one script takes a number for each call, writes the targets under the first, adds
//     the record to pending, and nudges the workers
//  2. claim    a worker claims pending records for a second: others leave them alone meanwhile
//  3. apply    read the live set; remove the targets from every namespace in it; only then
//     take the records off pending, and keep what was removed for each call
//
// A worker does 2 and 3 in rounds: when it is nudged, when a task of the invalidate lane reaches
// it, and four times a second, whatever its lanes. So what a dead worker had claimed is applied
// within a second or two. A round takes many records at once. What needs long (a prefix, or a tag
// whose index has very many members) it leaves to rounds of the bulk lane, which hold their
// claim while they work.
//
// Applying twice is harmless: claims save work, and nothing depends on them. A namespace that becomes live between (3)
// reading the set and its end needs no second look: its writers' marks lie below every pending
// number, so their own replay removes the target.
//
// # Writing a value that was read earlier
//
//	mark := OpenMark(namespace, writer)   before reading; a retry keeps the first one
//	values := read the origin
//	for each batch: Check(mark), put what passed, Check(mark) again, remove what failed
//	Replay(namespace, mark)
//	CloseMark(namespace, writer)
//
// A namespace with an open mark can become neither ready nor active (see package release).
// Whoever reads from a cache instead of the origin goes back further (OpenMarkFrom,
// OpenReader): below the open marks of the namespace it reads, and by the fill limit below
// that, because app servers' fills are on probation for that long without being registered.
// The release that it reads must be live when the mark is taken, which the same script checks: the
// values of one that is not lack the invalidations since it ceased to be.
//
// # Tag indexes
//
// Applying a tag removes its entries but only marks their members in the index (a negative score:
// when). It looks at marked members too, for two reasons. Were they forgotten, an entry that a
// carry or a snapshot had copied before the removal would be in the copy without its tag, and no
// replay could find it there; a copy therefore reads the indexes after the entries. And a removal
// can come late, from a second worker or another writer's replay, between the two halves of a put
// that is newer than the invalidation: the entry is right, and its member is marked. A prune drops
// the marks of entries that are gone after a day, far longer than a copy takes.
//
// An entry that is put again with other tags leaves the old ones. Beside a tagged entry lies its
// companion, #of:<key>, which says which tags the entry's value was put with. A removal leaves an
// entry alone when its companion does not list the tag, and marks the member all the same;
// the prune drops it after a day. A companion is a statement about one value: the value's
// SHA-1 and the expiry, to the millisecond, that entry and companion share, must both
// agree, or the entry is removed. So it needs no transaction, may be evicted, and says nothing of a
// value that another client has set, changed in place, or kept longer. Two values pass for
// one only when their bytes and expiries are the same and then, since every writer checks
// its own tags after its put, the younger one's tags are right for both.
//
// There is no companion without an expiry or without tags, for a collection, for a value above
// 64 KiB (a removal reads what it compares), in a copy or a restored archive until the entry
// is put again, and on a Cluster, where the two keys lie in different slots. There a removal
// takes all that the index lists, as it does when in doubt. A companion takes about 80 bytes,
// its key and its tags: 152 bytes for a key of 37 and tags of 37.
//
// On a Cluster an index and its entries are on different servers, and what is one step elsewhere is three: read
// a slice of the index, unlink the entries, mark their members. A writer may come in between. What
// it lists and sets is unlinked, or stays with its member marked, which the next removal and
// the prune know how to take; whether its value is from before the invalidation is for its own check.
// An index may move to another server between two slices: a cursor carries the process that gave it,
// and another begins anew.
//
// # Invariants
//
//   - A value read before an invalidation of it leaves the namespace by apply (it was there),
//     by Check (it came in between) or by Replay (it came later).
//   - The mark of an unfinished writer or reader, and of every snapshot that may be restored,
//     is never below the floor: Trim stops there.
//
// # What happens on failure
//
// A caller that dies before the record's reply does not know; recording again is harmless. A
// worker that dies while applying leaves the record pending; when its claim ends another applies it. A
// writer that dies leaves its mark open; its retry goes on from it, and when its task is gone
// for good the reaper replays and closes it. When the queue Redis is lost, the epoch changes:
// every older mark fails Fresh, and nothing is restored on the strength of it.
//
// # A log that lost records
//
// A promoted replica may lack the last records, an append-only file its tail, and a replaced
// server everything. Every process remembers the epoch and the highest number that it has seen:
// workers by what they apply and by a look every 250 ms ([tasks.Journal.Witness]), clients by
// what was acknowledged to them. A log of that epoch that does not reach as far gets another
// epoch and a floor above all that was seen, in one script: whatever mark was taken before,
// archive, open writer or fill, is not fresh. A client that notices records again the last
// megabyte of what was acknowledged to it. The mark of a dead writer is closed after a replay of
// what is left.
//
// With STOKER_LOG_REPLICAS=n, a record counts as seen once n replicas hold it, by WAIT on the
// connection of the record; no call returns nil before. A failover to one of them then loses
// nothing that was acknowledged, and archives stay fresh.
//
// # A cache Redis that comes back older
//
// Replication is asynchronous, so a promoted replica may lack the last removals, and a server that
// starts again from a dump has none since. What they removed is served again. Every worker therefore
// looks at the cache Redis four times a second, at each primary of a Cluster:
//
//  1. read, in one script on the queue Redis, for each live release a number up to which the log is
//     applied: below the lowest pending record and the release's open marks, and by the fill limit below
//     that (a replica that is promoted is a copy of a cache, so it is read with a reader's mark);
//     and the servers that are known to lack nothing
//  2. in one script on the cache Redis: a server that is known notes those numbers as its watermark. It
//     is known by its run_id and by its replication ID, which every promotion changes. But for a Cluster's it
//     also notes how many replicas it has had, for package namespace
//  3. on a Cluster, list again what fills have listed of late (below)
//  4. a server that is not known has the watermark of the server it descends from, as far as it has
//     followed. Replication, dumps and append-only files keep the order of writes, so it has every
//     removal below that. Replay, in every live release, the log from there on
//  5. only then note the server as known
//
// A worker that dies in between leaves the server unknown; replaying twice is harmless. Sweep and
// Replay look first: nobody flips to a release, and no writer finishes, on a server that lacks removals.
//
// On one server an index is listed in before its entry is set, and replication keeps that order: who has
// the entry has its member. On a Cluster they are on different servers. The promoted server may lack members of
// its indexes whose entries are elsewhere, alive and well, and then neither the replay nor any later invalidation
// of the tag would find these. (The other way round does no harm: members stay for a day behind the removal of their
// entry, so an entry that comes back is still listed.) Therefore a fill of an app server or of a
// refresh does three things, each when the one before is acknowledged:
//
//	note  key and tags, in the entry's own slot, for five minutes ([tasks.ListingKeys])
//	list  the key in the tags' indexes
//	set   the entry
//
// Whoever has lost the note has lost the entry too, which comes behind it in the same slot. So when a server is
// new, its indexes and all others list what the notes of all live releases name, before the replay. A copy that was made
// meanwhile from an index without the member lacks it as well: the entries are listed in each live release that
// has them. One whose copy is not there yet gets its member from the copy itself, which carries the indexes again behind the
// entries. Works on whole namespaces leave no notes: they wait for the replicas at their end, and are done again when
// a server was replaced meanwhile (package namespace).
//
// # Not promised
//
// On a Cluster, an entry is not found by its tag any more when its index's server has lost it and nobody
// looks within five minutes of the fill; when the servers of both are replaced between the two halves of one fill; and
// when it was filled by a client that leaves no note, such as one in another language.
//
// Between a promotion and the end of the replay, a fraction of a second while a worker runs, visitors may
// be served what had been removed. A primary that is cut off but not dead, and that some worker still
// reaches when others have moved on, may take a removal with it to its end unless that worker looks
// once more: min-replicas-to-write bounds for how long such a primary takes writes. What an application
// server removed by itself is not in the log. A server without a watermark is taken for an empty one and
// gets all that the log holds; when the log was trimmed beyond a watermark, which takes a cache Redis that
// comes back an hour old, the health check invalidations.cache says so. A server that does not tell its
// process (INFO is forbidden, or it is embedded) is not looked at.
//
// Without STOKER_LOG_REPLICAS a lost record goes unnoticed when no process that had seen it goes
// on: no worker applied it or looked in between, and the client that it was acknowledged to has
// ended or never calls again. Between a promotion and the next look, at most 250 ms while a worker
// runs, a fill or a batch may be checked against the log that lacks the record. What was lost
// before it was applied, and that no client records again, is missing in live namespaces until
// somebody invalidates it: the health check invalidations.log says which times to look at.
// Replicas hold a record in memory: WAIT does not wait for their disks.
package invalidation
