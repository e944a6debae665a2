package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"golang.org/x/term"
)

// show prints v as JSON when asked to, else by text.
func (c *cli) show(v any, text func(w io.Writer)) error {
	if !c.json {
		text(c.out)
		return nil
	}
	enc := json.NewEncoder(c.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// table prints rows under a header, in columns.
func table(w io.Writer, header []string, rows [][]string) {
	columns(w, textWidth(w), header, rows)
}

// columns prints rows under a header. The last column may hold several lines, and is wrapped to
// what the others leave of the width.
func columns(w io.Writer, width int, header []string, rows [][]string) {
	last := len(header) - 1
	widths := make([]int, last)
	for _, row := range append([][]string{header}, rows...) {
		for i := range widths {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	indent := 0
	for _, n := range widths {
		indent += n + len(columnGap)
	}
	room := width - indent
	for _, row := range append([][]string{header}, rows...) {
		var line strings.Builder
		for i, n := range widths {
			fmt.Fprintf(&line, "%-*s%s", n, plain(row[i]), columnGap)
		}
		for i, part := range wrap(row[last], room) {
			if i > 0 {
				line.WriteString("\n" + strings.Repeat(" ", indent))
			}
			line.WriteString(part)
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

const (
	columnGap = "  "
	minColumn = 24 // a narrower column is not worth reading: let the terminal break it
)

// textWidth is how many characters fit on a line of w: the terminal's, up to 120 which the eye
// can follow. What is not a terminal has no end: one row is one line there, for grep.
func textWidth(w io.Writer) int {
	if !isTerminal(w) {
		return math.MaxInt
	}
	width, _, err := term.GetSize(int(w.(*os.File).Fd()))
	if err != nil {
		width = 80
	}
	return min(width, 120)
}

// wrap breaks text into lines of at most width characters: at its line breaks, at spaces, and
// within a word that is longer than a line.
func wrap(text string, width int) []string {
	width = max(width, minColumn)
	var lines []string
	for _, paragraph := range strings.Split(text, "\n") {
		rest := []rune(plain(paragraph))
		for len(rest) > width {
			cut, next := width, width
			for i := width; i > 0; i-- {
				if rest[i] == ' ' {
					cut, next = i, i+1
					break
				}
			}
			lines, rest = append(lines, string(rest[:cut])), rest[next:]
		}
		lines = append(lines, string(rest))
	}
	return lines
}

// examples shows a few names to a person.
func examples[T fmt.Stringer](names []T) string {
	const few = 3
	var shown []string
	for _, name := range names[:min(few, len(names))] {
		shown = append(shown, name.String())
	}
	if len(names) > few {
		shown = append(shown, "…")
	}
	return strings.Join(shown, ", ")
}

// plain replaces what could move the cursor, colour the terminal or turn the text around.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return '·'
		}
		return r
	}, s)
}

// ago tells how long ago t was, "–" for never.
func ago(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return humanize.Time(t)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// size shows bytes to a person.
func size(n int64) string { return humanize.IBytes(uint64(max(0, n))) }
