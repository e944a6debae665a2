package health

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/alphanode/stoker/worker/release"
)

// NoteInput is what the final note of a release is written from. Any text in it may come from a
// person or from a site, and is quoted as Markdown.
type NoteInput struct {
	Record   release.Record
	History  []release.Move // oldest first
	Previous string         // the release before; "" when there was none

	Baseline    *Baseline // nil when it was never measured
	Verdict     *Verdict  // nil when it was never watched
	Watch       *Watching // likewise
	Certificate []Field   // in the order to show; empty when there is none
	Checklist   []Check   // of security, by [Checklist]; as seen from where the note is written

	Invalidations *int64 // edits recorded since it was made; nil when the log no longer tells
	Rollback      string // the command that takes it back; "" when there is nothing to go back to
}

// Field is a name and a value to show.
type Field struct{ Name, Value string }

// Note writes the final note of a release as Markdown. It is pure: the same input gives the same
// bytes.
func Note(in NoteInput) string {
	r := in.Record
	w := &noteWriter{}
	w.line("# Release %s", inline(r.ID))
	w.line("")
	w.list(in.facts()...)
	w.prose("Reason", r.Reason)
	w.prose("Expected result", r.Expected)
	w.code("Files touched", r.Files)
	w.code("Commands used", r.Commands)
	w.result(in)
	w.watch(in.Watch)
	w.certificate(in.Certificate)
	w.invalidations(in.Invalidations)
	w.checklist(in.Checklist)
	w.history(in.History)
	w.rollback(in)
	return w.String()
}

// facts are what there is to know of a release at a glance, without what has no value.
func (in NoteInput) facts() []Field {
	r := in.Record
	state := string(r.State)
	if r.Pinned {
		state += ", pinned"
	}
	all := []Field{
		{"State", state},
		{"Owner", r.Owner},
		{"Revision", r.Revision},
		{"Release before", in.Previous},
		{"Created", date(r.CreatedAt)},
		{"Last activated", date(r.ActivatedAt)},
		{"Key template", r.Template},
	}
	return slices.DeleteFunc(all, func(f Field) bool { return f.Value == "" })
}

// noteWriter builds Markdown. What is not its own text goes through inline or block.
type noteWriter struct{ strings.Builder }

func (w *noteWriter) line(format string, args ...any) {
	fmt.Fprintf(w, format+"\n", args...)
}

func (w *noteWriter) section(title string) { w.line("\n## %s\n", title) }

// list leaves out what has no value.
func (w *noteWriter) list(fields ...Field) {
	for _, f := range fields {
		if f.Value != "" {
			w.line("- %s: %s", inline(f.Name), inline(f.Value))
		}
	}
}

// prose writes a person's text with its line breaks.
func (w *noteWriter) prose(title, text string) {
	w.section(title)
	if text = strings.TrimSpace(text); text == "" {
		text = "Not given."
	}
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		lines[i] = lineStart.ReplaceAllString(inline(l), `$1\$2`)
	}
	w.line("%s", strings.Join(lines, "\\\n"))
}

func (w *noteWriter) code(title string, lines []string) {
	w.section(title)
	if len(lines) == 0 {
		w.line("None recorded.")
		return
	}
	w.block(strings.Join(lines, "\n"))
}

// block writes text as it is, between fences longer than any inside it.
func (w *noteWriter) block(text string) {
	fence := strings.Repeat("`", max(3, longestRun(text, '`')+1))
	w.line("%stext\n%s\n%s", fence, plain(text), fence)
}

// result shows before against after, or the baseline alone while there is no verdict.
func (w *noteWriter) result(in NoteInput) {
	w.section("Result")
	switch v := in.Verdict; {
	case v != nil:
		w.line("Verdict after the switch: **%s**%s.\n", inline(string(v.Verdict)), inline(v.looks()))
		for _, reason := range v.Reasons {
			w.line("- %s", inline(reason))
		}
		if v.Before.Requests > 0 && v.After.Requests > 0 {
			w.table([]string{"before", "after"}, v.Before, v.After)
		}
	case in.Baseline != nil:
		w.line("Not compared after the switch. Its own baseline:")
		w.table([]string{"baseline"}, *in.Baseline)
	default:
		w.line("Not measured.")
	}
}

