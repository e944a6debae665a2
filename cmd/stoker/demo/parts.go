package demo

import (
	"bytes"
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"strings"
)

// The cache keys of the site, by what they begin with. All that a page is made of is cached
// under its own key, and no part is made from another cached part: what is read from a cache
// and cached again would be as old as the older of the two.
const (
	pageKey   = "page:/"       // + path: a whole page but for its fragments; each release's own
	postKey   = "post:"        // + slug: one row of the view posts, as a JSON object
	navKey    = "nav:tags"     // the list of tags, the same in every release
	authorKey = "frag:author/" // + author: the card under an article, the same in every release
)

// Limits of the lists.
const (
	listLength = 30
	navLength  = 24
)

// errAbsent: there is no such page. It is never cached.
var errAbsent = errors.New("no such page")

//go:embed pages
var pages embed.FS

// Designs are the releases that the site can be built as.
func Designs() []string { return []string{"r1", "r2"} }

func parseDesign(release string) (*template.Template, error) {
	t, err := template.ParseFS(pages, "pages/"+release+".html", "pages/parts.html")
	if err != nil {
		return nil, fmt.Errorf("build the site as release %q: %w", release, err)
	}
	return t, nil
}

// view is what the templates show.
type view struct {
	Title, Updated string
	Stamp          Stamp
	Tags, Authors  []string
	Body           []block
	Count          int
	Entries        []entry
}

type entry struct{ Slug, Title, Updated string }

type block struct {
	Heading bool
	Text    string
}

// tagOf returns the invalidation tag of what is cached under key.
func tagOf(key string) string {
	if slug, ok := strings.CutPrefix(key, postKey); ok {
		return postTag(slug)
	}
	if author, ok := strings.CutPrefix(key, authorKey); ok {
		return authorTag(author)
	}
	if key == navKey {
		return navTag
	}
	path := strings.TrimPrefix(key, pageKey)
	if tag, ok := strings.CutPrefix(path, tagPath); ok {
		return topicTag(tag)
	}
	if author, ok := strings.CutPrefix(path, authorPath); ok {
		return authorTag(author)
	}
	if path == "" {
		return latestTag
	}
	return postTag(path)
}

// keysOf returns every key with that invalidation tag: the inverse of [tagOf].
func keysOf(tag string) []string {
	kind, name, _ := strings.Cut(tag, ":")
	switch kind {
	case latestTag:
		return []string{pageKey}
	case navTag:
		return []string{navKey}
	case "tag":
		return []string{pageKey + tagPath + name}
	case "author":
		return []string{pageKey + authorPath + name, authorKey + name}
	default:
		return []string{pageKey + name, postKey + name}
	}
}

// part makes what belongs under key from the database, or errAbsent.
func (s *Site) part(ctx context.Context, t *Tally, key string) ([]byte, error) {
	if slug, ok := strings.CutPrefix(key, postKey); ok {
		return s.post(ctx, t, slug)
	}
	if author, ok := strings.CutPrefix(key, authorKey); ok {
		return s.list(ctx, t, "author", "author", author)
	}
	if key == navKey {
		return s.nav(ctx, t)
	}
	path := strings.TrimPrefix(key, pageKey)
	if tag, ok := strings.CutPrefix(path, tagPath); ok {
		return s.list(ctx, t, "list", "tag", tag)
	}
	if author, ok := strings.CutPrefix(path, authorPath); ok {
		return s.list(ctx, t, "list", "author", author)
	}
	if path == "" {
		return s.front(ctx, t)
	}
	return s.article(ctx, t, path)
}

func (s *Site) article(ctx context.Context, t *Tally, slug string) ([]byte, error) {
	var v view
	var body string
	v.Stamp.Tag = postTag(slug)
	err := s.db.query(ctx, t, func(r *sql.Rows) error { return r.Scan(&v.Title, &v.Updated, &v.Stamp.Number, &body) },
		`SELECT title, updated, version, body FROM articles WHERE slug = ?`, slug)
	if err != nil {
		return nil, err
	}
	if v.Title == "" {
		return nil, errAbsent
	}
	v.Body = blocks(body)
	err = s.db.query(ctx, t, func(r *sql.Rows) error {
		var kind, name string
		err := r.Scan(&kind, &name)
		if kind == "tag" {
			v.Tags = append(v.Tags, name)
		} else {
			v.Authors = append(v.Authors, name)
		}
		return err
	}, `SELECT kind, name FROM labels WHERE slug = ? ORDER BY kind, place`, slug)
	if err != nil {
		return nil, err
	}
	return s.execute("article", v)
}

