// Package restore brings an earlier release back: by a flip when it stands by, or from its
// archive. What it brings back is fresh, or the rollback is refused.
//
// # Standby
//
//  1. choose the release; from here on a retry means the same one (cursor)
//  2. sweep: apply everything pending, to every live namespace, and so to this one
//  3. take a mark N: all that was invalidated up to N has left the namespace
//  4. flip; report "fresh as of number N"
//
// # Archived
//
//  1. refuse unless the log reaches back to the snapshot's mark, every byte of the archive
//     agrees with the checksums that its writer made, the cache Redis
//     has room for it and knows the types in it; nothing was changed so far. A damaged archive
//     is salvaged when that was asked for: the blocks that are whole come back, provided that
//     all tag indexes are among them
//  2. move archived → restoring: live, so every invalidation from now on reaches it
//  3. open a mark at the snapshot's: the log is kept, and nobody can flip to the release
//  4. take the fence, which stops any purge that still runs; purge what it left, unless an expiry has
//     proved that there is nothing on the servers of now: they have lost no removal since
//  5. write the archive's entries, a block while the one before it is written, then all of
//     its tag indexes: a tag that is invalidated meanwhile loses its index, and what is written
//     after that would escape the replay. Expired entries are left out
//  6. replay: apply every invalidation since the snapshot's mark
//  7. prove: of a sample of the archive's entries, each is there, or has expired, or was
//     invalidated since the mark
//  8. wait until the replicas of the cache Redis have all of that. Steps 4 to 8 are done on the
//     same servers: where one was promoted or has started again since 4, they are done anew
//  9. close the mark, move restoring → standby, go on as above
//
// # Drill
//
//  1. note a new scratch namespace, whose name no release can have and which is never live
//  2. verify as above; write the archive into it; compare all of it by type, value and expiry
//  3. replay the log on it, for its time alone
//  4. purge it behind a fence of its own, cross it off, keep the outcome with the release
//
// A drill that dies is found by its note: its retry, the next drill or the daily housekeeping
// purges what it left.
//
// # What happens on failure
//
// Killed anywhere, the retry goes on from its cursor; a block that was written but not yet in
// the cursor is written again, which the replay makes harmless. The cursor names the servers that it
// speaks of: one that was promoted may lack the last blocks, and all that stands before them in the
// cursor, or have again what was cleared. When the restore itself fails,
// the release goes back to archived, its keys are purged again and the archive stays. A
// restore whose task is gone for good shows no sign of life in the ledger (DocRestore); after
// [AbandonedAfter] another rollback to the release takes over and begins anew.
//
// A rollback never overrides a later decision: when another release has become active since it
// was asked for, it stops before the flip, and when its release has been active since, it is done.
package restore
