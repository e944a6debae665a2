package snapshot

import (
	"math/bits"

	"github.com/alphanode/stoker/tasks"
)

// Needs is what entries need of the server that they are restored into.
type Needs struct {
	Memory      int64 `json:"memory"`                 // bytes, an estimate
	Dumps       int64 `json:"dumps,omitempty"`        // entries that are DUMP payloads
	DumpVersion int   `json:"dump_version,omitempty"` // the newest among theirs
	Fields      int64 `json:"fields,omitempty"`       // hashes with fields that expire
}

// Add adds what an entry needs under a key that is longer than its own by prefix bytes.
func (n *Needs) Add(e tasks.Entry, prefix int) {
	n.Memory += footprint(e, prefix)
	if len(e.FieldsExpireAt) > 0 {
		n.Fields++
	}
	if e.Type == tasks.EntryDump {
		n.Dumps++
		n.DumpVersion = max(n.DumpVersion, DumpVersion(e.Value))
	}
}

// What Redis adds to the bytes of an entry, on a 64-bit machine.
const (
	keyOverhead    = 24 + 8 + 16 + 8 // the dictionary's entry and slot, the object, the key's header
	expiryOverhead = 24 + 8          // the same in the dictionary of expiries
	itemOverhead   = 24 + 8 + 8      // a member of a table: entry, slot, header
	scoreOverhead  = 40              // a member's node in a skip list
	fieldOverhead  = 32              // the expiry of a field in a table
	packedOverhead = 4               // an item of a packed list
	packedField    = 12              // the expiry of a field in a packed hash
	packedBytes    = 64              // bytes of an item up to which a collection is packed, by default
)

// packedItems are the items up to which a collection is packed, by default. (Sets of few are from
// Redis 7.2 on; here they are not, to be on the safe side.)
var packedItems = map[string]int{tasks.EntryHash: 512, tasks.EntryZSet: 128}

// footprint estimates the bytes of memory that an entry takes in a Redis with default settings, under a
// key that is longer than its own by prefix bytes.
func footprint(e tasks.Entry, prefix int) int64 {
	n := keyOverhead + class(prefix+len(e.Key)+2)
	if e.ExpiresAt != 0 {
		n += expiryOverhead
	}
	if e.Type == tasks.EntryString || e.Type == tasks.EntryDump {
		return n + class(len(e.Value)+4)
	}
	longest, sum := 0, 0
	for _, it := range e.Items {
		longest, sum = max(longest, len(it)), sum+len(it)
	}
	width := 1
	if e.Type == tasks.EntryHash || e.Type == tasks.EntryZSet {
		width = 2
	}
	if e.Type == tasks.EntryList || len(e.Items)/width <= packedItems[e.Type] && longest <= packedBytes {
		return n + class(sum+packedOverhead*len(e.Items)+packedField*len(e.FieldsExpireAt)+16)
	}
	n += int64(fieldOverhead * len(e.FieldsExpireAt))
	for i, it := range e.Items {
		switch {
		case e.Type == tasks.EntryZSet && i%2 == 1:
			n += scoreOverhead
		case i%width == 0:
			n += itemOverhead + class(len(it)+2)
		default:
			n += class(len(it) + 2)
		}
	}
	return n
}

// class rounds a size up to what the allocator gives: a quarter of the power of two below it.
func class(n int) int64 {
	if n <= 16 {
		return 16
	}
	step := max(16, 1<<(bits.Len(uint(n-1))-3))
	return int64((n + step - 1) / step * step)
}
