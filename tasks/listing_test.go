package tasks

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Each slot has a name of its own for a release's notes, whatever the template, but for one that keeps a release in
// one slot: there an index lies with its entries.
func TestListingKeys(t *testing.T) {
	for _, text := range []string{DefaultTemplate, "<app>:<release>:{<key>}"} {
		tmpl, err := ParseTemplate(text, "site")
		if err != nil {
			t.Fatal(err)
		}
		keys := ListingKeys(tmpl, "r1")
		for slot, key := range keys {
			if logical, ok := tmpl.Logical("r1", key); SlotOf(key) != slot || !ok || logical[:1] != Reserved {
				t.Fatalf("%s: %q for slot %d", text, key, slot)
			}
		}
		if len(keys) != SlotCount {
			t.Errorf("%s: %d keys", text, len(keys))
		}
	}
	tmpl, err := ParseTemplate("{<app>}:<release>:<key>", "site")
	if err != nil {
		t.Fatal(err)
	}
	if keys := ListingKeys(tmpl, "r1"); keys != nil {
		t.Errorf("%d keys where there is one slot", len(keys))
	}
}

func TestParseListing(t *testing.T) {
	for text, want := range map[string]Listing{
		`["post:1","about:1","b"]`:       {"post:1", []string{"about:1", "b"}},
		`[{"base64":"AP8="},"a \" b\\"]`: {"\x00\xff", []string{`a " b\`}},
	} {
		if got, err := ParseListing(text); err != nil || !cmp.Equal(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "[]", "{}", "[1]", "post:1"} {
		if got, err := ParseListing(text); err == nil {
			t.Errorf("%q is read as %+v", text, got)
		}
	}
}
