package restore

import (
	"testing"

	"github.com/alphanode/stoker/tasks"
)

func TestSame(t *testing.T) {
	hash := func(expiry int64, fields []int64, items ...string) tasks.Entry {
		return tasks.Entry{Key: "k", Type: tasks.EntryHash, ExpiresAt: expiry, Items: items, FieldsExpireAt: fields}
	}
	const limit = 1000
	want := hash(5000, []int64{2000, 0, 900}, "a", "1", "b", "2", "c", "3")
	for name, c := range map[string]struct {
		got  tasks.Entry
		same bool
	}{
		"itself":                 {want, true},
		"another order":          {hash(5000, []int64{0, 900, 2000}, "b", "2", "c", "3", "a", "1"), true},
		"a millisecond off":      {hash(5001, []int64{1999, 0, 901}, "a", "1", "b", "2", "c", "3"), true},
		"without what is past":   {hash(5000, []int64{2000, 0}, "a", "1", "b", "2"), true},
		"two milliseconds off":   {hash(5000, []int64{2002, 0, 900}, "a", "1", "b", "2", "c", "3"), false},
		"a field that stays":     {hash(5000, []int64{0, 0, 900}, "a", "1", "b", "2", "c", "3"), false},
		"no field expires":       {hash(5000, nil, "a", "1", "b", "2", "c", "3"), false},
		"a field that goes":      {hash(5000, []int64{2000, 3000, 900}, "a", "1", "b", "2", "c", "3"), false},
		"without a lasting one":  {hash(5000, []int64{2000, 900}, "a", "1", "c", "3"), false},
		"without a later one":    {hash(5000, []int64{0, 900}, "b", "2", "c", "3"), false},
		"one more":               {hash(5000, []int64{2000, 0, 900, 0}, "a", "1", "b", "2", "c", "3", "d", "4"), false},
		"another value":          {hash(5000, []int64{2000, 0, 900}, "a", "1", "b", "!", "c", "3"), false},
		"another expiry":         {hash(5002, []int64{2000, 0, 900}, "a", "1", "b", "2", "c", "3"), false},
		"another type":           {tasks.Entry{Key: "k", Type: tasks.EntryList, ExpiresAt: 5000, Items: want.Items}, false},
		"never instead of later": {hash(0, []int64{2000, 0, 900}, "a", "1", "b", "2", "c", "3"), false},
	} {
		if got := same(want, c.got, limit); got != c.same {
			t.Errorf("%s: %v", name, got)
		}
	}
}
