package crawl

import "github.com/alphanode/stoker/worker/warm/source"

var _ source.Namer = (*Source)(nil)

// KeysOf implements [source.Namer]: the keys that the plan expects of a path, one for each variant; none
// where it does not name them.
func (s *Source) KeysOf(path string) []string {
	keys := make([]string, len(s.dress))
	for i, d := range s.dress {
		key, err := s.keyOf(path, d.name)
		if err != nil || key == "" {
			return nil
		}
		keys[i] = key
	}
	return keys
}
