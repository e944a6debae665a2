package snapshot

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/alphanode/stoker/tasks"
)

// Query says which entries of an archive to look at.
type Query struct {
	Prefix string  // of logical keys; "" for all
	Match  string  // a pattern as of Redis's SCAN, for the whole key; "" for all
	Key    *string // this entry alone, with its value
	Limit  int     // entries listed at most
}

// Contents is what is in an archive, or the part of it that was asked for.
type Contents struct {
	Summary
	Matched int64            `json:"matched"` // entries
	Weight  int64            `json:"weight"`  // bytes of their keys and values
	Types   map[string]int64 `json:"types"`   // entries of each type
	Listed  []Listed         `json:"listed"`  // the first of them
}

// Listed is one entry as an archive holds it.
type Listed struct {
	Key       tasks.Bytes   `json:"key"`
	Type      string        `json:"type"`
	Bytes     int           `json:"bytes"`           // of key and value
	Items     int           `json:"items,omitempty"` // of a collection: elements, members or fields
	ExpiresAt time.Time     `json:"expires_at,omitzero"`
	Value     *tasks.Bytes  `json:"value,omitempty"`           // of a string or DUMP payload; with Query.Key only
	Expiring  int           `json:"expiring_fields,omitempty"` // of a hash: fields that expire by themselves
	Values    []tasks.Bytes `json:"values,omitempty"`          // list: elements; set: members; hash: field, value, …; zset: member, score, …

	// FieldsExpireAt is of each field of a hash that has some that expire, null for never.
	FieldsExpireAt []*time.Time `json:"fields_expire_at,omitempty"`
}

// Inspect reads an archive to its end and returns what the query asks for. A damaged archive is an
// error that wraps [ErrDamaged]. A key that was read twice while the archive was written is in
// it twice, and the later entry is what a restore leaves; with Query.Key that one alone is listed.
func Inspect(ctx context.Context, r io.Reader, q Query) (Contents, error) {
	in, err := NewReader(r)
	if err != nil {
		return Contents{}, err
	}
	c := Contents{Types: map[string]int64{}, Listed: []Listed{}}
	for {
		if err := ctx.Err(); err != nil {
			return Contents{}, err
		}
		b, err := in.Next()
		if err == io.EOF {
			c.Summary = in.Summary()
			return c, nil
		}
		if err != nil {
			return Contents{}, err
		}
		for _, e := range b.Entries {
			if q.takes(e.Key) {
				c.add(e, q)
			}
		}
	}
}

func (q Query) takes(key string) bool {
	if q.Key != nil {
		return key == *q.Key
	}
	return strings.HasPrefix(key, q.Prefix) && (q.Match == "" || glob(q.Match, key))
}

func (c *Contents) add(e tasks.Entry, q Query) {
	c.Matched++
	c.Weight += int64(e.Size())
	c.Types[e.Type]++
	if q.Key != nil {
		c.Listed = c.Listed[:0]
	} else if len(c.Listed) >= q.Limit {
		return
	}
	// Clones: an entry's strings are part of its block's text, all of which they would keep.
	l := Listed{Key: tasks.Bytes(strings.Clone(e.Key)), Type: e.Type, Bytes: e.Size(), Items: itemsOf(e)}
	if e.ExpiresAt != 0 {
		l.ExpiresAt = time.UnixMilli(e.ExpiresAt).UTC()
	}
	for _, at := range e.FieldsExpireAt {
		if at != 0 {
			l.Expiring++
		}
	}
	if q.Key != nil && single(e.Type) {
		value := tasks.Bytes(strings.Clone(e.Value))
		l.Value = &value
	} else if q.Key != nil {
		for _, it := range e.Items {
			l.Values = append(l.Values, tasks.Bytes(strings.Clone(it)))
		}
		for _, at := range e.FieldsExpireAt {
			l.FieldsExpireAt = append(l.FieldsExpireAt, timeOf(at))
		}
	}
	c.Listed = append(c.Listed, l)
}

// timeOf returns an expiry, nil for never.
func timeOf(expiry int64) *time.Time {
	if expiry == 0 {
		return nil
	}
	at := time.UnixMilli(expiry).UTC()
	return &at
}

func itemsOf(e tasks.Entry) int {
	if e.Type == tasks.EntryHash || e.Type == tasks.EntryZSet {
		return len(e.Items) / 2
	}
	return len(e.Items)
}

// glob reports whether a pattern matches all of s, by the rules of Redis's SCAN: * any bytes, ?
// one byte, [ab], [a-z] and [^a] one of a set, \x the byte x.
func glob(pattern, s string) bool {
	for pattern != "" {
		switch pattern[0] {
		case '*':
			pattern = strings.TrimLeft(pattern, "*")
			for i := range len(s) + 1 {
				if glob(pattern, s[i:]) {
					return true
				}
			}
			return false
		case '[':
			if s == "" {
				return false
			}
			rest, ok := oneOf(pattern[1:], s[0])
			if !ok {
				return false
			}
			pattern, s = rest, s[1:]
			continue
		case '\\':
			if len(pattern) > 1 {
				pattern = pattern[1:]
			}
			if s == "" || s[0] != pattern[0] {
				return false
			}
		default:
			if s == "" || pattern[0] != '?' && pattern[0] != s[0] {
				return false
			}
		}
		pattern, s = pattern[1:], s[1:]
	}
	return s == ""
}

// oneOf matches c against the set that the pattern begins with, and returns what follows the set.
func oneOf(pattern string, c byte) (rest string, ok bool) {
	not := strings.HasPrefix(pattern, "^")
	pattern = strings.TrimPrefix(pattern, "^")
	for pattern != "" && pattern[0] != ']' {
		if pattern[0] == '\\' && len(pattern) > 1 {
			pattern = pattern[1:]
		}
		low, high := pattern[0], pattern[0]
		pattern = pattern[1:]
		if len(pattern) > 1 && pattern[0] == '-' && pattern[1] != ']' {
			high, pattern = pattern[1], pattern[2:]
		}
		ok = ok || min(low, high) <= c && c <= max(low, high)
	}
	return strings.TrimPrefix(pattern, "]"), ok != not
}
