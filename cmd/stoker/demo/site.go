package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
)

// pageTTL is how long the site lets a page live in the cache.
const pageTTL = time.Hour

// The answers' own headers.
const (
	CacheHeader   = "X-Cache"   // HIT, MISS, or BYPASS where no cache was asked
	ReleaseHeader = "X-Release" // the build that answered
)

// Site is one build of the site: it renders the store's content in its release's design and
// caches what it rendered. It serves
//
//	/  /<slug>  /tag/<tag>  /author/<author>  /api/<slug>  /sitemap.xml
//
// A request with "Cache-Control: no-store" reads the cache and leaves it as it is. Safe for
// concurrent use.
type Site struct {
	release string
	db      *Reader
	cache   Cache // nil: every part is made from the database
	design  *template.Template
	log     *slog.Logger
}

// NewSite builds the site as one of the [Designs]. Without a cache it renders every page from
// the database alone, which is what the others are compared with.
func NewSite(releaseID string, db *Reader, cache Cache, log *slog.Logger) (*Site, error) {
	design, err := parseDesign(releaseID)
	if err != nil {
		return nil, err
	}
	return &Site{release: releaseID, db: db, cache: cache, design: design, log: log}, nil
}

// answer is one page on its way out, and how it was made.
type answer struct {
	kind         string // content type
	body         []byte
	noStore      bool
	tally        Tally
	hits, misses int
}

// ServeHTTP implements [http.Handler].
func (s *Site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "this site is read only", http.StatusMethodNotAllowed)
		return
	}
	a := &answer{noStore: strings.Contains(r.Header.Get("Cache-Control"), "no-store")}
	err := s.answer(r.Context(), a, r.URL.Path, r.Host)
	s.describe(w.Header(), a)
	switch {
	case errors.Is(err, errAbsent):
		http.Error(w, "there is no such page", http.StatusNotFound)
	case err != nil && r.Context().Err() != nil:
		// Whoever asked has gone: nobody reads the answer, and nothing is wrong.
		http.Error(w, "the request was given up", http.StatusServiceUnavailable)
	case err != nil:
		s.log.Error("page failed", "release", s.release, "path", r.URL.Path, "error", err)
		http.Error(w, "the page could not be made", http.StatusInternalServerError)
	case r.Header.Get("If-None-Match") == w.Header().Get("ETag"):
		w.WriteHeader(http.StatusNotModified)
	default:
		w.Header().Set("Content-Type", a.kind)
		w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
		w.Write(a.body)
	}
}

// describe tells how the answer was made.
func (s *Site) describe(h http.Header, a *answer) {
	cached := "HIT"
	switch {
	case a.hits+a.misses == 0:
		cached = "BYPASS"
	case a.misses > 0:
		cached = "MISS"
	}
	h.Set(CacheHeader, cached)
	h.Set(ReleaseHeader, s.release)
	h.Set("Server-Timing", fmt.Sprintf(`db;desc="%d calls";dur=%.1f`, a.tally.Calls(), float64(a.tally.Took().Microseconds())/1000))
	if a.body != nil {
		h.Set("ETag", fmt.Sprintf(`"%s-%016x"`, s.release, xxhash.Sum64(a.body)))
	}
}

// answer makes the page at path.
func (s *Site) answer(ctx context.Context, a *answer, path, host string) (err error) {
	path = strings.TrimPrefix(path, "/")
	if path == sitemapPath {
		a.kind = "application/xml"
		a.body, err = s.sitemap(ctx, &a.tally, host)
		return err
	}
	if slug, ok := strings.CutPrefix(path, apiPath); ok {
		a.kind = "application/json"
		raw, err := s.get(ctx, a, postKey+slug)
		if err == nil {
			a.body, err = showPost(raw)
		}
		return err
	}
	a.kind = "text/html; charset=utf-8"
	a.body, err = s.get(ctx, a, pageKey+path)
	if err == nil {
		a.body, err = s.compose(ctx, a, a.body)
	}
	return err
}

