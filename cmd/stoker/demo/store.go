package demo

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	_ "modernc.org/sqlite" // the embedded database, driver name "sqlite"
)

// schema.sql: the articles, their labels, and as of which edit each tag was last changed.
//
//go:embed schema.sql
var schema string

const driver = "sqlite"

// Store is the site's database: an SQLite file. One writer, any number of readers.
type Store struct {
	path   string
	writer *sql.DB
	corpus map[string]Article // what an edit writes is made from it
	tags   []string           // all tags there are, for articles that an edit invents or relabels
	number int64              // of the last edit; one editor at a time owns it
}

// OpenStore makes a new database in dir and fills it. Close it.
func OpenStore(ctx context.Context, dir string, c Corpus) (_ *Store, err error) {
	s := &Store{path: filepath.Join(dir, "site.db"), corpus: map[string]Article{}}
	// Durability is of no use to a database that is deleted at the end.
	s.writer, err = sql.Open(driver, s.dsn("journal_mode(WAL)", "synchronous(OFF)")+"&_txlock=immediate")
	if err != nil {
		return nil, fmt.Errorf("open the site's database: %w", err)
	}
	s.writer.SetMaxOpenConns(1)
	if err := s.fill(ctx, c); err != nil {
		return nil, errors.Join(fmt.Errorf("fill the site's database: %w", err), s.Close())
	}
	return s, nil
}

// Close closes the writer. The file is the caller's to delete.
func (s *Store) Close() error { return s.writer.Close() }

// DSN is what a reader opens with the driver "sqlite", such as a warm source of kind query.
func (s *Store) DSN() string { return s.dsn("query_only(true)") }

func (s *Store) dsn(pragmas ...string) string {
	dsn := "file:" + s.path + "?_pragma=busy_timeout(10000)"
	for _, p := range pragmas {
		dsn += "&_pragma=" + p
	}
	return dsn
}

func (s *Store) fill(ctx context.Context, c Corpus) error {
	tx, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, schema); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, a := range c.Articles {
		s.corpus[a.Slug] = a
		for _, t := range a.Tags {
			if !seen[t] {
				seen[t] = true
				s.tags = append(s.tags, t)
			}
		}
		if err := putArticle(ctx, tx, a, 0); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// Reader is one site's pool of connections to the store. Every query costs the latency of a
// database across a network, and no more than so many run at once. Safe for concurrent use.
type Reader struct {
	db      *sql.DB
	latency time.Duration
}

// Reader opens a pool of conns connections. Close it.
func (s *Store) Reader(conns int, latency time.Duration) (*Reader, error) {
	db, err := sql.Open(driver, s.DSN())
	if err != nil {
		return nil, fmt.Errorf("open the site's database: %w", err)
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return &Reader{db, latency}, nil
}

// direct returns a reader that shares the connections and adds no latency.
func (r *Reader) direct() *Reader { return &Reader{db: r.db} }

// Close closes the pool.
func (r *Reader) Close() error { return r.db.Close() }

// Tally counts the database calls made for one answer.
type Tally struct {
	calls, nanos atomic.Int64
}

// Calls returns how many calls were made.
func (t *Tally) Calls() int64 { return t.calls.Load() }

// Took returns how long they took together, waiting for a connection included.
func (t *Tally) Took() time.Duration { return time.Duration(t.nanos.Load()) }

// query runs one statement and calls scan for every row.
func (r *Reader) query(ctx context.Context, t *Tally, scan func(*sql.Rows) error, text string, args ...any) error {
	start := time.Now()
	defer func() {
		t.calls.Add(1)
		t.nanos.Add(int64(time.Since(start)))
	}()
	conn, err := r.db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("query the site's database: %w", err)
	}
	defer conn.Close()
	// The sleep holds the connection, as a slow query would.
	time.Sleep(r.latency)
	rows, err := conn.QueryContext(ctx, text, args...)
	if err != nil {
		return fmt.Errorf("query the site's database: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return fmt.Errorf("read the site's database: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read the site's database: %w", err)
	}
	return nil
}

// scanInto appends the only column of every row to list.
func scanInto(list *[]string) func(*sql.Rows) error {
	return func(r *sql.Rows) error {
		var s string
		err := r.Scan(&s)
		*list = append(*list, s)
		return err
	}
}
