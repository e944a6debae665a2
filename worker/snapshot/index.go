package snapshot

import (
	"encoding/binary"
	"fmt"

	"github.com/alphanode/stoker/tasks"
)

// Place is what the index tells of one block.
type Place struct {
	Number  int         // of the block, from 1
	Offset  int64       // of its frame in the file
	Entries int64       // in it
	Tags    int64       // of them, how many are tag indexes
	First   tasks.Bytes // key of its first entry, cut off after firstLen bytes
}

// firstLen is how much of a block's first key the index keeps.
const firstLen = 64

// appendPlace adds a block's line to an index.
func appendPlace(b []byte, p Place) []byte {
	b = binary.AppendUvarint(b, uint64(p.Offset))
	b = binary.AppendUvarint(b, uint64(p.Entries))
	b = binary.AppendUvarint(b, uint64(p.Tags))
	return appendString(b, string(p.First))
}

// placeOf describes the block of those entries.
func placeOf(number int, offset int64, entries []tasks.Entry) Place {
	p := Place{Number: number, Offset: offset, Entries: int64(len(entries))}
	for _, e := range entries {
		p.Tags += isTag(e)
	}
	if len(entries) > 0 {
		p.First = firstOf(entries[0].Key)
	}
	return p
}

// firstOf cuts a key for the index. It is a copy, so that it does not keep its block.
func firstOf(key string) tasks.Bytes {
	return tasks.Bytes([]byte(key[:min(len(key), firstLen)]))
}

// isTag counts 1 for a tag index.
func isTag(e tasks.Entry) int64 {
	if _, ok := tasks.TagOf(e.Key); ok {
		return 1
	}
	return 0
}

// parseIndex reads the lines of n blocks.
func parseIndex(body []byte, n int) ([]Place, error) {
	p := parser{text: string(body)}
	out := make([]Place, 0, min(n, 4096))
	for i := range n {
		var line [3]uint64
		for j := range line {
			v, err := p.uvarint(1<<63 - 1)
			if err != nil {
				return nil, fmt.Errorf("index: block %d: %w", i+1, err)
			}
			line[j] = v
		}
		first, err := p.string()
		if err != nil {
			return nil, fmt.Errorf("index: block %d: %w", i+1, err)
		}
		out = append(out, Place{i + 1, int64(line[0]), int64(line[1]), int64(line[2]), firstOf(first)})
	}
	if p.pos != len(p.text) {
		return nil, fmt.Errorf("index: %d bytes left after the last of %d blocks", len(p.text)-p.pos, n)
	}
	return out, nil
}

// DumpVersion returns the version that a DUMP payload ends with, 0 when it is too short for one:
// only servers that know this version take it.
func DumpVersion(payload string) int {
	const tail = 10 // version, checksum
	if len(payload) < tail {
		return 0
	}
	return int(binary.LittleEndian.Uint16([]byte(payload[len(payload)-tail:])))
}

// count adds an entry to a footer.
func (f *Footer) count(e tasks.Entry) {
	f.Entries++
	f.Bytes += int64(e.Size())
	f.Tags += isTag(e)
	if e.Type == tasks.EntryDump {
		f.Dumps++
		f.DumpVersion = max(f.DumpVersion, DumpVersion(e.Value))
	}
}