// post is what the warm source of kind query writes as well: one row as a JSON object.
type post struct {
	Slug    string `json:"slug"`
	Title   string `json:"title"`
	Summary string `json:"summary"`
	Updated string `json:"updated"`
	Version int64  `json:"version"`
	Tags    string `json:"tags"`    // divided by commas
	Authors string `json:"authors"` // divided by commas
}

// postsSQL reads all posts; " WHERE slug = ?" makes it one.
const postsSQL = "SELECT slug, title, summary, updated, version, tags, authors FROM posts"

func (s *Site) post(ctx context.Context, t *Tally, slug string) ([]byte, error) {
	var p post
	err := s.db.query(ctx, t, func(r *sql.Rows) error {
		return r.Scan(&p.Slug, &p.Title, &p.Summary, &p.Updated, &p.Version, &p.Tags, &p.Authors)
	}, postsSQL+" WHERE slug = ?", slug)
	if err != nil {
		return nil, err
	}
	if p.Slug == "" {
		return nil, errAbsent
	}
	return json.Marshal(p)
}

// list makes a tag's or an author's page, or with the template "author" the author's card.
// The stamp is read first: should an edit come between, the page looks older than it is.
func (s *Site) list(ctx context.Context, t *Tally, name, kind, label string) ([]byte, error) {
	v, err := s.stamped(ctx, t, kind+":"+label)
	if err != nil {
		return nil, err
	}
	v.Title = label
	err = s.db.query(ctx, t, func(r *sql.Rows) error { return r.Scan(&v.Count) },
		`SELECT count(*) FROM labels WHERE kind = ? AND name = ?`, kind, label)
	if err != nil || name == "author" {
		return s.finish(name, v, err)
	}
	if v.Count == 0 {
		return nil, errAbsent
	}
	err = s.db.query(ctx, t, v.addEntry,
		`SELECT a.slug, a.title, a.updated FROM labels l JOIN articles a ON a.slug = l.slug
		 WHERE l.kind = ? AND l.name = ? ORDER BY a.version DESC, a.updated DESC, a.slug LIMIT ?`, kind, label, listLength)
	return s.finish(name, v, err)
}

func (s *Site) front(ctx context.Context, t *Tally) ([]byte, error) {
	v, err := s.stamped(ctx, t, latestTag)
	if err != nil {
		return nil, err
	}
	v.Title = "Latest articles"
	err = s.db.query(ctx, t, v.addEntry,
		`SELECT slug, title, updated FROM articles ORDER BY version DESC, updated DESC, slug LIMIT ?`, listLength)
	v.Count = len(v.Entries)
	return s.finish("list", v, err)
}

func (s *Site) nav(ctx context.Context, t *Tally) ([]byte, error) {
	v, err := s.stamped(ctx, t, navTag)
	if err != nil {
		return nil, err
	}
	err = s.db.query(ctx, t, v.addEntry,
		`SELECT name, count(*), '' FROM labels WHERE kind = 'tag' GROUP BY name ORDER BY count(*) DESC, name LIMIT ?`, navLength)
	return s.finish("nav", v, err)
}

// stamped begins a view of what the invalidation tag labels.
func (s *Site) stamped(ctx context.Context, t *Tally, tag string) (*view, error) {
	v := &view{Stamp: Stamp{Tag: tag}}
	err := s.db.query(ctx, t, func(r *sql.Rows) error { return r.Scan(&v.Stamp.Number) },
		`SELECT version FROM touched WHERE tag = ?`, tag)
	return v, err
}

func (v *view) addEntry(r *sql.Rows) error {
	var e entry
	err := r.Scan(&e.Slug, &e.Title, &e.Updated)
	v.Entries = append(v.Entries, e)
	return err
}

func (s *Site) finish(name string, v *view, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return s.execute(name, *v)
}

func (s *Site) execute(name string, v view) ([]byte, error) {
	var b bytes.Buffer
	if err := s.design.ExecuteTemplate(&b, name, v); err != nil {
		return nil, fmt.Errorf("render %q: %w", v.Title, err)
	}
	return b.Bytes(), nil
}

// blocks cuts Markdown into headings and paragraphs, which is as much of it as the site knows.
func blocks(markdown string) []block {
	var out []block
	for text := range strings.SplitSeq(markdown, "\n\n") {
		text = strings.TrimSpace(text)
		if text == "" {
			continue
		}
		heading := strings.TrimLeft(text, "#")
		out = append(out, block{Heading: heading != text, Text: strings.TrimSpace(heading)})
	}
	return out
}
