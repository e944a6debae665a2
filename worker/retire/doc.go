// Package retire takes releases out of Redis: it snapshots a namespace, archives what may come
// back, and expires what may not.
//
// # Snapshot
//
//	mark := OpenReader(namespace)        goes back below unfinished writers
//	write every entry to a draft, publish it, read it back, check every byte
//	refuse when the release has moved since step 1: a purge may have run under the reading
//	record the descriptor, then delete the archive recorded before, then CloseReader
//
// # Archive (standby → archived) and expire (→ expired)
//
//  1. a verified snapshot that is not older than the release's standby (archive only)
//  2. document "purge" := not finished
//  3. move, by compare-and-set: from here on the release is not live and cannot be activated
//  4. fence := a token of this try; state read once more; only then the deleting begins
//  5. delete in slices, each of which checks the fence; the state is read every 20 ms between slices
//  6. a last scan proves the namespace empty
//  7. document "purge" := finished; for an expired release its archive is deleted
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
