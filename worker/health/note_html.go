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
	if in.Verdict != nil {
		d.Looks = in.Verdict.looks()
	}
	d.Table, d.Plots = in.measured()
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

// measured is how the site behaved before and after the switch, or under the baseline alone; nil
// when nothing was measured.
func (in NoteInput) measured() (table *noteTable, plots []plot) {
	add := func(p plot, ok bool) {
		if ok {
			plots = append(plots, p)
		}
	}
	switch v := in.Verdict; {
	case v != nil:
		if v.Before.Requests > 0 && v.After.Requests > 0 {
			table = newNoteTable([]string{"before", "after"}, v.Before, v.After)
		}
		add(latencyPlot(v.Before, v.After))
		if in.Watch != nil {
			add(looksPlot(*in.Watch, v.Before))
		}
	case in.Baseline != nil:
		table = newNoteTable([]string{"baseline"}, *in.Baseline)
	}
	return table, plots
}

// Measured is what was measured of a release, for a page of another's making.
type Measured struct {
	Titles []string        // of the columns
	Rows   [][]string      // a name, and a cell a column
	Plots  []template.HTML // figures with an SVG, whose classes are grid, bar, curve, dot, before and after
}

// Measured returns the note's figures and plots alone; the zero value when nothing was measured. It is pure.
func (in NoteInput) Measured() (m Measured, err error) {
	table, plots := in.measured()
	if table != nil {
		m.Titles = table.Titles
		for _, r := range table.Rows {
			m.Rows = append(m.Rows, append([]string{r.Name}, r.Cells...))
		}
	}
	for _, p := range plots {
		var svg strings.Builder
		if err := noteTemplate.ExecuteTemplate(&svg, "plot", p); err != nil {
			return Measured{}, fmt.Errorf("draw %q: %w", p.Title, err)
		}
		m.Plots = append(m.Plots, template.HTML(svg.String())) // a template has escaped it
	}
	return m, nil
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
