package freshness

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
)

func TestUpperBound(t *testing.T) {
	for _, c := range []struct {
		k, n int
		want float64
	}{
		{0, 0, 1}, {0, 1, 0.95}, {1, 1, 1}, {5, 4, 1},
		{0, 50, 1 - math.Pow(0.05, 1.0/50)}, {0, 3000, 1 - math.Pow(0.05, 1.0/3000)},
		{1, 50, 0.0913981}, {5, 50, 0.1988330}, {72, 7200, 0.0121533}, // R: binom.test(k, n, alternative = "less")
	} {
		if got := upperBound(c.k, c.n); math.Abs(got-c.want) > 1e-6 {
			t.Errorf("%d of %d: %v, want %v", c.k, c.n, got, c.want)
		}
	}
	// It ends for whatever may be counted, never below the share seen, and is never higher for more evidence.
	for _, n := range []int{10, 1000, mostCounted, mostCounted + 1, 3_000_000} {
		for _, share := range []float64{0, 0.0001, 0.01, 0.3, 0.5, 0.9, 1} {
			k := int(share * float64(n))
			if got := upperBound(k, n); got < float64(k)/float64(n) || got > 1 {
				t.Errorf("%d of %d: %v", k, n, got)
			}
		}
	}
	if got := tallyOf(3000, 0); got.Nines < 3 || got.Nines > 3.01 {
		t.Errorf("0 of 3000: %v nines, want 3 (the rule of three)", got.Nines)
	}
}

func TestDiffers(t *testing.T) {
	for _, c := range []struct {
		here, origin string
		differs      bool
	}{
		{"a", "a", false}, {"a", "b", true}, {"", "", false}, {"", "x", true},
		{`{"a":1,"b":[2,3]}`, "{ \"b\": [2, 3],\n\"a\": 1 }", false},
		{`{"a":1}`, `{"a":2}`, true},
		{`{"id":9007199254740993}`, `{"id": 9007199254740992}`, true},
		{`["<b>"]`, "[\"\\u003cb\\u003e\"]", false},
		{`{"a":1}`, `{"a":1`, true},
		{"1.0", "1", true}, // numbers alone are no JSON documents of a site
	} {
		h := held{text: c.here, typ: tasks.EntryString}
		a := Answer{Entry: tasks.Entry{Type: tasks.EntryString, Value: c.origin}}
		differs, print := h.differs(a)
		if differs != c.differs {
			t.Errorf("%q and %q: differs %v", c.here, c.origin, differs)
		}
		if again, _ := (held{print: printOf(c.here)}).differs(a); again != c.differs || differs && print != printOf(c.here) {
			t.Errorf("%q and %q by fingerprint: differs %v, print %s", c.here, c.origin, again, print)
		}
	}
}

func TestSmallest(t *testing.T) {
	s := func(tags ...Tag) Suspect { return Suspect{Tags: tags} }
	big, small, tie := Tag{"big", 9}, Tag{"small", 2}, Tag{"also small", 2}
	for i, c := range []struct {
		of   []Suspect
		want string
	}{
		{nil, ""}, {[]Suspect{s()}, ""}, {[]Suspect{s(big)}, "big"}, {[]Suspect{s(big, small)}, "small"},
		{[]Suspect{s(small, tie)}, "also small"}, {[]Suspect{s(big, small), s(big)}, "big"}, {[]Suspect{s(big), s(small)}, ""},
		{[]Suspect{s(big), s()}, ""},
	} {
		if got, ok := smallest(c.of); string(got.Name) != c.want || ok != (c.want != "") {
			t.Errorf("case %d: %+v, want %q", i, got, c.want)
		}
	}
}

