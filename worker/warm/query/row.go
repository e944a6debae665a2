package query

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/source"
)

// null is a NULL column in a value template: it prints as nothing and is false.
type null []byte

// String implements [fmt.Stringer].
func (null) String() string { return "" }

// row is one row by column name, its values made plain: nil, bool, int64, float64, string,
// or json.RawMessage for a column of the database's JSON type.
type row map[string]any

// plain turns what a driver returned into a value that prints and encodes as a person expects.
func plain(v any, databaseType string) any {
	text := ""
	switch v := v.(type) {
	case []byte:
		text = string(v)
	case string:
		text = v
	case time.Time:
		return v.Format(time.RFC3339Nano)
	default:
		return v
	}
	if (databaseType == "JSON" || databaseType == "JSONB") && json.Valid([]byte(text)) {
		return json.RawMessage(text)
	}
	return text
}

// builder makes entries of rows.
type builder struct {
	release string
	key     source.Template
	tags    []source.Template
	kind    valueKind
	column  string
	value   source.Template
	ttl     time.Duration
	jitter  float64
	now     func() time.Time
}

func newBuilder(e Entry, release string, now func() time.Time) (*builder, error) {
	b := &builder{release: release, ttl: e.TTL.Or(0), jitter: e.Jitter.Or(0), now: now}
	b.kind, b.column = e.valueKind()
	var err error
	if b.key, err = source.ParseTemplate(e.Key); err != nil {
		return nil, err
	}
	if b.tags, err = source.ParseTemplates(e.Tags); err != nil {
		return nil, err
	}
	if b.kind == valueTemplate {
		b.value, err = source.ParseTemplate(e.Value)
	}
	return b, err
}

// columns is what templates see of a row. A NULL column is left out where it would make a key or a
// tag that means something else, and is empty in a value.
type columns struct {
	row     row
	release string
	nulls   bool
}

var _ source.Data = columns{}

// Get implements [source.Data].
func (c columns) Get(name string) (any, bool) {
	if name == "Release" {
		if _, own := c.row[name]; !own {
			return c.release, true
		}
	}
	v, ok := c.row[name]
	switch v := v.(type) {
	case json.RawMessage:
		return string(v), true
	case nil:
		return null(nil), ok && c.nulls
	}
	return v, ok
}

// All implements [source.Data].
func (c columns) All() map[string]any {
	d := map[string]any{"Release": c.release}
	for name := range c.row {
		if v, ok := c.Get(name); ok {
			d[name] = v
		} else {
			delete(d, name)
		}
	}
	return d
}

// keyOf renders the row's logical key.
func (b *builder) keyOf(r row) (string, error) {
	key, err := b.key.Render(columns{r, b.release, false})
	if err != nil {
		return "", fmt.Errorf("key: %w (a NULL column counts as missing)", err)
	}
	return key, source.CheckKey(key)
}

// build makes the row's entry, whose key is known.
func (b *builder) build(key string, r row) (source.Entry, error) {
	e := source.Entry{Entry: tasks.Entry{Key: key, Type: tasks.EntryString, ExpiresAt: b.expiry(key)}}
	tags, err := source.RenderAll(b.tags, columns{r, b.release, false})
	if err != nil {
		return e, fmt.Errorf("tags: %w (a NULL column counts as missing)", err)
	}
	e.Tags = slices.DeleteFunc(tags, func(t string) bool { return t == "" })
	if e.Value, err = b.valueOf(r); err != nil {
		return e, fmt.Errorf("value: %w", err)
	}
	return e, nil
}

func (b *builder) valueOf(r row) (string, error) {
	switch b.kind {
	case valueColumn:
		v, ok := r[b.column]
		if !ok {
			return "", fmt.Errorf("the rows have no column %q", b.column)
		}
		if v == nil {
			return "", fmt.Errorf("column %q is NULL", b.column)
		}
		if raw, ok := v.(json.RawMessage); ok {
			return string(raw), nil
		}
		return fmt.Sprint(v), nil
	case valueTemplate:
		return b.value.Render(columns{r, b.release, true})
	}
	return encode(r)
}

// encode returns the row as JSON, columns in order of name. Bytes that are no text have no
// place in JSON, and a replaced character would be a silent loss.
func encode(r row) (string, error) {
	for name, v := range r {
		if s, ok := v.(string); ok && !utf8.ValidString(s) {
			return "", fmt.Errorf("column %q holds bytes that are not UTF-8: leave it out, or store it alone with column:%s", name, name)
		}
	}
	var text strings.Builder
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return "", err
	}
	return strings.TrimSuffix(text.String(), "\n"), nil
}

// expiry returns when the entry ends, in Unix milliseconds; 0 is never. The jitter is taken
// from the key, so that a retry gives an entry the same lifetime.
func (b *builder) expiry(key string) int64 {
	if b.ttl == 0 {
		return 0
	}
	const steps = 1 << 20
	cut := b.jitter * float64(source.Rank(key)%steps) / steps
	life := b.ttl - time.Duration(cut*float64(b.ttl))
	return b.now().Add(max(life, time.Millisecond)).UnixMilli()
}
