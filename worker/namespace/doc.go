// Package namespace works on the keys of one release in the cache Redis: it reads, writes,
// copies, deletes, counts and prunes them.
//
// # Slices
//
// Whole-namespace work is one logical SCAN over the server, cut into slices. A slice is one Lua
// script: it takes a step of the SCAN and works on the keys it found inside the server. Its
// time, taken from the server's own clock around the script, goes to a [Pacer], which says how
// large the next slice may be, lets it begin when its time has come, and refuses it when it would add
// to a server that has no more room. Two things would make a slice
// too long whatever its count, and leave it: a value above a mebibyte or some 2,000 items is moved
// by Go in chunks, and what is found after a mebibyte of values is read by a further script. Only
// types without a portable form (streams, modules) are always moved whole.
//
// Reading is two works side by side: one lists keys, the other reads the values of those listed
// before, each in slices of its own, while the caller deals with what was read last. Values travel
// for longer than they are looked up, and so the server has something to do meanwhile. At most two
// slices are with it at a time. What lies ready is bounded: a slice's keys and eight slices' values.
//
// # Cursors
//
// A cursor handed out between slices is opaque; 0 means the beginning and, handed out, the end.
// A SCAN cursor means nothing to any server process but the one that gave it (the hash seed is
// random), so cursors carry a fingerprint of that process. After a restart or a failover the
// scan begins again from the start; ReadFrom leaves that to its caller. SCAN itself may return a key
// twice, so callers take every entry as if it could come again; all work here is safe twice.
//
// # What SCAN promises
//
// A key that is there from the start of a pass to its end is found. A key that comes or goes
// meanwhile may be missed; for those the invalidation log's mark, write, replay is the remedy.
//
// # Tag indexes
//
// A tag's index must know an entry before the entry can be read, or an invalidation of the tag
// would miss it: Put and Write send the index first. They add to an index and never replace one,
// since application servers may be adding to it too. Copy carries the indexes, then the entries,
// then the indexes again: an entry that appears in the source between the first two is in
// the destination's index when Copy returns. Until then the destination's index may lack
// it, so whoever applies a tag meanwhile must look into the source's index as well.
//
// # What came meanwhile
//
// A reading ends with the tag indexes, and a copy carries them once more, so that what came under way is
// in them. The indexes that were there throughout are known from the SCAN before. Those that came meanwhile
// a watch has heard of: the server tells a connection which keys under a prefix were written to (client-side
// caching in broadcast mode, Redis from 6 on). That spares another SCAN over the whole server. A watch that
// may have missed something, since a connection broke, all was flushed or too much was written, and
// a server or a user without it: then the SCAN is done. On a Cluster it always is.
//
// # Deleting what nobody serves
//
// Purge deletes a whole namespace, and what is served must never be deleted. The fence, a key
// in the cache Redis, names who alone may purge a release; every deleting script checks it in the
// same atomic step. To stop a purge for good, set another token: no later slice deletes anything.
//
// # Fields that expire
//
// Fields of a hash may have expiries of their own (Redis from 7.4 on, Valkey from 9 on). They are
// read and written as absolute times, like those of keys, and COPY keeps them. A field that expires
// while its hash is read is left out; a hash is left out with its last field. A hash in the packed
// encoding without expiries is known by its encoding; any other costs one look-up more for each
// field. A server without the commands is asked once a script whether it has them, and no more.
//
// # Failovers
//
// Replication is asynchronous: a replica that is promoted may lack what was written last, and have
// again what was deleted. Servers names the processes that hold the keys; the name changes with every
// restart and promotion. Replicated waits until the replicas have what was written so far, by a write of its own and
// WAIT, and returns that name. So a work that notes the name at its start, does all it does again when it
// finds another one, and is done only when Replicated returns the one noted, has lost nothing and
// loses nothing afterwards. Purge and SetFence are such works. A replica that is cut off for a moment is
// no less a candidate for promotion: how many there were is kept beside the keys (Keys.Followers), noted by every
// look of package invalidation, and on a Cluster told by its servers. A replica that has not caught up within
// ten seconds is given up, or one that has died would stop all work.
//
// # Reserved keys
//
// Logical keys that begin with # are stoker's: tag indexes, leases, and the parts of a big
// value being written (they expire by themselves when their writer dies). Only tag indexes are
// ever read or written as entries.
//
// # Cluster
//
// Work on a whole namespace is a walk: it visits all primaries of a Redis Cluster in parallel, each with
// slices and a pacer of its own, over a connection that follows no redirection. Slots may move and
// replicas be promoted meanwhile. A walk is rounds of visits between looks:
//
//  1. look: ask every primary for its process, the epoch of its configuration, its slots, and how many
//     keys were ever moved to it; wait until all agree on who owns what and every slot has an owner
//  2. visit the primaries that are left, all of them at first; one that fails with what a failover or
//     a move brings about (MOVED, ASK, CLUSTERDOWN, a broken connection, …) stays left, from its cursor on
//  3. look again. Left are those that failed, and, from their beginning, those that may have been
//     given keys since the last look: a new process, a new epoch, another number of keys moved
//     to it, or slots that it did not have. When none is left, the walk has ended
//
// No key that was there throughout can have been missed. Take the last round in which its server at
// the round's end was visited from the beginning. Had the key come to that server after the look
// before, the server would have gained by the next look, and be left. So it was there
// for the whole visit, and SCAN found it. Two looks that differ in nothing but what was moved
// away prove that nothing came: a promotion changes process or epoch, a slot's move the slots, the
// move of single keys their number (cmdstat_restore-asking; a server that does not tell counts as
// having gained while it imports). An entry may come twice, as everywhere here.
//
// The same position, of each primary what it was and the cursor there, is what Copy and ReadFrom hand out.
// A later walk goes on from it by step 3.
//
// A script touches keys of its server only. Copy is a COPY inside the servers where the template keeps
// an entry's slot in all releases (<app>:<release>:{<key>}), and by value where it does not and for keys
// that are just being moved. Values are read by keys that are arguments of the script, since those of
// many slots cannot be its keys; what the server does not have any more is read through the client.
// A big value is put together under a name in its own slot. Tag indexes are on other servers than
// their entries: Put and Write wait for the indexes, and prune and carry work in steps that change a
// member only while it has the score by which they judged. There are no companions. What an app server's fill
// lists is noted in the entry's slot, under a reserved key of the release (tasks.ListingKeys): package invalidation
// lists it again after a failover.
//
// The fence lies in every slot, so that each deleting script can check one that is local, also on a
// server that was given its first slot a moment ago. It counts only in the process that it was found in
// when the purge began: a promoted replica may have forgotten that somebody took the release back. A
// purge that meets another process ends with [ErrFenceLost], and whoever purges looks again, sets the
// fence again, and begins anew. When it has ended, the fences are removed.
//
// What goes to several servers at once is timed by each server's own clock; the longest time
// counts. A primary that dies takes what its replica lacks with it: a copy or a restore may lack
// entries that it had counted.
//
// A ring of servers that know nothing of one another is refused.
package namespace
