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

	// FieldsExpireAt is of each field of a hash, in the order of Items, Unix milliseconds, 0 for
	// never; nil when none of them expires by itself (Redis from 7.4 on, Valkey from 9 on).
	FieldsExpireAt []int64
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
	if n := len(e.FieldsExpireAt); n > 0 && (e.Type != EntryHash || n != len(e.Items)/2) {
		return fmt.Errorf("%w: entry %s: a %s of %d items with %d expiries of fields", ErrInvalid, Bytes(e.Key), e.Type, len(e.Items), n)
	}
	for _, at := range e.FieldsExpireAt {
		if at < 0 {
			return fmt.Errorf("%w: entry %s: expiry %d of a field", ErrInvalid, Bytes(e.Key), at)
		}
	}
	return nil
}

// GoneAt returns when the entry has expired, be it field by field: Unix milliseconds, 0 for never.
func (e Entry) GoneAt() int64 {
	last := int64(0)
	for _, at := range e.FieldsExpireAt {
		if at == 0 {
			return e.ExpiresAt
		}
		last = max(last, at)
	}
	if last == 0 || e.ExpiresAt != 0 && e.ExpiresAt < last {
		return e.ExpiresAt
	}
	return last
}

// Left returns what is left of the entry at a time in Unix milliseconds; ok is false when nothing is.
func (e Entry) Left(now int64) (left Entry, ok bool) {
	if e.ExpiresAt != 0 && e.ExpiresAt <= now {
		return e, false
	}
	if len(e.FieldsExpireAt) == 0 {
		return e, true
	}
	left = e
	left.Items, left.FieldsExpireAt = nil, nil
	expires := false
	for i, at := range e.FieldsExpireAt {
		if at == 0 || at > now {
			left.Items = append(left.Items, e.Items[2*i:2*i+2]...)
			left.FieldsExpireAt = append(left.FieldsExpireAt, at)
			expires = expires || at != 0
		}
	}
	if !expires {
		left.FieldsExpireAt = nil
	}
	return left, len(left.Items) > 0
}

// Size is the entry's weight in bytes: key and values, without the server's overhead.
func (e Entry) Size() int {
	n := len(e.Key) + len(e.Value)
	for _, it := range e.Items {
		n += len(it)
	}
	return n
}