// errNotStored is what a load answers when nothing may be stored.
var errNotStored = errors.New("the request forbids storing")

// get returns the part under key, from the cache if it holds it.
func (s *Site) get(ctx context.Context, a *answer, key string) ([]byte, error) {
	if s.cache == nil {
		return s.part(ctx, &a.tally, key)
	}
	value, hit, err := s.cache.Fetch(ctx, key, []string{tagOf(key)}, pageTTL, func(ctx context.Context) ([]byte, error) {
		if a.noStore {
			return nil, errNotStored
		}
		return s.part(ctx, &a.tally, key)
	})
	if hit {
		a.hits++
	} else {
		a.misses++
	}
	if errors.Is(err, errNotStored) {
		// Whoever only looks shall not keep the database from the visitors.
		looking := *s
		looking.db = s.db.direct()
		return looking.part(ctx, &a.tally, key)
	}
	return value, err
}

var (
	includeOpen  = []byte(`<include key="`)
	includeClose = []byte(`"/>`)
)

// compose puts the fragments into a page. Text from the database cannot pass for an include:
// the templates escape it.
func (s *Site) compose(ctx context.Context, a *answer, page []byte) ([]byte, error) {
	var out bytes.Buffer
	for {
		before, rest, ok := bytes.Cut(page, includeOpen)
		out.Write(before)
		if !ok {
			return out.Bytes(), nil
		}
		key, after, _ := bytes.Cut(rest, includeClose)
		fragment, err := s.get(ctx, a, string(key))
		if err != nil {
			return nil, err
		}
		out.Write(fragment)
		page = after
	}
}

// showPost turns a cached row into the JSON that is served, whoever wrote the row.
func showPost(row []byte) ([]byte, error) {
	var p post
	if err := json.Unmarshal(row, &p); err != nil {
		return nil, fmt.Errorf("read a cached post: %w", err)
	}
	return json.Marshal(struct {
		post
		Stamp string `json:"stamp"`
	}{p, Stamp{postTag(p.Slug), p.Version}.String()})
}

// Render returns the page at path, or nil where there is none.
func (s *Site) Render(ctx context.Context, path string) ([]byte, error) {
	var a answer
	err := s.answer(ctx, &a, path, "")
	if errors.Is(err, errAbsent) {
		return nil, nil
	}
	return a.body, err
}

// Paths returns every page there is: the front page, then articles, tags, authors and, last,
// the articles' JSON.
func (s *Site) Paths(ctx context.Context, t *Tally) ([]string, error) {
	paths := []string{"/"}
	var slugs []string
	err := s.db.query(ctx, t, scanInto(&slugs), `SELECT slug FROM articles ORDER BY slug`)
	if err != nil {
		return nil, err
	}
	for _, slug := range slugs {
		paths = append(paths, "/"+slug)
	}
	err = s.db.query(ctx, t, scanInto(&paths), `SELECT DISTINCT '/' || kind || '/' || name AS path FROM labels ORDER BY path`)
	if err != nil {
		return nil, err
	}
	for _, slug := range slugs {
		paths = append(paths, "/"+apiPath+slug)
	}
	return paths, nil
}

// sitemap lists the pages a crawler should visit: all but the JSON.
func (s *Site) sitemap(ctx context.Context, t *Tally, host string) ([]byte, error) {
	paths, err := s.Paths(ctx, t)
	if err != nil {
		return nil, err
	}
	type location struct {
		Loc string `xml:"loc"`
	}
	var set struct {
		XMLName xml.Name   `xml:"http://www.sitemaps.org/schemas/sitemap/0.9 urlset"`
		URL     []location `xml:"url"`
	}
	for _, p := range paths {
		if !strings.HasPrefix(p, "/"+apiPath) {
			set.URL = append(set.URL, location{"http://" + host + p})
		}
	}
	raw, err := xml.Marshal(set)
	return append([]byte(xml.Header), raw...), err
}
