// Package query is the source that reads rows of the site's database: each row is one entry.
//
// # Reading
//
// Rows are streamed: the server makes them as they are taken, so memory grows with the table neither here
// nor there. A walk is one consistent read: one read-only transaction that sees the database as it was
// at its beginning (REPEATABLE READ in PostgreSQL, InnoDB's consistent read in MySQL and MariaDB). It
// lasts as long as the walk does, and holds up nobody's writes.
//
// With a page the walk reads page by page on a unique column (WHERE column > last … LIMIT size), and
// a retry goes on after the last page that was written, in a new transaction. What was edited between
// the two is caught like every other edit: the retry keeps the first try's mark. Without a page a
// retry begins again. In SQLite each page is a transaction of its own, since a reader there may hold
// up the site's writes; what is edited between two pages is caught by the mark again.
//
// MySQL gives up a connection whose reader takes nothing for net_write_timeout, 60 seconds by
// default: give a large table a page.
package query

import (
	"regexp"
	"slices"
	"strings"

	"github.com/alphanode/stoker/worker/warm/source"
)

// Spec says which rows to read: the plan's `query`.
type Spec struct {
	Driver string `yaml:"driver"`         // postgres, mysql or sqlite
	DSNEnv string `yaml:"dsn_env"`        // name of the environment variable that holds the DSN
	SQL    string `yaml:"sql"`            // one SELECT, without a closing semicolon
	Page   *Page  `yaml:"page,omitempty"` // read page by page; nil reads in one go
}

// Page makes the walk resumable: rows are read in order of a column, Size at a time.
type Page struct {
	By   string `yaml:"by"`   // a column of the result whose values are unique and never NULL
	Size int    `yaml:"size"` // rows a page, 1 to 100,000
}

// Entry says how a row becomes an entry: the plan's `entry`. Key, Tags and a template in Value
// see the row's columns by name, and Release.
type Entry struct {
	Key    string          `yaml:"key"`              // template; a NULL column in it fails the row
	Value  string          `yaml:"value,omitempty"`  // "json" (the row; the default), "column:NAME", or a template
	TTL    source.Duration `yaml:"ttl,omitempty"`    // "" never expires
	Jitter source.Percent  `yaml:"jitter,omitempty"` // each entry lives up to this share shorter than TTL
	Tags   []string        `yaml:"tags,omitempty"`   // templates; an empty result is left out
}

const maxPage = 100_000

var (
	drivers    = []string{"postgres", "mysql", "sqlite"}
	envName    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	columnName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	// selects: MariaDB lets a statement like DROP TABLE end even a read-only transaction.
	selects = regexp.MustCompile(`(?i)^(select|with)\b`)
)

// Check adds what is wrong with the spec, which stands at path in the plan.
func (s Spec) Check(path string, ps *source.Problems) {
	if !slices.Contains(drivers, s.Driver) {
		ps.Add(path+".driver", "unknown driver %q: use one of %v", s.Driver, drivers)
	}
	if !envName.MatchString(s.DSNEnv) {
		// The value is not repeated: it may be the DSN itself, and with it a password.
		ps.Add(path+".dsn_env", "not the name of an environment variable: put the DSN into one and give its name, such as SITE_DSN")
	}
	switch sql := strings.TrimSpace(s.SQL); {
	case sql == "":
		ps.Add(path+".sql", "empty: write the SELECT whose rows are the entries")
	case strings.HasSuffix(sql, ";"):
		ps.Add(path+".sql", "ends with a semicolon: write one SELECT without it")
	case !selects.MatchString(sql):
		ps.Add(path+".sql", "begins with %.20q: write one statement that begins with SELECT or WITH", sql)
	}
	if s.Page == nil {
		return
	}
	if !columnName.MatchString(s.Page.By) {
		ps.Add(path+".page.by", "column %q: use the plain name of a unique column of the result", s.Page.By)
	}
	if s.Page.Size < 1 || s.Page.Size > maxPage {
		ps.Add(path+".page.size", "%d rows: use 1 to %d", s.Page.Size, maxPage)
	}
}

// Check adds what is wrong with the entry, which stands at path in the plan.
func (e Entry) Check(path string, ps *source.Problems) {
	if e.Key == "" {
		ps.Add(path+".key", "empty: write a template such as post:{{.slug}}")
	} else if strings.HasPrefix(e.Key, "#") {
		ps.Add(path+".key", "key %q: logical keys that begin with # are reserved", e.Key)
	}
	ps.Check(path+".key", source.CheckTemplate(e.Key))
	if kind, _ := e.valueKind(); kind == valueUnknown {
		ps.Add(path+".value", "%q: use json, column:NAME or a template with {{ }}", e.Value)
	} else if kind == valueTemplate {
		ps.Check(path+".value", source.CheckTemplate(e.Value))
	}
	_, err := e.TTL.Parse()
	ps.Check(path+".ttl", err)
	_, err = e.Jitter.Parse()
	ps.Check(path+".jitter", err)
	if e.Jitter != "" && e.TTL == "" {
		ps.Add(path+".jitter", "%s of no ttl: give a ttl as well", string(e.Jitter))
	}
	for _, tag := range e.Tags {
		ps.Check(path+".tags", source.CheckTemplate(tag))
	}
}

type valueKind int

const (
	valueUnknown valueKind = iota
	valueJSON
	valueColumn
	valueTemplate
)

// valueKind returns how the entry's value is made, and the column's name where it is one.
func (e Entry) valueKind() (valueKind, string) {
	column, isColumn := strings.CutPrefix(e.Value, "column:")
	switch {
	case e.Value == "" || e.Value == "json":
		return valueJSON, ""
	case isColumn && column != "":
		return valueColumn, column
	case strings.Contains(e.Value, "{{"):
		return valueTemplate, ""
	}
	return valueUnknown, ""
}