// TestSuspectAfter: every turn that a suspect's case may take.
func TestSuspectAfter(t *testing.T) {
	gaps := []time.Duration{firstGap, secondGap}
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	mark := tasks.Mark{Number: 7, Epoch: "e"}
	at := func(looks int, archive string) Suspect {
		s := Suspect{Print: "p", Archive: archive, Since: now.Add(-time.Hour), At: now.Add(-time.Minute), Looks: looks}
		if looks == len(gaps) {
			s.Stale = s.At
		}
		return s
	}
	differs := sight{differs: true, print: "p", mark: mark}
	for name, c := range map[string]struct {
		s     Suspect
		seen  sight
		stays bool
		looks int
		stale bool
	}{
		"gone or equal":       {at(0, ""), sight{}, false, 0, false},
		"stale one repaired":  {at(2, ""), sight{}, false, 0, false},
		"not readable":        {at(1, ""), sight{unknown: true}, true, 1, false},
		"differs":             {at(0, ""), differs, true, 1, false},
		"differs still":       {at(1, ""), differs, true, 2, true},
		"stale, still":        {at(2, ""), differs, true, 2, true},
		"rewritten":           {at(1, ""), sight{differs: true, print: "q"}, true, 0, false},
		"stale, rewritten":    {at(2, ""), sight{differs: true, print: "q"}, true, 0, false},
		"overtaken":           {at(1, ""), sight{differs: true, print: "p", overtaken: true}, true, 0, false},
		"archived, overtaken": {at(2, "a"), sight{differs: true, print: "p", overtaken: true}, false, 0, false},
	} {
		got, stays := c.s.after(c.seen, now, gaps)
		if stays != c.stays || stays && (got.Looks != c.looks || got.confirmed() != c.stale) {
			t.Errorf("%s: stays %v, %+v", name, stays, got)
		}
		if over := stays && c.looks == 0; over && (!got.Since.Equal(now) || got.due(gaps).Sub(now) != firstGap) {
			t.Errorf("%s: starts over at %v, due %v", name, got.Since, got.due(gaps))
		}
	}
	if d := at(1, "").due([]time.Duration{firstGap, secondGap}); d.Sub(now) != 3*time.Minute {
		t.Errorf("second look due %v from now", d.Sub(now))
	}
	lagging := New(Deps{OriginLag: 10 * time.Minute}, Config{})
	if lagging.gaps[0]+lagging.gaps[1] != 15*time.Minute {
		t.Errorf("with a lagging origin, looks after %v", lagging.gaps)
	}
}

// TestReservoir: every entry has its chance, and tags are those of the indexes.
func TestReservoir(t *testing.T) {
	const n, entries, rounds = 5, 50, 400
	met := map[string]int{}
	for range rounds {
		r := reservoir{n: n, held: map[string]*held{}}
		for i := range entries {
			r.see(tasks.Entry{Key: fmt.Sprint(i), Type: tasks.EntryString}, 10)
		}
		r.see(tasks.Entry{Key: "expired", ExpiresAt: 10}, 10)
		r.see(tasks.Entry{Key: tasks.TagIndex("even"), Type: tasks.EntryZSet, Items: []string{"0", "inf", "2", "inf", "4", "inf"}}, 10)
		if len(r.held) != n {
			t.Fatalf("kept %d", len(r.held))
		}
		for key, h := range r.held {
			met[key]++
			if listed := key == "0" || key == "2" || key == "4"; listed != (len(h.tags) == 1) || listed && h.tags[0] != (Tag{"even", 3}) {
				t.Errorf("%s: tags %v", key, h.tags)
			}
		}
	}
	// 40 on average; outside of 10 to 80 with a chance of less than one in 10^6.
	for i := range entries {
		if c := met[fmt.Sprint(i)]; c < 10 || c > 80 {
			t.Errorf("entry %d was kept %d times of %d", i, c, rounds)
		}
	}
	if met["expired"] > 0 {
		t.Error("an expired entry was kept")
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []Config{{0, 1}, {1001, 1}, {1, 0}, {1, 10_001}} {
		if c.Validate() == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
	if err := (Config{50, 500}).Validate(); err != nil {
		t.Error(err)
	}
}
