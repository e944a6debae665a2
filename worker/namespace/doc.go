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
// slices are with it at a time. What lies ready is bounded: a slice's keys and a slice's values.
//
// # Cursors
//
// A cursor handed out between slices is opaque; 0 means the beginning and, handed out, the end.
// A SCAN cursor means nothing to any server process but the one that gave it (the hash seed is
// random), so cursors carry a fingerprint of that process. After a restart or a failover the
// scan begins again from the start; ReadFrom leaves that to its caller. SCAN itself may return a key twice, so callers take every
// entry as if it could come again; all work here is safe twice.
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
// What scans goes over all primaries in parallel, and once more over those that may have been given keys
// meanwhile. Work on named keys (Put, Write, Remove, Lookup) runs on any client. What scans is refused on a
// ring of servers that know nothing of one another.
package namespace
