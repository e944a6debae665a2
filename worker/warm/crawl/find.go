package crawl

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/source"
)

var _ source.Finder = (*Source)(nil)

// Keys returns the pattern of the keys that visits of a release's pages leave behind. It refuses,
// with [tasks.ErrInvalid], an expectation that does not name the path in a key.
func (e Expect) Keys(release string) (source.Pattern, error) {
	if e.Key == "" {
		return source.Pattern{}, fmt.Errorf("%w: the plan does not say which entry a page leaves behind: give the crawl an expect with a key", tasks.ErrInvalid)
	}
	p, err := source.Invert(e.Key, map[string]string{"Release": release})
	if err != nil {
		return p, err
	}
	if !slices.Contains(p.Names(), "Path") {
		return p, fmt.Errorf("%w: the key's template %q does not hold the page's path", tasks.ErrInvalid, e.Key)
	}
	return p, nil
}

// Find implements [source.Finder]: it visits the pages that leave these entries behind, listed in
// the plan or not, with the plan's headers. A page that answers 404 or 410 is gone.
func (s *Source) Find(ctx context.Context, keys []string, fn func(source.Chunk) error) error {
	pattern, err := s.expect.Keys(s.release)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(slices.Compact(slices.Sorted(slices.Values(keys))), chunkPages) {
		chunk, err := s.find(ctx, pattern, part)
		if err != nil {
			return err
		}
		if err := fn(chunk); err != nil {
			return err
		}
	}
	return nil
}

func (s *Source) find(ctx context.Context, pattern source.Pattern, keys []string) (source.Chunk, error) {
	var paths, gone []string
	keyOf := map[string]string{}
	for _, key := range keys {
		path, ok := s.pathOf(pattern, key)
		if !ok {
			gone = append(gone, key)
			continue
		}
		paths = append(paths, path)
		keyOf[path] = key
	}
	all, err := s.visitAll(ctx, paths)
	if err != nil {
		return source.Chunk{}, err
	}
	var answered []visited
	for _, v := range all {
		var status *wrongStatus
		if errors.As(v.err, &status) && (status.code == http.StatusNotFound || status.code == http.StatusGone) {
			gone = append(gone, keyOf[v.path])
		} else {
			answered = append(answered, v)
		}
	}
	c := s.chunk(answered)
	c.Gone = gone
	for i, f := range c.Failed {
		c.Failed[i].Key = keyOf[f.Key]
	}
	return c, nil
}

// pathOf returns the path, with its query, of the page that leaves the key behind.
func (s *Source) pathOf(pattern source.Pattern, key string) (string, bool) {
	for _, reading := range pattern.Match(key) {
		u := url.URL{Path: reading["Path"], RawQuery: reading["Query"]}
		if !strings.HasPrefix(u.Path, "/") {
			continue
		}
		path := u.EscapedPath()
		if u.RawQuery != "" {
			path += "?" + u.RawQuery
		}
		at, err := s.address(path)
		if err != nil {
			continue
		}
		if made, err := s.expected(page{Path: at.Path, Query: at.RawQuery, Release: s.release}); err == nil && made == key {
			return path, true
		}
	}
	return "", false
}
