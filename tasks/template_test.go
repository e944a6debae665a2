package tasks

import (
	"errors"
	"path"
	"testing"

	"pgregory.net/rapid"
)

func TestParseTemplateRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"no separator":           "<app>:<release><key>",
		"a separator of ID text": "<app>:<release>-v1.<key>",
		"no release":             "<app>:<key>",
		"two keys":               "<release>:<key>:<key>",
		"the key first":          "<key>:<release>",
		"an unknown part":        "<site>:<release>:<key>",
		"stoker's own keys":      "stoker:{<release>}:<key>",
		"nothing":                "",
	} {
		if _, err := ParseTemplate(text, "site"); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s, %q: got %v, want ErrInvalid", name, text, err)
		}
	}
}

func TestTemplateOfRealClients(t *testing.T) {
	for text, want := range map[string]string{
		DefaultTemplate:               "site:r1:post:1",
		"wp:<release>:<key>":          "wp:r1:post:1",
		"<release>:1:<key>":           "r1:1:post:1",
		"<release>_tagged:<key>":      "r1_tagged:post:1",
		"<app>:<release>:{<key>}":     "site:r1:{post:1}",
		"lv:<release>:<key>":          "lv:r1:post:1",
		"/home/<app>/<release>/<key>": "/home/site/r1/post:1",
	} {
		tmpl, err := ParseTemplate(text, "site")
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := tmpl.Key("r1", "post:1"); got != want {
			t.Errorf("%q: got key %q, want %q", text, got, want)
		}
	}
}

// No release's prefix covers another's key, whatever the IDs and keys.
func TestNamespacesNeverOverlap(t *testing.T) {
	id := rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9._-]{0,8}`)
	texts := []string{DefaultTemplate, "<release>_tagged:<key>", "<release>:1:<key>", "<app>:<release>:{<key>}"}
	rapid.Check(t, func(t *rapid.T) {
		tmpl, err := ParseTemplate(rapid.SampledFrom(texts).Draw(t, "template"), "site")
		if err != nil {
			t.Fatal(err)
		}
		a, b := id.Draw(t, "a"), id.Draw(t, "b")
		logical := string(rapid.SliceOf(rapid.Byte()).Draw(t, "key"))
		got, ok := tmpl.Logical(a, tmpl.Key(b, logical))
		if ok != (a == b) || ok && got != logical {
			t.Fatalf("key %q of %q read as %q of %q: %v", logical, b, got, a, ok)
		}
	})
}

func TestMatchEscapesGlobs(t *testing.T) {
	tmpl, err := ParseTemplate("c*[x]?:<release>:<key>", "site")
	if err != nil {
		t.Fatal(err)
	}
	pattern := tmpl.Match("r1", `a*b[c]\`)
	if ok, err := path.Match(pattern, `c*[x]?:r1:a*b[c]\ and more`); err != nil || !ok {
		t.Errorf("pattern %q does not match its own key: %v", pattern, err)
	}
	if ok, _ := path.Match(pattern, `cZZ[x]?:r1:aZZb[c]\`); ok {
		t.Errorf("pattern %q matches a neighbour", pattern)
	}
}