// looks says how much of a watch a verdict rests on, "" outside of one.
func (v Verdict) looks() string {
	switch {
	case v.Look == 0:
		return ""
	case v.Final:
		return fmt.Sprintf(", at look %d of %d, the last one taken", v.Look, v.Looks)
	}
	return fmt.Sprintf(", after look %d of %d so far", v.Look, v.Looks)
}

// figure is a row of the table that shows baselines side by side.
type figure struct {
	name string
	cell func(Baseline) string
}

// noteFigures are what a note shows of a baseline. The text of the cells is plain.
func noteFigures() []figure {
	first := func(show func(Figures) string) func(Baseline) string {
		return func(b Baseline) string {
			if b.First == nil {
				return "not told apart"
			}
			return show(*b.First)
		}
	}
	return []figure{
		{"release", func(b Baseline) string { return b.Release }},
		{"measured", func(b Baseline) string { return date(b.At) }},
		{"requests", func(b Baseline) string { return humanize.Comma(int64(b.Requests)) }},
		{"errors", func(b Baseline) string { return humanize.Comma(int64(b.Errors)) }},
		{"p50", func(b Baseline) string { return fmt.Sprintf("%.2f ms", b.P50) }},
		{"p95", func(b Baseline) string { return fmt.Sprintf("%.2f ms", b.P95) }},
		{"p99", func(b Baseline) string { return fmt.Sprintf("%.2f ms", b.P99) }},
		{"hit rate", func(b Baseline) string { return reported(b.CacheReported, "%.1f%%", b.HitRate*100) }},
		{"database calls a request", func(b Baseline) string { return reported(b.DBReported, "%.2f", b.DBCallsPerRequest) }},
		{"first visits, p50", first(func(f Figures) string { return fmt.Sprintf("%.2f ms", f.P50) })},
		{"first visits, hit rate", first(func(f Figures) string { return reported(f.CacheReported, "%.1f%%", f.HitRate*100) })},
	}
}

// table shows baselines side by side.
func (w *noteWriter) table(titles []string, baselines ...Baseline) {
	w.line("\n| figure | %s |", strings.Join(titles, " | "))
	w.line("|---|%s", strings.Repeat("---|", len(titles)))
	for _, row := range noteFigures() {
		cells := make([]string, len(baselines))
		for i, b := range baselines {
			cells[i] = inline(row.cell(b))
		}
		w.line("| %s | %s |", row.name, strings.Join(cells, " | "))
	}
}

// reported formats a figure that only some sites report.
func reported(n int, format string, v float64) string {
	if n == 0 {
		return "not reported"
	}
	return fmt.Sprintf(format, v)
}

// watch tells the looks and, where there was one, the rollback that the watch asked for.
func (w *noteWriter) watch(s *Watching) {
	if s == nil || len(s.Looks) == 0 {
		return
	}
	w.section("Watch")
	w.line("%s\n", inline(s.progress()))
	w.line("| look | after the switch | verdict so far | requests | errors | p50 | p95 | hit rate | database calls |\n|---|---|---|---|---|---|---|---|---|")
	for i, l := range s.Looks {
		w.line("| %d | %s | %s | %s |", i+1, since(s.ActivatedAt, l.At), inline(string(l.Verdict)), strings.Join(l.cells(), " | "))
	}
	if s.Rollback != nil {
		w.line("\n**%s**", inline(s.Rollback.sentence()))
	}
}

// cells are a look's figures for people.
func (l Look) cells() []string {
	return []string{
		humanize.Comma(int64(l.Requests)), humanize.Comma(int64(l.Errors)), fmt.Sprintf("%.2f ms", l.P50), fmt.Sprintf("%.2f ms", l.P95),
		reported(l.CacheReported, "%.1f%%", l.HitRate*100), reported(l.DBReported, "%.2f", l.DBCallsPerRequest),
	}
}

