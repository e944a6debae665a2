package hot

import (
	"path/filepath"
	"strings"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/source"
)

// Active as Spec.KeysOf means the release that is active when the run begins.
const Active = "active"

// Spec says where to learn what visitors want most: the plan's `hot`. Exactly one of AccessLog and
// KeysOf is set.
type Spec struct {
	AccessLog string  `yaml:"access_log,omitempty"` // a file of the worker's machine, or a pattern of several: access.log*
	KeysOf    string  `yaml:"keys_of,omitempty"`    // "active", or a release's ID
	Top       int     `yaml:"top,omitempty"`        // entries of the list, 1 to 100,000; 0 means 10,000
	Entries   []Entry `yaml:"entries,omitempty"`    // with AccessLog
}

// Entry says which entry a request needs where no crawl's expect tells: the path is read backwards by
// one template, and what it finds goes into the other.
type Entry struct {
	Path string `yaml:"path"` // such as /posts/{{.slug}}
	Key  string `yaml:"key"`  // such as post:{{.slug}}
}

// Limits of a [Spec].
const (
	defaultTop = 10_000
	maxTop     = 100_000
	maxEntries = 100
)

// Size returns how many entries the list has at most.
func (s Spec) Size() int {
	if s.Top == 0 {
		return defaultTop
	}
	return s.Top
}

// Check adds what is wrong with the spec, which stands at path in the plan.
func (s Spec) Check(path string, ps *source.Problems) {
	switch {
	case s.AccessLog == "" && s.KeysOf == "":
		ps.Add(path, "no list: give an access_log, or keys_of a release")
	case s.AccessLog != "" && s.KeysOf != "":
		ps.Add(path, "two lists: keep one of access_log and keys_of")
	}
	if _, err := filepath.Match(s.AccessLog, ""); err != nil {
		ps.Add(path+".access_log", "pattern %q: %v", s.AccessLog, err)
	}
	if s.KeysOf != "" && s.KeysOf != Active {
		ps.Check(path+".keys_of", tasks.ValidateRelease(s.KeysOf))
	}
	if s.Top < 0 || s.Top > maxTop {
		ps.Add(path+".top", "%d entries: use 1 to %d", s.Top, maxTop)
	}
	if len(s.Entries) > 0 && s.AccessLog == "" {
		ps.Add(path+".entries", "say which entry a path of an access_log needs: the keys_of a release are entries already")
	}
	if len(s.Entries) > maxEntries {
		ps.Add(path+".entries", "%d of them: use at most %d", len(s.Entries), maxEntries)
	}
	_, err := s.Namer("r1")
	ps.Check(path+".entries", err)
}

// Namer tells which entry the request for a path needs.
type Namer []naming

type naming struct {
	path source.Pattern
	key  source.Template
}

// Namer returns what names the entries of a release by the spec's own rules. It refuses, with
// [tasks.ErrInvalid], templates that cannot be used so.
func (s Spec) Namer(release string) (Namer, error) {
	var n Namer
	for _, e := range s.Entries {
		if !strings.HasPrefix(e.Path, "/") {
			return nil, errPath(e.Path)
		}
		pattern, err := source.Invert(e.Path, map[string]string{"Release": release})
		if err != nil {
			return nil, err
		}
		key, err := source.ParseTemplate(e.Key)
		if err != nil {
			return nil, err
		}
		if err := source.CheckKey(e.Key); err != nil {
			return nil, err
		}
		if _, err := key.Render(example(pattern, release)); err != nil {
			return nil, errUnknown(e, err)
		}
		n = append(n, naming{pattern, key})
	}
	return n, nil
}

// example gives every name of the pattern a value.
func example(p source.Pattern, release string) map[string]any {
	data := map[string]any{"Release": release}
	for _, name := range p.Names() {
		data[name] = "x"
	}
	return data
}

// Key returns the logical key of the entry that the request for a path needs, "" when no rule tells.
func (n Namer) Key(path, release string) string {
	for _, one := range n {
		for _, reading := range one.path.Match(path) {
			data := map[string]any{"Release": release}
			for name, value := range reading {
				data[name] = value
			}
			if key, err := one.key.Render(data); err == nil && source.CheckKey(key) == nil {
				return key
			}
		}
	}
	return ""
}
