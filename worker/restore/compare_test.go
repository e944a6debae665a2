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

func TestSameDump(t *testing.T) {
	dump := func(body string, version byte) tasks.Entry {
		return tasks.Entry{Key: "k", Type: tasks.EntryDump, Value: body + string([]byte{version, 0}) + "checksum"}
	}
	for _, c := range []struct {
		want, got tasks.Entry
		same      bool
	}{
		{dump("a", 10), dump("a", 10), true},
		{dump("a", 10), dump("b", 10), false},
		{dump("a", 10), dump("b", 12), true}, // written anew by another server
	} {
		if same(c.want, c.got, 0) != c.same {
			t.Errorf("%q and %q: want %v", c.want.Value, c.got.Value, c.same)
		}
	}
}

func TestTakesDump(t *testing.T) {
	for _, c := range []struct {
		server, payload int
		takes           bool
	}{
		{10, 10, true}, {10, 11, false}, {12, 11, true}, {11, 12, false}, // Redis 7.0, Valkey 8, Redis 8
		{80, 11, true}, {80, 80, true}, {80, 12, false}, {80, 79, false}, {12, 80, false}, {81, 80, true}, // Valkey 9
	} {
		if got := takesDump(c.server, c.payload); got != c.takes {
			t.Errorf("a server of version %d, a payload of %d: %v", c.server, c.payload, got)
		}
	}
}
