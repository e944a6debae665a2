package query

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/source"
)

// chunkRows bounds the rows of a chunk, and chunkBytes its values: a chunk is one pipeline, and three
// of them are in memory at a time.
const (
	chunkRows  = 1000
	chunkBytes = 2 << 20
)

// countLimit is how long a count may take before it is given up: it is for progress only.
const countLimit = 3 * time.Second

// Source reads the rows of one spec.
type Source struct {
	spec    Spec
	entry   Entry
	build   *builder
	db      *sql.DB
	dialect dialect
	columns map[string]string // the database's type of each; nil until it was asked for
}

var (
	_ source.Source  = (*Source)(nil)
	_ source.Counter = (*Source)(nil)
)

// New returns the source of a spec for a release. getenv gives the DSN, now the time that
// lifetimes count from. Close it.
func New(spec Spec, entry Entry, release string, getenv func(string) string, now func() time.Time) (*Source, error) {
	b, err := newBuilder(entry, release, now)
	if err != nil {
		return nil, err
	}
	db, err := open(spec.Driver, spec.DSNEnv, getenv)
	if err != nil {
		return nil, err
	}
	return &Source{spec: spec, entry: entry, build: b, db: db, dialect: dialects[spec.Driver]}, nil
}

// Close ends the connections to the database.
func (s *Source) Close() error { return s.db.Close() }

// Count implements [source.Counter]; it gives up after three seconds and returns 0.
func (s *Source) Count(ctx context.Context) (int64, error) {
	limited, cancel := context.WithTimeout(ctx, countLimit)
	defer cancel()
	var n int64
	if err := s.db.QueryRowContext(limited, "SELECT count(*) FROM ("+s.spec.SQL+"\n) q").Scan(&n); err != nil {
		return 0, ctx.Err()
	}
	return n, nil
}

// Keys implements [source.Source].
func (s *Source) Keys(ctx context.Context, fn func(key string) error) error {
	_, err := s.read(ctx, s.spec.SQL, nil, func(r row) error {
		key, err := s.build.keyOf(r)
		if err != nil {
			return nil // a walk counts it as failed; it has no key to name
		}
		return fn(key)
	})
	return err
}

// Walk implements [source.Source]. Next is the last row's value of the page's column; where the
// part names keys, how many of them are done. Rows are read while what was read before is written.
func (s *Source) Walk(ctx context.Context, part source.Part, from string, fn func(source.Chunk) error) error {
	if part.Items != nil {
		return s.walkItems(ctx, part, from, fn)
	}
	return source.Ahead(ctx, fn, func(ctx context.Context, fn func(source.Chunk) error) error {
		c := chunker{part: part, build: s.build, fn: fn}
		if s.spec.Page != nil {
			return s.walkPages(ctx, from, &c)
		}
		if _, err := s.read(ctx, s.spec.SQL, nil, c.add); err != nil {
			return err
		}
		return c.flush("")
	})
}

// walkPages reads page by page, all of them in one transaction where the database can.
func (s *Source) walkPages(ctx context.Context, from string, c *chunker) error {
	read := reading(s.read)
	if s.spec.Driver != "sqlite" {
		tx, err := s.begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		read = func(ctx context.Context, query string, args []any, fn func(row) error) (map[string]string, error) {
			return readRows(ctx, tx, query, args, fn)
		}
	}
	if from == "" {
		if err := s.refuseNulls(ctx, read); err != nil {
			return err
		}
	}
	for {
		query, args, err := s.page(from)
		if err != nil {
			return err
		}
		rows := 0
		var last any
		types, err := read(ctx, query, args, func(r row) error {
			v := r[s.spec.Page.By]
			if rows++; rows > 1 && same(last, v) {
				return fmt.Errorf("%w: page by %q: two rows hold %v: rows would be skipped; use a column whose values are unique", tasks.ErrInvalid, s.spec.Page.By, v)
			}
			last = v
			return c.add(r)
		})
		if err != nil {
			return err
		}
		if rows == 0 {
			return nil
		}
		if from, err = encodePosition(s.spec.Page.By, last, types); err != nil {
			return err
		}
		if err := c.flush(from); err != nil || rows < s.spec.Page.Size {
			return err
		}
	}
}

// reading streams a query's rows, and returns the database's type of each column.
type reading func(ctx context.Context, query string, args []any, fn func(row) error) (map[string]string, error)

// read streams a query's rows inside a transaction of its own.
func (s *Source) read(ctx context.Context, query string, args []any, fn func(row) error) (map[string]string, error) {
	tx, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	return readRows(ctx, tx, query, args, fn)
}

// readRows streams a query's rows: the server makes them as they are taken.
func readRows(ctx context.Context, tx *sql.Tx, query string, args []any, fn func(row) error) (map[string]string, error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	defer rows.Close()
	scan, err := newScanner(rows)
	if err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	for rows.Next() {
		r, err := scan.row()
		if err != nil {
			return nil, fmt.Errorf("read row: %w", err)
		}
		if err := fn(r); err != nil {
			return nil, err
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read rows: %w", err)
	}
	return scan.types, nil
}

// begin starts a transaction that cannot write and that sees one state of the database throughout.
func (s *Source) begin(ctx context.Context) (tx *sql.Tx, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("read database in %s: %w", s.spec.DSNEnv, err)
		}
	}()
	// SQLite's driver takes no such options: there the connection itself is told.
	if s.spec.Driver != "sqlite" {
		return s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead})
	}
	if tx, err = s.db.BeginTx(ctx, nil); err != nil {
		return nil, err
	}
	if _, err := tx.ExecContext(ctx, "PRAGMA query_only = ON"); err != nil {
		tx.Rollback()
		return nil, err
	}
	return tx, nil
}

// chunker gathers rows into chunks.
type chunker struct {
	part  source.Part
	build *builder
	fn    func(source.Chunk) error
	chunk source.Chunk
	bytes int
}

// add takes a row; a chunk that is full leaves without a position, so that within a page
// nothing is resumed.
func (c *chunker) add(r row) error {
	key, err := c.build.keyOf(r)
	if err == nil && !c.part.Takes(key) {
		return nil
	}
	var e source.Entry
	if err == nil {
		e, err = c.build.build(key, r)
	}
	if err != nil {
		c.chunk.Failed = append(c.chunk.Failed, source.Failure{Key: key, Error: err.Error()})
	} else {
		c.chunk.Entries = append(c.chunk.Entries, e)
		c.bytes += e.Size()
	}
	if len(c.chunk.Entries)+len(c.chunk.Failed) >= chunkRows || c.bytes >= chunkBytes {
		return c.flush("")
	}
	return nil
}

// flush hands over what was gathered, and the position after it.
func (c *chunker) flush(next string) error {
	full := c.chunk
	full.Written, full.Next = source.ByRunner, next
	c.chunk, c.bytes = source.Chunk{}, 0
	if len(full.Entries)+len(full.Failed) == 0 && next == "" {
		return nil
	}
	return c.fn(full)
}
