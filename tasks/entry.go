package tasks

import "fmt"

// The types of an [Entry]: Redis's own for those with a portable encoding, TypeDump otherwise.
const (
	EntryString = "string"
	EntryHash   = "hash"
	EntryList   = "list"
	EntrySet    = "set"
	EntryZSet   = "zset"
	EntryDump   = "dump" // Value is a DUMP payload; only servers of the same or a later version take it
)

// Entry is one cached value in a form that does not depend on the server that held it.
type Entry struct {
	Key       string   // logical key, any bytes
	Type      string   // one of the Entry… constants
	ExpiresAt int64    // Unix milliseconds; 0 means never
	Value     string   // of a string or dump
	Items     []string // list: elements in order; set: members; hash: field, value, …; zset: member, score, …
}

// Validate reports an entry that no server could have held.
func (e Entry) Validate() error {
	switch e.Type {
	case EntryString, EntryDump:
		if len(e.Items) != 0 {
			return fmt.Errorf("%w: entry %s: a %s has no items", ErrInvalid, Bytes(e.Key), e.Type)
		}
	case EntryHash, EntryZSet:
		if len(e.Items) == 0 || len(e.Items)%2 != 0 {
			return fmt.Errorf("%w: entry %s: a %s of %d items", ErrInvalid, Bytes(e.Key), e.Type, len(e.Items))
		}
	case EntryList, EntrySet:
		if len(e.Items) == 0 {
			return fmt.Errorf("%w: entry %s: an empty %s", ErrInvalid, Bytes(e.Key), e.Type)
		}
	default:
		return fmt.Errorf("%w: entry %s: unknown type %q", ErrInvalid, Bytes(e.Key), e.Type)
	}
	if e.ExpiresAt < 0 {
		return fmt.Errorf("%w: entry %s: expiry %d", ErrInvalid, Bytes(e.Key), e.ExpiresAt)
	}
	return nil
}

// Size is the entry's weight in bytes: key and values, without the server's overhead.
func (e Entry) Size() int {
	n := len(e.Key) + len(e.Value)
	for _, it := range e.Items {
		n += len(it)
	}
	return n
}
