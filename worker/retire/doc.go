// Package retire takes releases out of Redis: it snapshots a namespace, archives what may come
// back, and expires what may not.
//
// # Snapshot
//
//	mark := OpenReader(namespace)        goes back below unfinished writers
//	note the servers of the cache Redis, and have those that are new among them lack no removal
//	write every entry to a draft, publish it, read it back, hold every byte against the checksums
//	refuse when the release has moved since step 1: a purge may have run under the reading
//	record the descriptor, then delete the archive recorded before, then CloseReader
//
// Now and then, in the middle of the reading, the job keeps a checkpoint: the state of draft and
// archive, and the cursor of the reading. A retry goes on from the last one, and reads and uploads
// only what follows it. Its archive is as good as one that was read in one go:
//
//   - The reader has stayed open, so the mark is the first try's. Every entry in the archive was
//     read after that mark from a live namespace, before or after the kill, and a restore replays
//     every invalidation since. A snapshot is of no single moment anyway: one try takes minutes, too.
//   - A key that is there throughout is found: a SCAN's cursor means the same after the kill, as long
//     as the server is the same process. When it is not, all entries would come again; then the
//     archive begins anew, so that it is never twice as large as it should be.
//   - The servers are the same from the first entry to the last. One that was promoted, or that has
//     started again, may serve for some moments what had been removed before the mark, which no replay
//     would remove again; the archive begins anew, once that has been put right.
//   - The indexes are read after all entries, whichever try read those.
//   - When the release has moved since the first try began, a purge may have run in between, so the
//     archive begins anew, as it does when the draft or a part of it is not what it was.
//   - Whatever went wrong, what is recorded was read back first, every byte of it.
//
// An archive that is published but not recorded is read back and recorded by the retry. An encrypted
// one begins anew: the state of an encryption holds its key. What a task has written that is gone for
// good is dropped when its reader is closed (Forsake).
//
// An archive may still hold an entry twice, since SCAN may return a key twice. A restore writes both,
// the later one last; a drill holds the later one against the namespace; counts count both.
//
// # Archive (standby → archived) and expire (→ expired)
//
//  1. a verified snapshot that is not older than the release's standby (archive only)
//  2. document "purge" := not finished
//  3. move, by compare-and-set: from here on the release is not live and cannot be activated
//  4. fence := a token of this try; state read once more; only then the deleting begins
//  5. delete in slices, each of which checks the fence; the state is read every 20 ms between slices
//  6. a last scan proves the namespace empty, and counts once the replicas have heard of all that was
//     deleted: after a failover before that, deleting begins anew at 4
//  7. document "purge" := finished, on which servers; for an expired release its archive is deleted.
//     A restore need not purge those servers again
//
// # Large values
//
// Keys are unlinked, never deleted: the server's other thread frees them. A set of a million members
// leaves in about 0.1 ms so, where DEL takes a second. Strings the server frees in line whatever the
// command: 64 MiB take some milliseconds, and nothing can cut them.
//
// # Invariants
//
//   - What is served is never deleted. Only archived and expired releases are purged, neither
//     can become active without a restore, and a restore takes the fence before it writes.
//   - At every moment a standby or archived release has its keys, a recorded archive, or both.
//
// # What happens on failure
//
// Killed anywhere, the next try goes on from the ledger's state: before 3 nothing was deleted;
// after it, any archived or expired release whose purge is not finished is purged again, by
// the retry or by the next expiry. A task for one named release keeps in its cursor what it
// was meant to reach, so that its retry does not take the release one state further.
package retire
