package query

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/alphanode/stoker/tasks"
)

// dialect is how a database writes a name and its n-th parameter, from 1.
type dialect struct {
	quote     string
	parameter func(n int) string
}

var dialects = map[string]dialect{
	"postgres": {`"`, func(n int) string { return "$" + strconv.Itoa(n) }},
	"mysql":    {"`", func(int) string { return "?" }},
	"sqlite":   {`"`, func(int) string { return "?" }},
}

// page returns the query of the page after a position.
func (s *Source) page(after string) (string, []any, error) {
	var b strings.Builder
	// The line break ends a comment that the plan's SQL may close with.
	fmt.Fprintf(&b, "SELECT * FROM (%s\n) q", s.spec.SQL)
	var args []any
	if after != "" {
		value, err := decodePosition(after)
		if err != nil {
			return "", nil, err
		}
		fmt.Fprintf(&b, " WHERE q.%s > %s", s.column(), s.dialect.parameter(1))
		args = []any{value}
	}
	fmt.Fprintf(&b, " ORDER BY q.%s LIMIT %d", s.column(), s.spec.Page.Size)
	return b.String(), args, nil
}

// refuseNulls reports a page's column that is NULL somewhere: no comparison finds such a row.
func (s *Source) refuseNulls(ctx context.Context, read reading) error {
	text := fmt.Sprintf("SELECT 1 AS found FROM (%s\n) q WHERE q.%s IS NULL LIMIT 1", s.spec.SQL, s.column())
	_, err := read(ctx, text, nil, func(row) error {
		return fmt.Errorf("%w: page by %q: it is NULL in some rows, which would be skipped; use a unique column without NULL", tasks.ErrInvalid, s.spec.Page.By)
	})
	return err
}

// column is the page's column as the database writes names.
func (s *Source) column() string { return s.dialect.quote + s.spec.Page.By + s.dialect.quote }

// position is a value of the page's column with its type: a database compares 9 and "10"
// by it. Text is bytes, since a key column may hold any.
type position struct {
	Int   *int64   `json:"int,omitempty"`
	Float *float64 `json:"float,omitempty"`
	Time  string   `json:"time,omitempty"`
	Text  *[]byte  `json:"text,omitempty"`
}

func encodePosition(column string, v any, types map[string]string) (string, error) {
	var p position
	switch v := v.(type) {
	case int64:
		p.Int = &v
	case float64:
		p.Float = &v
	case string:
		if isTime(types[column]) {
			p.Time = v
		} else {
			b := []byte(v)
			p.Text = &b
		}
	default:
		return "", fmt.Errorf("%w: page by %q: a row holds %v (%T): use a unique column of numbers, text or times", tasks.ErrInvalid, column, v, v)
	}
	raw, err := json.Marshal(p)
	return string(raw), err
}

func decodePosition(s string) (any, error) {
	var p position
	if err := json.Unmarshal([]byte(s), &p); err != nil {
		return nil, fmt.Errorf("%w: position %q: %v", tasks.ErrInvalid, s, err)
	}
	switch {
	case p.Int != nil:
		return *p.Int, nil
	case p.Float != nil:
		return *p.Float, nil
	case p.Time != "":
		return time.Parse(time.RFC3339Nano, p.Time)
	case p.Text != nil:
		return string(*p.Text), nil
	}
	return nil, fmt.Errorf("%w: position %q", tasks.ErrInvalid, s)
}

// same reports whether two values of the page's column are equal.
func same(a, b any) bool {
	switch a.(type) {
	case int64, float64, string:
		return a == b
	}
	return false
}

// isTime reports whether the scanner turned the column's values from times into text.
func isTime(databaseType string) bool { return databaseType == timeType }

// timeType stands in a scanner's types for a column whose driver returned a time.Time.
const timeType = "time.Time"

// scanner reads rows of columns that are not known before.
type scanner struct {
	rows   *sql.Rows
	names  []string
	types  map[string]string
	values []any
	into   []any
}

func newScanner(rows *sql.Rows) (*scanner, error) {
	columns, err := rows.ColumnTypes()
	if err != nil {
		return nil, err
	}
	s := &scanner{rows: rows, types: map[string]string{}, values: make([]any, len(columns)), into: make([]any, len(columns))}
	for i, c := range columns {
		if _, twice := s.types[c.Name()]; twice {
			return nil, fmt.Errorf("%w: two columns are named %s: give one an alias", tasks.ErrInvalid, strconv.Quote(c.Name()))
		}
		s.names = append(s.names, c.Name())
		s.types[c.Name()] = strings.ToUpper(c.DatabaseTypeName())
		s.into[i] = &s.values[i]
	}
	return s, nil
}

func (s *scanner) row() (row, error) {
	if err := s.rows.Scan(s.into...); err != nil {
		return nil, err
	}
	r := make(row, len(s.names))
	for i, name := range s.names {
		if _, ok := s.values[i].(time.Time); ok {
			s.types[name] = timeType
		}
		r[name] = plain(s.values[i], s.types[name])
	}
	return r, nil
}
