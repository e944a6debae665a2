package demo

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/alphanode/stoker/tasks"
)

// Corpus is the content of the site and what becomes of it.
type Corpus struct {
	Articles []Article
	Events   []Event // oldest first
}

// Article is one page's content.
type Article struct {
	Slug    string // path without the leading slash; may hold slashes
	Title   string
	Body    string // Markdown
	Tags    []string
	Authors []string
	Updated string // a date, as shown
}

// Event is one edit of the site: one or more changes that are published together.
type Event struct {
	Changes []Change
}

// Op says what a change does to its article.
type Op string

// The operations. An edit that finds something else than it expects (modifies what is not
// there, adds what is) does the sensible thing: histories have gaps.
const (
	Add    Op = "A"
	Modify Op = "M"
	Delete Op = "D"
	Rename Op = "R"
)

// Change is one article's part of an edit.
type Change struct {
	Op   Op
	Slug string // of the article after the change; before it for Delete
	From string // Rename only: the slug before
}

// Paths that are the site's own and no article's.
const (
	tagPath     = "tag/"
	authorPath  = "author/"
	apiPath     = "api/"
	sitemapPath = "sitemap.xml"
)

var (
	segment = `[A-Za-z0-9_~-][A-Za-z0-9._~-]*`
	// pathRE is what slugs, tags and authors look like: all of them are paths.
	pathRE = regexp.MustCompile(`^` + segment + `(/` + segment + `)*$`)
)

func validateSlug(slug string) error {
	if !pathRE.MatchString(slug) {
		return fmt.Errorf("%w: slug %q: use letters, digits and . _ ~ -, in parts divided by /", tasks.ErrInvalid, slug)
	}
	for _, own := range []string{tagPath, authorPath, apiPath, sitemapPath} {
		if strings.HasPrefix(slug+"/", strings.TrimSuffix(own, "/")+"/") {
			return fmt.Errorf("%w: slug %q: the path %q is the site's own", tasks.ErrInvalid, slug, own)
		}
	}
	return nil
}

// Validate reports an article that the site could not show.
func (a Article) Validate() error {
	if err := validateSlug(a.Slug); err != nil {
		return err
	}
	if a.Title == "" {
		return fmt.Errorf("%w: article %q has no title", tasks.ErrInvalid, a.Slug)
	}
	for _, labels := range [][]string{a.Tags, a.Authors} {
		for _, l := range labels {
			if !pathRE.MatchString(l) {
				return fmt.Errorf("%w: article %q: tag or author %q: use letters, digits and . _ ~ -, in parts divided by /", tasks.ErrInvalid, a.Slug, l)
			}
		}
	}
	return nil
}

// Validate reports an event that could not be applied.
func (e Event) Validate() error {
	if len(e.Changes) == 0 {
		return fmt.Errorf("%w: an edit without changes", tasks.ErrInvalid)
	}
	for _, c := range e.Changes {
		if err := validateSlug(c.Slug); err != nil {
			return err
		}
		switch c.Op {
		case Add, Modify, Delete:
		case Rename:
			if err := validateSlug(c.From); err != nil {
				return fmt.Errorf("from: %w", err)
			}
		default:
			return fmt.Errorf("%w: operation %q on %q: use A, M, D or R", tasks.ErrInvalid, c.Op, c.Slug)
		}
	}
	return nil
}