// progress says how far a watch has come.
func (s Watching) progress() string {
	text := fmt.Sprintf("%d of %d looks taken", len(s.Looks), s.Planned)
	if !s.Next.IsZero() {
		return text + "; the next is due " + date(s.Next) + "."
	}
	return text + "; ended: " + s.Ended + "."
}

// sentence says what came of a rollback that a watch asked for.
func (r AutoRollback) sentence() string {
	text := "The watch rolled back to " + r.To + " by itself"
	if r.Outcome != RollbackDone {
		text = "The watch wanted to roll back to " + r.To
	}
	text += " (" + date(r.At) + "): " + r.Outcome
	if r.Detail != "" {
		text += ", " + r.Detail
	}
	return text + "."
}

// since shows the time from one moment to another.
func since(from, to time.Time) string { return max(to.Sub(from), 0).Round(time.Second).String() }

func (w *noteWriter) checklist(checks []Check) {
	if len(checks) == 0 {
		return
	}
	w.section("Security checklist")
	w.line("As seen from where this note was written.\n")
	for _, c := range checks {
		box := " "
		if c.Status == OK {
			box = "x"
		}
		w.line("- [%s] %s: %s", box, inline(c.Name), inline(c.sentence()))
	}
}

func (w *noteWriter) certificate(fields []Field) {
	w.section("Certificate")
	if len(fields) == 0 {
		w.line("None: nobody has proved that its cache was filled.")
		return
	}
	w.list(fields...)
}

func (w *noteWriter) invalidations(n *int64) {
	w.section("Invalidations since it was made")
	w.line("%s", editsSince(n))
}

func (w *noteWriter) history(moves []release.Move) {
	w.section("History")
	if len(moves) == 0 {
		w.line("None recorded.")
		return
	}
	w.line("| when | from | to | who | why |\n|---|---|---|---|---|")
	for _, m := range moves {
		w.line("| %s | %s | %s | %s | %s |", date(m.At), inline(string(m.From)), inline(string(m.To)), inline(m.Actor), inline(why(m)))
	}
}

// why tells a move's reason and note.
func why(m release.Move) string { return strings.Trim(m.Reason+"; "+m.Note, "; ") }

func (w *noteWriter) rollback(in NoteInput) {
	w.section("How to roll back")
	if in.Rollback == "" {
		w.line("There is no release to go back to.")
	} else {
		w.block(in.Rollback)
	}
	if note := strings.TrimSpace(in.Record.RollbackNote); note != "" {
		w.prose("Note on rolling back", note)
	}
}

// date shows a time to the second, "" for none.
func date(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05") + " UTC"
}

// inline quotes text so that Markdown shows it as it is, on one line.
func inline(s string) string {
	return markdown.Replace(strings.Join(strings.Fields(plain(s)), " "))
}

// markdown quotes what means something within a line.
var markdown = strings.NewReplacer(
	`\`, `\\`, "`", "\\`", `*`, `\*`, `_`, `\_`, `[`, `\[`, `]`, `\]`, `<`, `\<`, `>`, `\>`,
	`#`, `\#`, `|`, `\|`, `~`, `\~`, `&`, `\&`, `!`, `\!`, `$`, `\$`,
)

// lineStart finds what means something at the start of a line only: lists and underlines.
var lineStart = regexp.MustCompile(`^(\d*)([-+=.)])`)

// plain drops the control characters that no note may hold.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f {
			return -1
		}
		return r
	}, s)
}

// longestRun returns the length of the longest run of c in s.
func longestRun(s string, c rune) int {
	longest, run := 0, 0
	for _, r := range s {
		if r != c {
			run = 0
			continue
		}
		run++
		longest = max(longest, run)
	}
	return longest
}

// sentence is what was seen, and what to do where it is not right.
func (c Check) sentence() string {
	switch {
	case c.Status == OK:
		return c.Detail
	case c.Remedy == "":
		return string(c.Status) + ": " + c.Detail
	}
	return string(c.Status) + ": " + c.Detail + " → " + c.Remedy
}
