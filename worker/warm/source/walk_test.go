package source

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestShareOf: what weighs more is taken more often, the whole is no more than the share, and a larger
// sample holds a smaller one.
func TestShareOf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		share := rapid.Float64Range(0.0001, 0.9999).Draw(t, "share")
		weights := rapid.SliceOfN(rapid.Float64Range(0.001, 1000), 1, 50).Draw(t, "weights")
		var sum, taken float64
		for _, w := range weights {
			sum += w
		}
		for i, w := range weights {
			w /= sum / float64(len(weights))
			got := ShareOf(share, w)
			if got <= 0 || got > 1 || ShareOf(share, 2*w) < got || ShareOf(min(1, 2*share), w) < got {
				t.Fatalf("share %v, weight %v: %v", share, w, got)
			}
			if key := fmt.Sprint("key", i); Picks(got, key) && !Picks(ShareOf(min(1, 2*share), w), key) {
				t.Fatalf("%s is in the smaller sample only", key)
			}
			taken += got
		}
		if most := share * float64(len(weights)); taken > most*(1+1e-9) {
			t.Fatalf("a sample of %v takes %v of %d", share, taken, len(weights))
		}
	})
	for _, share := range []float64{0, 1} {
		if got := ShareOf(share, 0.1); got != share {
			t.Errorf("of all: %v, want %v", got, share)
		}
	}
}

// data is what a template sees, in both forms.
type data map[string]any

func (d data) Get(name string) (any, bool) { v, ok := d[name]; return v, ok }
func (d data) All() map[string]any         { return d }

// TestPlainTemplate: a template renders the same text, or the same error, in the fast way and in
// that of text/template.
func TestPlainTemplate(t *testing.T) {
	texts := []string{"post:{{.a}}", "{{.a}}:{{.b}}", "", "plain", "{{.missing}}", "{{if .a}}x{{end}}", "{{json .a}}", "{{.a.b}}", "{{- .a -}} : {{.b}}"}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SampledFrom(texts).Draw(t, "template")
		value := rapid.OneOf(rapid.Just[any](nil), rapid.Map(rapid.String(), func(s string) any { return s }),
			rapid.Map(rapid.Int64(), func(n int64) any { return n }), rapid.Map(rapid.Float64(), func(f float64) any { return f }), rapid.Map(rapid.Bool(), func(b bool) any { return b }))
		d := data{"a": value.Draw(t, "a"), "b": value.Draw(t, "b")}
		tmpl, err := ParseTemplate(text)
		if err != nil {
			t.Fatal(err)
		}
		want, wantErr := tmpl.Render(map[string]any(d))
		got, gotErr := tmpl.Render(d)
		if got != want || fmt.Sprint(gotErr) != fmt.Sprint(wantErr) {
			t.Fatalf("%q of %v: %q, %v, want %q, %v", text, d, got, gotErr, want, wantErr)
		}
	})
}

func TestTemplateNames(t *testing.T) {
	for text, want := range map[string][]string{
		"post:{{.a}}:{{.b}}{{.a}}":                         {"a", "b"},
		"{{if .a}}{{.b}}{{end}}":                           {"a"},
		"{{range .a}}{{.b}}{{end}}{{with .c}}{{.}}{{end}}": {"a", "c"},
		`{{printf "%s" .a | json}}`:                        {"a"},
		"plain":                                            nil,
	} {
		tmpl, err := ParseTemplate(text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, tmpl.Names()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}

// walk yields n chunks and then fails with err.
func walk(n int, err error) func(context.Context, func(Chunk) error) error {
	return func(_ context.Context, fn func(Chunk) error) error {
		for i := range n {
			if err := fn(Chunk{Next: fmt.Sprint(i)}); err != nil {
				return err
			}
		}
		return err
	}
}

func TestAhead(t *testing.T) {
	broken, stop := errors.New("broken"), errors.New("stop")
	for _, end := range []error{nil, broken} {
		var got []string
		err := Ahead(t.Context(), func(c Chunk) error { got = append(got, c.Next); return nil }, walk(20, end))
		if !errors.Is(err, end) || len(got) != 20 || got[0] != "0" || got[19] != "19" {
			t.Errorf("end %v: %v after %q", end, err, got)
		}
	}
	calls := 0
	err := Ahead(t.Context(), func(Chunk) error { calls++; return stop }, walk(20, broken))
	if !errors.Is(err, stop) || calls != 1 {
		t.Errorf("got %v after %d calls, want the callback's error after 1", err, calls)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = Ahead(ctx, func(Chunk) error { cancel(); return ctx.Err() }, walk(20, nil))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want a cancelled context", err)
	}
}

func TestPartWalk(t *testing.T) {
	part := Part{Items: strings.Split("a b c d e", " "), Except: map[string]bool{"b": true}}
	read := func(items []string) (Chunk, error) {
		var c Chunk
		for _, item := range items {
			var e Entry
			e.Key = item
			c.Entries = append(c.Entries, e)
		}
		return c, nil
	}
	for from, want := range map[string]string{"": "a|2 cd|4 e|5", "2": "cd|4 e|5", "5": ""} {
		var got []string
		err := part.Walk(t.Context(), 2, from, read, func(c Chunk) error {
			text := ""
			for _, e := range c.Entries {
				text += e.Key
			}
			got = append(got, text+"|"+c.Next)
			return nil
		})
		if text := strings.Join(got, " "); err != nil || text != want {
			t.Errorf("from %q: %q, %v, want %q", from, text, err, want)
		}
	}
	for _, from := range []string{"x", "-1", "6"} {
		if err := part.Walk(t.Context(), 2, from, read, func(Chunk) error { return nil }); err == nil {
			t.Errorf("position %q was accepted", from)
		}
	}
}
