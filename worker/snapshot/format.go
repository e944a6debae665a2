package snapshot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/alphanode/stoker/tasks"
)

// ErrDamaged: the archive is not what its writer wrote. The message names the place.
var ErrDamaged = errors.New("archive is damaged")

// ErrNewer: the archive is of a format version that this stoker does not know.
var ErrNewer = tasks.ErrNewer

// archives are the format versions: see the package comment.
var archives = tasks.NewFormat("archive", versionFields)

const (
	magic = "STOKERA"

	// The format versions. An archive is of the lowest that can hold what may be in it, so that it
	// stays readable for workers from before an upgrade wherever that is possible.
	versionPlain  = 1
	versionFields = 2 // its hashes may have fields that expire

	// MaxEntry is the longest entry that an archive holds, in bytes: what a Redis server
	// takes as one string unless told otherwise.
	MaxEntry = 512 << 20

	blockTarget = 1 << 20                // raw bytes at which a block is cut
	minEntry    = 4                      // raw bytes of the shortest entry
	maxItems    = MaxEntry / itemSize    // items of an entry
	itemSize    = 10                     // raw bytes that an item counts at least, whatever its length
	maxRatio    = 32 << 10               // zstd's best: 4 bytes for 128 KiB
	maxStored   = MaxEntry + MaxEntry>>7 // zstd adds a little to what it cannot compress
	maxMeta     = 64 << 10               // bytes of a header's or footer's body
	maxIndex    = 256 << 20              // bytes of the index: some 80 a block
)

// Header says what an archive holds and when it was read.
type Header struct {
	App     string      `json:"app"`
	Release string      `json:"release"`
	Prefix  tasks.Bytes `json:"prefix"` // of the release's keys when they were read; entries carry logical keys
	Mark    int64       `json:"mark"`   // the position in the log that a restore replays from
	Epoch   string      `json:"epoch"`  // of the log that Mark belongs to
	Server  string      `json:"server"` // version of the server that wrote the DUMP payloads
	Created time.Time   `json:"created"`

	// Fields says that fields of hashes may expire, as the server that was read lets them. It makes the
	// archive one of format version 2.
	Fields bool `json:"-"`
}

func (h Header) version() byte {
	first := versionPlain
	if h.Fields {
		first = versionFields
	}
	return byte(archives.For(first))
}

// Footer closes an archive.
type Footer struct {
	Blocks      int    `json:"blocks"`
	Entries     int64  `json:"entries"`
	Bytes       int64  `json:"bytes"`                  // sum of tasks.Entry.Size
	Tags        int64  `json:"tags"`                   // of the entries, how many are tag indexes
	Dumps       int64  `json:"dumps,omitempty"`        // of the entries, how many are DUMP payloads
	DumpVersion int    `json:"dump_version,omitempty"` // the newest among theirs
	Checksum    string `json:"checksum"`               // XXH64 of all that stands before the footer, in hexadecimal
}

// Summary is what is known of an archive that was written or read to its end.
type Summary struct {
	Header
	Footer
	Size int64 `json:"size"` // of the file, in bytes

	// Needs is what all of its entries need, expired ones among them; zero where no entry was looked at,
	// as by [Skim], and of an archive that was gone on with behind a checkpoint which does not tell.
	Needs Needs `json:"-"`
}

type kind byte

const (
	kindHeader kind = 'H'
	kindBlock  kind = 'B'
	kindIndex  kind = 'I'
	kindFooter kind = 'F'
)

const (
	headSize   = 25
	headSummed = 17 // bytes of the head that the checksum covers
)

// head is the fixed part of a frame.
type head struct {
	kind    kind
	number  uint32
	stored  uint32
	raw     uint32
	entries uint32
	sum     uint64
}

func (h head) append(b []byte) []byte {
	b = append(b, byte(h.kind))
	b = binary.LittleEndian.AppendUint32(b, h.number)
	b = binary.LittleEndian.AppendUint32(b, h.stored)
	b = binary.LittleEndian.AppendUint32(b, h.raw)
	b = binary.LittleEndian.AppendUint32(b, h.entries)
	return binary.LittleEndian.AppendUint64(b, h.sum)
}

func parseHead(b []byte) head {
	return head{
		kind:    kind(b[0]),
		number:  binary.LittleEndian.Uint32(b[1:]),
		stored:  binary.LittleEndian.Uint32(b[5:]),
		raw:     binary.LittleEndian.Uint32(b[9:]),
		entries: binary.LittleEndian.Uint32(b[13:]),
		sum:     binary.LittleEndian.Uint64(b[17:]),
	}
}

// check refuses lengths beyond their limits before anything is read or allocated by them.
func (h head) check() error {
	switch h.kind {
	case kindHeader, kindFooter:
		if h.stored > maxMeta || h.raw != h.stored || h.entries != 0 {
			return fmt.Errorf("lengths %d, %d, %d are not those of a header or footer", h.stored, h.raw, h.entries)
		}
	case kindIndex:
		if h.stored > maxIndex || h.raw != h.stored || h.entries > h.raw {
			return fmt.Errorf("lengths %d, %d, %d are not those of an index", h.stored, h.raw, h.entries)
		}
	case kindBlock:
		if h.stored > maxStored || h.raw > MaxEntry || h.entries == 0 || h.entries > h.raw/minEntry ||
			h.entries > 1 && h.raw > blockTarget || uint64(h.raw) > maxRatio*uint64(h.stored) {
			return fmt.Errorf("lengths %d, %d, %d are not those of a block", h.stored, h.raw, h.entries)
		}
	default:
		return fmt.Errorf("unknown kind %q", byte(h.kind))
	}
	return nil
}

func frameSum(head, body []byte) uint64 {
	d := xxhash.New()
	_, _ = d.Write(head[:headSummed])
	_, _ = d.Write(body)
	return d.Sum64()
}
