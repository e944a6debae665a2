package warm

import (
	"strings"
	"testing"

	"github.com/alphanode/stoker/worker/warm/source"
)

func TestCertify(t *testing.T) {
	sources := func(figures ...Figures) []SourceFigures {
		kinds := []string{"query", "crawl", "carry"}
		var all []SourceFigures
		for i, f := range figures {
			all = append(all, SourceFigures{Name: kinds[i] + "s", Kind: kinds[i], Figures: f})
		}
		return all
	}
	full, nothing := Figures{Planned: 100, Stored: 100}, Figures{}
	tests := []struct {
		name    string
		outcome outcome
		want    Verdict
		reason  string
	}{
		{"all stored", outcome{sources: sources(full)}, Pass, ""},
		{"nothing planned", outcome{}, Inconclusive, "nothing was planned"},
		{"every source empty", outcome{sources: sources(nothing, nothing, nothing)}, Inconclusive, "nothing was planned"},
		{"one source empty", outcome{sources: sources(full, nothing)}, Inconclusive, `source "crawls" planned nothing`},
		{"no release to carry from", outcome{sources: sources(full, full, nothing)}, Pass, ""},
		{"invalidated is covered", outcome{sources: sources(Figures{100, 60, 40, 0})}, Pass, ""},
		{"all invalidated", outcome{sources: sources(Figures{100, 0, 100, 0})}, Inconclusive, "nothing is stored"},
		{"exactly enough", outcome{sources: sources(Figures{100, 99, 0, 1})}, Pass, ""},
		{"just too few", outcome{sources: sources(Figures{1000, 989, 0, 11})}, Fail, "98.9% of 1000 is below 99%"},
		{"a small source hides behind a large one", outcome{sources: sources(Figures{10_000, 10_000, 0, 0}, Figures{10, 0, 0, 10})}, Fail, `source "crawls": coverage 0% of 10`},
		{"lower demand", outcome{demand: Demand{Coverage: "50%"}, sources: sources(Figures{100, 50, 0, 50})}, Pass, ""},
		{"no demand", outcome{demand: Demand{Coverage: "0%"}, sources: sources(Figures{100, 1, 0, 99})}, Pass, ""},
		{"sample gone", outcome{sources: sources(full), sampled: 100, missing: 2}, Fail, "2 of 100 sampled entries are gone"},
		{"sample within the demand", outcome{sources: sources(full), sampled: 100, missing: 1}, Pass, ""},
		{"sampled run", outcome{sources: sources(full), share: 0.05}, Inconclusive, "sampled 5%"},
		{"sampled run that failed", outcome{sources: sources(Figures{10, 0, 0, 10}), share: 0.05}, Fail, "coverage 0%"},
		{"part of the plan", outcome{sources: sources(full), left: []string{"pages"}}, Inconclusive, `sources left out: ["pages"]`},
		{"gave up", outcome{sources: sources(full), gaveUp: "no database"}, Fail, "gave up: no database"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := certify(tt.outcome)
			reasons := strings.Join(c.Reasons, "\n")
			if c.Verdict != tt.want || !strings.Contains(reasons, tt.reason) {
				t.Errorf("got %s: %q\nwant %s: %q", c.Verdict, reasons, tt.want, tt.reason)
			}
			if (c.Verdict == Pass) != (len(c.Reasons) == 0) {
				t.Errorf("%s with reasons %q", c.Verdict, c.Reasons)
			}
			for _, s := range c.Sources {
				if s.Figures.Coverage() != s.Coverage {
					t.Errorf("source %q: coverage %v of %+v", s.Name, s.Coverage, s.Figures)
				}
			}
		})
	}
}

func TestCertifyIsPure(t *testing.T) {
	o := outcome{sources: []SourceFigures{{Name: "a", Kind: "query", Figures: Figures{10, 10, 0, 0}}}}
	certify(o)
	if o.sources[0].Coverage != 0 {
		t.Error("certify changed its input")
	}
}

func TestPercent(t *testing.T) {
	for share, want := range map[float64]string{0: "0%", 1: "100%", 0.05: "5%", 0.99999: "99.99%", 0.989: "98.9%"} {
		if got := percent(share); got != want {
			t.Errorf("percent(%v) = %q, want %q", share, got, want)
		}
	}
}

// TestSample: the same entries are sampled however the batches are cut, and in any order.
func TestSample(t *testing.T) {
	var entries []source.Entry
	for _, key := range strings.Split("a b c d e f g h i j k l m n o p", " ") {
		var e source.Entry
		e.Key = key
		entries = append(entries, e)
	}
	whole := pick(nil, entries, 5)
	var parts []sampled
	for i := len(entries) - 2; i >= 0; i -= 2 {
		parts = append(parts, pick(nil, entries[i:i+2], 5)...)
	}
	again := pick(pick(nil, entries, 5), entries, 5)
	for name, got := range map[string][]sampled{"in parts": lowest(parts, 5), "twice": again} {
		if len(got) != 5 || len(whole) != 5 {
			t.Fatalf("%s: %d sampled, want 5", name, len(got))
		}
		for i := range got {
			if got[i].Key != whole[i].Key {
				t.Errorf("%s: %v, want %v", name, got, whole)
			}
		}
	}
	if got := pick(nil, entries, 0); len(got) != 0 {
		t.Errorf("a sample of none holds %v", got)
	}
}

func TestShorten(t *testing.T) {
	for _, tt := range []struct {
		text string
		n    int
		want string
	}{{"abc", 3, "abc"}, {"abcd", 3, "abc…"}, {"aéz", 2, "a…"}} {
		if got := shorten(tt.text, tt.n); got != tt.want {
			t.Errorf("shorten(%q, %d) = %q, want %q", tt.text, tt.n, got, tt.want)
		}
	}
}
