package query

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/source"
)

// findKeys is how many keys one statement asks for. Its answer is one chunk.
const findKeys = 50

var _ source.Finder = (*Source)(nil)

// Keys returns the pattern of the keys that the entry's rows have in a release. A key that it
// matches may still be no row's: {{.id}} matches any text.
func (e Entry) Keys(release string) (source.Pattern, error) {
	return source.Invert(e.Key, map[string]string{"Release": release})
}

// Find implements [source.Finder]. It asks for the columns that the key is made of, in a statement
// around the plan's own, and takes a row for an answer only when the row makes the very key that
// was asked for: a comparison of the database may be more generous. Two rows of one key that differ
// are a failure, since a walk leaves either.
func (s *Source) Find(ctx context.Context, keys []string, fn func(source.Chunk) error) error {
	pattern, err := s.entry.Keys(s.build.release)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(slices.Compact(slices.Sorted(slices.Values(keys))), findKeys) {
		c, err := s.find(ctx, pattern, part)
		if err != nil {
			return err
		}
		if err := fn(c); err != nil {
			return err
		}
	}
	return nil
}

// walkItems reads the rows of the keys that the part names.
func (s *Source) walkItems(ctx context.Context, part source.Part, from string, fn func(source.Chunk) error) error {
	pattern, err := s.entry.Keys(s.build.release)
	if err != nil {
		return err
	}
	return part.Walk(ctx, findKeys, from, func(keys []string) (source.Chunk, error) {
		c, err := s.find(ctx, pattern, keys)
		c.Gone = nil
		return c, err
	}, fn)
}

// find asks for some keys, each once.
func (s *Source) find(ctx context.Context, pattern source.Pattern, keys []string) (source.Chunk, error) {
	f := finder{build: s.build, found: map[string]answer{}}
	for _, key := range keys {
		f.found[key] = answer{}
	}
	columns, err := s.columnTypes(ctx)
	if err != nil {
		return source.Chunk{}, err
	}
	asked := question{driver: s.spec.Driver, types: columns, values: map[string]*values{}}
	for _, name := range pattern.Names() {
		if err := asked.add(name); err != nil {
			return failAll(keys, err), nil
		}
	}
	any := false
	for _, key := range keys {
		for _, reading := range pattern.Match(key) {
			any = asked.read(reading) || any
		}
	}
	if any {
		text, args := asked.statement(s.spec.SQL, s.dialect)
		if _, err := s.read(ctx, text, args, f.take); err != nil {
			return source.Chunk{}, err
		}
	}
	return f.chunk(keys), nil
}

// columnTypes returns the database's type of each column of the plan's query, asked for once.
func (s *Source) columnTypes(ctx context.Context) (map[string]string, error) {
	if s.columns == nil {
		types, err := s.read(ctx, "SELECT * FROM ("+s.spec.SQL+"\n) q WHERE 1 = 0", nil, func(row) error { return nil })
		if err != nil {
			return nil, err
		}
		s.columns = types
	}
	return s.columns, nil
}

func failAll(keys []string, err error) source.Chunk {
	c := source.Chunk{Written: source.ByRunner}
	for _, key := range keys {
		c.Failed = append(c.Failed, source.Failure{Key: key, Error: err.Error()})
	}
	return c
}

// answer is what was found of one key.
type answer struct {
	rows  int
	entry source.Entry
	err   error
}

// finder takes the rows of one statement.
type finder struct {
	build *builder
	found map[string]answer
}

// take notes a row if it is one that was asked for.
func (f finder) take(r row) error {
	key, err := f.build.keyOf(r)
	a, asked := f.found[key]
	if err != nil || !asked {
		return nil
	}
	e, err := f.build.build(key, r)
	switch {
	case a.rows == 0:
		a.entry, a.err = e, err
	case a.err == nil && (err != nil || e.Value != a.entry.Value || !slices.Equal(e.Tags, a.entry.Tags)):
		a.err = fmt.Errorf("several rows that differ have this key: which of them a warm leaves is chance; make the key unique")
	}
	a.rows++
	f.found[key] = a
	return nil
}

func (f finder) chunk(keys []string) source.Chunk {
	c := source.Chunk{Written: source.ByRunner}
	for _, key := range keys {
		switch a := f.found[key]; {
		case a.rows == 0:
			c.Gone = append(c.Gone, key)
		case a.err != nil:
			c.Failed = append(c.Failed, source.Failure{Key: key, Error: a.err.Error()})
		default:
			c.Entries = append(c.Entries, a.entry)
		}
	}
	return c
}

// question is the columns that are asked for, and their values.
type question struct {
	driver string
	types  map[string]string
	names  []string
	values map[string]*values
}

// values are one column's.
type values struct {
	of   typing
	seen map[string]bool
	args []any
}

func (q *question) add(name string) error {
	databaseType, ok := q.types[name]
	if !ok {
		return fmt.Errorf("%w: the rows have no column %q, which the key is made of", tasks.ErrInvalid, name)
	}
	of, err := typingOf(q.driver, databaseType)
	if err != nil {
		return fmt.Errorf("column %q: %w", name, err)
	}
	q.names = append(q.names, name)
	q.values[name] = &values{of: of, seen: map[string]bool{}}
	return nil
}

// read adds a key's reading; false where a column's type has no such value.
func (q *question) read(reading map[string]string) bool {
	args := map[string][]any{}
	for name, text := range reading {
		if args[name] = q.values[name].of.parse(text); args[name] == nil {
			return false
		}
	}
	for name, text := range reading {
		if v := q.values[name]; !v.seen[text] {
			v.seen[text] = true
			v.args = append(v.args, args[name]...)
		}
	}
	return true
}

// statement asks for each column by itself. Where there are several it may bring rows that combine
// one key's value with another's; they make no key that was asked for.
func (q *question) statement(sql string, d dialect) (string, []any) {
	var b strings.Builder
	fmt.Fprintf(&b, "SELECT * FROM (%s\n) q", sql)
	var args []any
	for i, name := range q.names {
		word := " AND"
		if i == 0 {
			word = " WHERE"
		}
		v := q.values[name]
		fmt.Fprintf(&b, "%s %s IN (", word, fmt.Sprintf(v.of.column, "q."+d.quote+name+d.quote))
		for j := range v.args {
			if j > 0 {
				b.WriteByte(',')
			}
			b.WriteString(d.parameter(len(args) + j + 1))
		}
		b.WriteByte(')')
		args = append(args, v.args...)
	}
	return b.String(), args
}
