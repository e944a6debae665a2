package warm

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/alphanode/stoker/worker/warm/source"
)

// Failures are the failures of one kind.
type Failures struct {
	Kind     source.Kind `json:"kind"`
	Count    int64       `json:"count"`
	Examples []string    `json:"examples"` // the first few, each with its item
}

// maxKindExamples bounds what is shown of each kind.
const maxKindExamples = 3

// failures are those of a part of a run, each kind once.
type failures []Failures

// count adds a failure.
func (f *failures) count(kind source.Kind, example string) {
	f.add(Failures{Kind: cmp.Or(kind, source.Unreadable), Count: 1, Examples: []string{example}})
}

// add adds failures of one kind.
func (f *failures) add(more Failures) {
	i := slices.IndexFunc(*f, func(have Failures) bool { return have.Kind == more.Kind })
	if i < 0 {
		i = len(*f)
		*f = append(*f, Failures{Kind: more.Kind})
	}
	have := &(*f)[i]
	have.Count += more.Count
	room := maxKindExamples - len(have.Examples)
	have.Examples = append(have.Examples, more.Examples[:min(room, len(more.Examples))]...)
}

// sorted returns the failures, the commonest kind first.
func (f failures) sorted() []Failures {
	return slices.SortedFunc(slices.Values(f), func(a, b Failures) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Kind, b.Kind))
	})
}

// byKind says how many of each kind there were: "12 redirect, 3 empty".
func byKind(all []Failures) string {
	words := make([]string, len(all))
	for i, f := range all {
		words[i] = fmt.Sprintf("%d %s", f.Count, f.Kind.Words())
	}
	return strings.Join(words, ", ")
}
