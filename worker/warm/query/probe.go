package query

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/alphanode/stoker/worker/warm/source"
)

var _ source.Prober = (*Source)(nil)

// Probe implements [source.Prober]: it runs the query for no row, and looks whether its columns are
// there that the plan names. Its errors are [source.Problem]s of the plan's source.
func (s *Source) Probe(ctx context.Context) error {
	types, err := s.columnTypes(ctx)
	if err != nil {
		return &source.Problem{Path: ".query", Text: err.Error()}
	}
	var wrong []error
	look := func(path, what string, names ...string) {
		for _, name := range names {
			if _, ok := types[name]; !ok && name != "Release" {
				wrong = append(wrong, &source.Problem{Path: path, Text: fmt.Sprintf("%s: the rows have no column %q: they have %q", what, name, slices.Sorted(maps.Keys(types)))})
			}
		}
	}
	look(".entry.key", "key "+s.entry.Key, s.build.key.Names()...)
	for i, tag := range s.build.tags {
		look(fmt.Sprintf(".entry.tags[%d]", i), "tag "+s.entry.Tags[i], tag.Names()...)
	}
	switch s.build.kind {
	case valueColumn:
		look(".entry.value", "value "+s.entry.Value, s.build.column)
	case valueTemplate:
		look(".entry.value", "value", s.build.value.Names()...)
	}
	if s.spec.Page != nil {
		look(".query.page.by", "page", s.spec.Page.By)
	}
	return errors.Join(wrong...)
}
