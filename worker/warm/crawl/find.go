package crawl

import (
	"context"
	"errors"
	"fmt"
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
	var gone, unfit []string
	st := &step{s: s}
	keyOf := map[string]string{}
	for _, key := range keys {
		path, d, ok := s.pathOf(pattern, key)
		if !ok {
			gone = append(gone, key)
			continue
		}
		v := &visit{item: path, dress: d, key: key, first: key}
		keyOf[v.name()] = key
		st.all = append(st.all, v)
	}
	if err := s.peek(ctx, st.all); err != nil {
		return source.Chunk{}, err
	}
	for _, v := range st.all {
		v.renew = s.spec.Bypass != nil // what stands before the site's cache may be old as well
	}
	if err := st.run(ctx); err != nil {
		return source.Chunk{}, err
	}
	st.all = slices.DeleteFunc(st.all, func(v *visit) bool {
		var r *refusal
		switch {
		case errors.As(v.err, &r) && r.gone():
			if s.leftUnfit(v, r) {
				unfit = append(unfit, v.first)
			}
		case v.err == nil && v.key != v.first: // it leads to another page
		default:
			return false
		}
		gone = append(gone, v.first)
		return true
	})
	c, err := st.chunk()
	c.Gone, c.Unfit = gone, append(c.Unfit, unfit...)
	for i, f := range c.Failed {
		c.Failed[i].Key = keyOf[f.Key]
	}
	return c, err
}

// pathOf returns the path, with its query, of the page that leaves the key behind, and its variant.
func (s *Source) pathOf(pattern source.Pattern, key string) (string, *dress, bool) {
	for _, reading := range pattern.Match(key) {
		u := url.URL{Path: reading["Path"], RawQuery: reading["Query"]}
		if !strings.HasPrefix(u.Path, "/") {
			continue
		}
		path := u.EscapedPath()
		if u.RawQuery != "" {
			path += "?" + u.RawQuery
		}
		for i := range s.dress {
			if made, err := s.keyOf(path, s.dress[i].name); err == nil && made == key {
				return path, &s.dress[i], true
			}
		}
	}
	return "", nil, false
}
