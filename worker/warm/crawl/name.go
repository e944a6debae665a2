package crawl

import "github.com/alphanode/stoker/worker/warm/source"

var _ source.Namer = (*Source)(nil)

// KeysOf implements [source.Namer]: the key that the plan expects of a path; none without one.
func (s *Source) KeysOf(path string) []string {
	at, err := s.address(path)
	if err != nil {
		return nil
	}
	key, err := s.expected(page{Path: at.Path, Query: at.RawQuery, Release: s.release})
	if err != nil || key == "" {
		return nil
	}
	return []string{key}
}
