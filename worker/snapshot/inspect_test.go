package snapshot

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphanode/stoker/tasks"
)

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "a\x00b\n/", true}, {"post:*", "post:1", true}, {"post:*", "xpost:1", false},
		{"*:1", "post:1", true}, {"*:1", "post:11", false}, {"a*b*c", "aXbXXc", true}, {"a*b*c", "aXcXXb", false}, {"?", "", false}, {"?", "\xff", true},
		{"[ab]x", "bx", true}, {"[ab]x", "cx", false}, {"[a-c]", "b", true}, {"[^a-c]", "b", false}, {"[^a-c]", "d", true}, {"[", "a", false},
		{`\*`, "*", true}, {`\*`, "a", false}, {`[\]]`, "]", true}, {`a\`, `a\`, true}, {"a", "", false},
	} {
		if got := glob(c.pattern, c.s); got != c.want {
			t.Errorf("glob(%q, %q) = %v", c.pattern, c.s, got)
		}
	}
}

func TestInspect(t *testing.T) {
	again := append([]tasks.Entry{}, testEntries...)
	again = append(again, tasks.Entry{Key: "post:1", Type: tasks.EntryString, Value: "later", ExpiresAt: 5000})
	raw, wrote := archive(t, again...)
	look := func(q Query) Contents {
		t.Helper()
		c, err := Inspect(t.Context(), bytes.NewReader(raw), q)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(wrote, c.Summary, asWritten); d != "" {
			t.Errorf("summary (-wrote +got):\n%s", d)
		}
		return c
	}
	all := look(Query{Limit: 3})
	if all.Matched != 9 || all.Types["hash"] != 2 || len(all.Listed) != 3 || all.Weight != wrote.Bytes || all.Types["string"] != 3 || all.Types["dump"] != 1 {
		t.Errorf("all: %+v", all)
	}
	if got := look(Query{Prefix: "post:", Limit: 9}); got.Matched != 2 || got.Listed[0].Value != nil || got.Listed[1].ExpiresAt != time.UnixMilli(5000).UTC() {
		t.Errorf("by prefix: %+v", got)
	}
	if got := look(Query{Match: "*tag*", Limit: 9}); got.Matched != 2 {
		t.Errorf("by pattern: %+v", got)
	}
	if got := look(Query{Match: "nothing", Limit: 9}); got.Matched != 0 || got.Listed == nil {
		t.Errorf("nothing: %+v", got)
	}
	fields := "fields"
	if got := look(Query{Key: &fields}).Listed; len(got) != 1 || got[0].Expiring != 2 || len(got[0].FieldsExpireAt) != 3 ||
		got[0].FieldsExpireAt[0].UnixMilli() != 1795371029123 || got[0].FieldsExpireAt[1] != nil {
		t.Errorf("a hash whose fields expire: %+v", got)
	}
	key := "post:1"
	if got := look(Query{Key: &key}); len(got.Listed) != 1 || got.Listed[0].Value == nil || *got.Listed[0].Value != "later" {
		t.Errorf("one entry: %+v", got)
	}
	key = "\x00tags\x00android ü \xff"
	want := []Listed{{Key: tasks.Bytes(key), Type: "hash", Bytes: len(key) + 3, Items: 2, ExpiresAt: time.UnixMilli(1).UTC(), Values: []tasks.Bytes{"f", "", "", "v\x00"}}}
	if d := cmp.Diff(want, look(Query{Key: &key}).Listed); d != "" {
		t.Errorf("a hash (-want +got):\n%s", d)
	}
	raw[len(raw)/2] ^= 4
	if _, err := Inspect(t.Context(), bytes.NewReader(raw), Query{}); !errors.Is(err, ErrDamaged) {
		t.Errorf("a damaged archive: %v", err)
	}
}
