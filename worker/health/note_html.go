package health

import (
	_ "embed"
	"fmt"
	"html/template"
	"strings"

	"github.com/dustin/go-humanize"
)

//go:embed note.html
var notePage string

var noteTemplate = template.Must(template.New("note").Parse(notePage))

// notePageData is what the page shows besides the input itself.
type notePageData struct {
	NoteInput
	Facts            []Field
	Looks            string
	Table            *noteTable
	Plots            []plot
	Progress         string
	LookRows         []lookRow
	RollbackSentence string
	Edits            string
	Moves            [][]string
}

type noteTable struct {
	Titles []string
	Rows   []tableRow
}

type tableRow struct {
	Name  string
	Cells []string
}

type lookRow struct {
	N       int
	After   string
	Verdict Outcome
	Cells   []string
}

// NoteHTML writes the note as one page that needs nothing else: no script, no font, nothing loaded. Any
// text in it is escaped. It is pure.
func NoteHTML(in NoteInput) (string, error) {
	d := notePageData{NoteInput: in, Facts: in.facts(), Edits: editsSince(in.Invalidations)}
	switch v := in.Verdict; {
	case v != nil:
		d.Looks = v.looks()
		if v.Before.Requests > 0 && v.After.Requests > 0 {
			d.Table = newNoteTable([]string{"before", "after"}, v.Before, v.After)
		}
		d.plot(latencyPlot(v.Before, v.After))
		if in.Watch != nil {
			d.plot(looksPlot(*in.Watch, v.Before))
		}
	case in.Baseline != nil:
		d.Table = newNoteTable([]string{"baseline"}, *in.Baseline)
	}
	if w := in.Watch; w != nil {
		d.Progress = w.progress()
		for i, l := range w.Looks {
			d.LookRows = append(d.LookRows, lookRow{i + 1, since(w.ActivatedAt, l.At), l.Verdict, l.cells()})
		}
		if w.Rollback != nil {
			d.RollbackSentence = w.Rollback.sentence()
		}
		if len(w.Looks) == 0 {
			d.Watch = nil
		}
	}
	for _, m := range in.History {
		d.Moves = append(d.Moves, []string{date(m.At), string(m.From), string(m.To), m.Actor, why(m)})
	}
	var page strings.Builder
	if err := noteTemplate.Execute(&page, d); err != nil {
		return "", fmt.Errorf("write note of release %q: %w", in.Record.ID, err)
	}
	return page.String(), nil
}

func (d *notePageData) plot(p plot, ok bool) {
	if ok {
		d.Plots = append(d.Plots, p)
	}
}

func newNoteTable(titles []string, baselines ...Baseline) *noteTable {
	t := &noteTable{Titles: titles}
	for _, f := range noteFigures() {
		row := tableRow{Name: f.name}
		for _, b := range baselines {
			row.Cells = append(row.Cells, f.cell(b))
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

func editsSince(n *int64) string {
	if n == nil {
		return "Not known: the log no longer reaches back that far."
	}
	return humanize.Comma(*n) + " recorded."
}
