// Package snapshot keeps namespaces outside Redis: the archive format, and the stores that
// hold archives.
//
// # The archive
//
// An archive is written and read in one pass, in memory that does not grow with it: one block
// at a time, and the index. All integers are little-endian; a uvarint is that of encoding/binary.
//
//	offset  size  what
//	0       7     magic "STOKERA"
//	7       1     format version, 1 or 2
//	8       …     one header frame, number 0
//	…       …     block frames, numbers 1, 2, 3, …
//	…       …     one index frame, numbered after the last block
//	…       …     one footer frame, numbered after the index; nothing follows it
//
// Every frame:
//
//	offset  size  what
//	0       1     kind: 'H' header, 'B' block, 'I' index, 'F' footer
//	1       4     number of the frame
//	5       4     stored: length of the body in the file
//	9       4     raw: length of the body before compression; equal to stored but in 'B'
//	13      4     'B': entries in the block; 'I': blocks in the index; else 0
//	17      8     XXH64 of the 17 bytes above and the body
//	25      …     body
//
// The header's body is the JSON of [Header], the footer's that of [Footer]. A block's body is a
// zstd frame of entries, one after the other:
//
//	uvarint, bytes    logical key
//	1                 type: 1 string, 2 hash, 3 list, 4 set, 5 sorted set, 6 DUMP payload,
//	                  7 hash some of whose fields expire (format version 2)
//	uvarint           expiry in Unix milliseconds, 0 for never
//	string, payload:  uvarint, bytes
//	type 7:           uvarint (number of fields), then for each uvarint, bytes (field), uvarint,
//	                  bytes (value), uvarint (expiry in Unix milliseconds, 0 for never)
//	other types:      uvarint (number of items), then uvarint, bytes for each
//
// # Versions
//
// Version 2 is version 1 with type 7. A worker that knows only version 1 would take type 7 for
// damage, and salvage around it, so the version says that it may occur; yet only where it may: an
// archive of a server without expiries of fields (Redis before 7.4, Valkey before 9) is of version 1,
// and can be restored after stoker itself was taken back. A version that is not known is refused
// with [ErrNewer] before anything else is read.
//
// Expiries are absolute, so that a restore at any time gives an entry what it had left. A DUMP
// payload ends with its own version: only servers that know it take it.
//
// The index has a line for each block:
//
//	uvarint           offset of its frame
//	uvarint           entries in it
//	uvarint           of them, tag indexes
//	uvarint, bytes    the first 64 bytes of its first key
//
// It tells where an entry may be without reading what is before it and, when a block is
// damaged, what was in there. It is the one thing that grows with the archive in a writer's or
// reader's memory: some 80 bytes for each mebibyte.
//
// A block is cut when the next entry would make it longer than 1 MiB raw; an entry longer than
// that is a block of its own, up to [MaxEntry]. There each of its items counts ten bytes besides its
// own, so that what an archive can make its reader hold is bounded by items, too.
//
// # What damage is found
//
// Every byte of the file is under a frame's checksum or is one of the eight that open it; the
// footer repeats the counts and holds one checksum over all that stands before it. So a bit
// flipped anywhere, a cut anywhere, a block that is missing, doubled or moved, and anything
// after the footer is an error that wraps [ErrDamaged] and names the place. Checksums find
// accidents, not forgers: whoever can write to the store can write an archive that verifies.
//
// No length is believed before its limit is checked, a body is read as it comes, and nothing is
// held for a body that is longer raw than its bytes could make it, so that a short file with a large
// length in it costs little memory.
//
// # Stores
//
// A [Store] holds archives by name: in a directory ([FileStore]) or in a bucket ([S3Store]). [Open]
// makes one from a URL; package storetest holds the contract that every implementation passes.
// [Seal] puts encryption around any of them, so that an archive lies in the store as an age file
// whose content is the archive; everything else in this project sees the archive only. There the
// encryption finds forgers too: nobody without a key can change an archive unseen.
package snapshot
