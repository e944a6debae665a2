package demo

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
)

// Edit is an event on its way into the database.
type Edit struct {
	Number int64           // ascending from 1
	Tags   []string        // the invalidation tags it changes, sorted
	Alive  map[string]bool // slug → whether it exists afterwards, for every article touched
}

// The invalidation tags.
const (
	latestTag = "latest" // the front page
	navTag    = "nav"    // the list of tags on every page
)

func postTag(slug string) string     { return "post:" + slug }
func topicTag(tag string) string     { return "tag:" + tag }
func authorTag(author string) string { return "author:" + author }

// Apply makes one edit. before is called with the edit when all is written and nothing yet
// committed. One call at a time.
func (s *Store) Apply(ctx context.Context, e Event, before func(Edit)) (Edit, error) {
	tx, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		return Edit{}, fmt.Errorf("edit: %w", err)
	}
	defer tx.Rollback()
	w := &writing{ctx: ctx, tx: tx, store: s, number: s.number + 1, tags: map[string]bool{latestTag: true}, alive: map[string]bool{}}
	for _, c := range e.Changes {
		if err := w.change(c); err != nil {
			return Edit{}, fmt.Errorf("edit %d: %s %q: %w", w.number, c.Op, c.Slug, err)
		}
	}
	edit, err := w.edit()
	if err != nil {
		return Edit{}, fmt.Errorf("edit %d: %w", w.number, err)
	}
	before(edit)
	if err := tx.Commit(); err != nil {
		return Edit{}, fmt.Errorf("edit %d: %w", w.number, err)
	}
	s.number = w.number
	return edit, nil
}

// writing is one edit's transaction and what it has changed so far.
type writing struct {
	ctx    context.Context
	tx     *sql.Tx
	store  *Store
	number int64
	tags   map[string]bool
	alive  map[string]bool
}

func (w *writing) change(c Change) error {
	switch c.Op {
	case Delete:
		return w.remove(c.Slug)
	case Rename:
		old, err := w.read(c.From)
		if errors.Is(err, sql.ErrNoRows) {
			return w.revise(c.Slug)
		}
		if err != nil {
			return err
		}
		old.Slug = c.Slug
		if err := w.remove(c.From); err != nil {
			return err
		}
		return w.put(old)
	default:
		return w.revise(c.Slug)
	}
}

// revise writes the article anew: its first text, and a line that only this edit has. Every
// seventh edit files it under another tag as well, so that it moves from list to list.
func (w *writing) revise(slug string) error {
	a, ok := w.store.corpus[slug]
	if !ok {
		a = w.store.invent(slug)
	}
	a.Body += fmt.Sprintf("\n\nRevised by edit %d.", w.number)
	if n := len(w.store.tags); n > 0 && w.number%7 == 0 {
		extra := w.store.tags[int(w.number)%n]
		if !slices.Contains(a.Tags, extra) {
			a.Tags = append(slices.Clone(a.Tags), extra)
		}
	}
	return w.put(a)
}

// put writes the article whether or not it exists.
func (w *writing) put(a Article) error {
	old, err := w.read(a.Slug)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		w.tags[navTag] = true
	case err != nil:
		return err
	case !slices.Equal(old.Tags, a.Tags):
		w.tags[navTag] = true
	}
	w.touch(old)
	w.touch(a)
	w.alive[a.Slug] = true
	if err := dropArticle(w.ctx, w.tx, a.Slug); err != nil {
		return err
	}
	return putArticle(w.ctx, w.tx, a, w.number)
}

// remove deletes the article; deleting what is not there is no error.
func (w *writing) remove(slug string) error {
	old, err := w.read(slug)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	w.touch(old)
	w.tags[navTag] = true
	w.alive[slug] = false
	return dropArticle(w.ctx, w.tx, slug)
}

// touch notes every page on which the article stands.
func (w *writing) touch(a Article) {
	if a.Slug == "" {
		return
	}
	w.tags[postTag(a.Slug)] = true
	for _, t := range a.Tags {
		w.tags[topicTag(t)] = true
	}
	for _, t := range a.Authors {
		w.tags[authorTag(t)] = true
	}
}

// read returns the article as it stands; sql.ErrNoRows when it does not exist.
func (w *writing) read(slug string) (Article, error) {
	a := Article{Slug: slug}
	err := w.tx.QueryRowContext(w.ctx, `SELECT title, updated, body FROM articles WHERE slug = ?`, slug).Scan(&a.Title, &a.Updated, &a.Body)
	if err != nil {
		return Article{}, err
	}
	rows, err := w.tx.QueryContext(w.ctx, `SELECT kind, name FROM labels WHERE slug = ? ORDER BY kind, place`, slug)
	if err != nil {
		return Article{}, err
	}
	defer rows.Close()
	for rows.Next() {
		var kind, name string
		if err := rows.Scan(&kind, &name); err != nil {
			return Article{}, err
		}
		if kind == "tag" {
			a.Tags = append(a.Tags, name)
		} else {
			a.Authors = append(a.Authors, name)
		}
	}
	return a, rows.Err()
}

// edit stamps every tag that was changed and returns the sum of it all.
func (w *writing) edit() (Edit, error) {
	e := Edit{Number: w.number, Alive: w.alive}
	for tag := range w.tags {
		e.Tags = append(e.Tags, tag)
		if _, err := w.tx.ExecContext(w.ctx, `INSERT OR REPLACE INTO touched (tag, version) VALUES (?, ?)`, tag, w.number); err != nil {
			return Edit{}, err
		}
	}
	slices.Sort(e.Tags)
	return e, nil
}

// invent makes up the article that a history speaks of and the corpus does not hold.
func (s *Store) invent(slug string) Article {
	h := fnv.New64a()
	h.Write([]byte(slug))
	n := h.Sum64()
	a := Article{Slug: slug, Title: "About " + slug, Body: "This page came late.", Authors: []string{"desk"}, Updated: "2025-01-01"}
	if len(s.tags) > 0 {
		a.Tags = []string{s.tags[n%uint64(len(s.tags))]}
	}
	return a
}

func putArticle(ctx context.Context, tx *sql.Tx, a Article, version int64) error {
	if _, err := tx.ExecContext(ctx, `INSERT INTO articles (slug, title, updated, version, body) VALUES (?, ?, ?, ?, ?)`,
		a.Slug, a.Title, a.Updated, version, a.Body); err != nil {
		return err
	}
	for kind, names := range map[string][]string{"tag": a.Tags, "author": a.Authors} {
		for place, name := range names {
			if _, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO labels (kind, name, slug, place) VALUES (?, ?, ?, ?)`, kind, name, a.Slug, place); err != nil {
				return err
			}
		}
	}
	return nil
}

func dropArticle(ctx context.Context, tx *sql.Tx, slug string) error {
	for _, text := range []string{`DELETE FROM articles WHERE slug = ?`, `DELETE FROM labels WHERE slug = ?`} {
		if _, err := tx.ExecContext(ctx, text, slug); err != nil {
			return err
		}
	}
	return nil
}
