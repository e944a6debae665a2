package tasks

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestLeft(t *testing.T) {
	items := []string{"a", "1", "b", "2", "c", "3"}
	for name, c := range map[string]struct {
		entry  Entry
		left   []string
		fields []int64
		goneAt int64
	}{
		"never":            {Entry{Type: EntryHash, Items: items}, items, nil, 0},
		"expired":          {Entry{Type: EntryHash, Items: items, ExpiresAt: 100}, nil, nil, 100},
		"some fields":      {Entry{Type: EntryHash, Items: items, FieldsExpireAt: []int64{100, 0, 101}}, items[2:], []int64{0, 101}, 0},
		"no field expires": {Entry{Type: EntryHash, Items: items, FieldsExpireAt: []int64{100, 0, 0}}, items[2:], nil, 0},
		"all fields":       {Entry{Type: EntryHash, Items: items, FieldsExpireAt: []int64{100, 99, 1}, ExpiresAt: 500}, nil, nil, 100},
		"the key earlier":  {Entry{Type: EntryHash, Items: items, FieldsExpireAt: []int64{300, 200, 300}, ExpiresAt: 250}, items, []int64{300, 200, 300}, 250},
	} {
		left, ok := c.entry.Left(100)
		if ok != (c.left != nil) || ok && (!cmp.Equal(left.Items, c.left) || !cmp.Equal(left.FieldsExpireAt, c.fields)) || c.entry.GoneAt() != c.goneAt {
			t.Errorf("%s: %+v, %v; gone at %d", name, left, ok, c.entry.GoneAt())
		}
	}
}

// TestLeftAgrees: an entry is gone from GoneAt on and not before, and what is left is as valid as it was.
func TestLeftAgrees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 5).Draw(t, "fields")
		time := rapid.Int64Range(0, 10)
		e := Entry{Type: EntryHash, ExpiresAt: time.Draw(t, "expiry"), FieldsExpireAt: rapid.SliceOfN(time, n, n).Draw(t, "expiries")}
		for range n {
			e.Items = append(e.Items, "f", "v")
		}
		now := rapid.Int64Range(1, 11).Draw(t, "now")
		left, ok := e.Left(now)
		if gone := e.GoneAt(); ok != (gone == 0 || gone > now) {
			t.Fatalf("left %v at %d of %+v, gone at %d", ok, now, e, gone)
		}
		if err := left.Validate(); ok && err != nil {
			t.Fatalf("left %+v of %+v: %v", left, e, err)
		}
	})
}
