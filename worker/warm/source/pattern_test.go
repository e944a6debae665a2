package source_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/alphanode/stoker/worker/warm/source"
)

// TestPattern renders keys and reads them backwards: what made a key is among its readings, and
// every reading makes the key.
func TestPattern(t *testing.T) {
	templates := []string{"post:{{.a}}", "{{.a}}", "{{.a}}:{{.b}}", "{{.a}}/{{.b}}/{{.a}}", "x{{.Release}}-{{.a}}:", "fixed", "{{.a}}ab{{.b}}b"}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SampledFrom(templates).Draw(t, "template")
		value := rapid.StringOfN(rapid.RuneFrom([]rune("ab:/-\x00ä")), 0, 6, -1)
		values := map[string]string{"a": value.Draw(t, "a"), "b": value.Draw(t, "b"), "Release": "r1"}
		tmpl, err := source.ParseTemplate(text)
		if err != nil {
			t.Fatal(err)
		}
		key, err := tmpl.Render(values)
		if err != nil {
			t.Fatal(err)
		}
		p, err := source.Invert(text, map[string]string{"Release": "r1"})
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{}
		for _, name := range p.Names() {
			want[name] = values[name]
		}
		readings := p.Match(key)
		if key != "" && !slices.ContainsFunc(readings, func(r map[string]string) bool { return maps.Equal(r, want) }) {
			t.Fatalf("%q: readings %q lack %q", key, readings, want)
		}
		for _, reading := range readings {
			reading["Release"] = "r1"
			if again, err := tmpl.Render(reading); err != nil || again != key {
				t.Fatalf("reading %q of %q makes %q: %v", reading, key, again, err)
			}
		}
	})
}

// TestPatternBound does not read a key in thousands of ways.
func TestPatternBound(t *testing.T) {
	p, err := source.Invert("{{.a}}:{{.b}}:{{.c}}", nil)
	if err != nil {
		t.Fatal(err)
	}
	for colons, want := range map[int]int{1: 0, 2: 1, 3: 3, 6: 15, 7: 0, 100_000: 0} {
		if got := len(p.Match(strings.Repeat(":", colons))); got != want {
			t.Errorf("%d colons: %d readings, want %d", colons, got, want)
		}
	}
}
