package carry

import (
	"strings"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/source"
)

// Active as Spec.From means the release that is active when the run begins.
const Active = "active"

// Spec says which entries to take over from another release: the plan's `carry`.
type Spec struct {
	From     string   `yaml:"from"`               // "active", or a release's ID
	Families []string `yaml:"families,omitempty"` // prefixes of logical keys whose shape did not change
	Hot      bool     `yaml:"hot,omitempty"`      // of the families, or of all entries, only what the plan's hot list names
}

// Check adds what is wrong with the spec, which stands at path in the plan.
func (s Spec) Check(path string, ps *source.Problems) {
	if s.From != Active {
		ps.Check(path+".from", tasks.ValidateRelease(s.From))
	}
	if len(s.Families) == 0 && !s.Hot {
		ps.Add(path+".families", "empty: name the prefixes of the keys to carry, such as nav:")
	}
	for _, f := range s.Families {
		switch {
		case f == "":
			ps.Add(path+".families", "an empty prefix would carry everything: name the families")
		case strings.HasPrefix(f, tasks.Reserved):
			ps.Add(path+".families", "family %q: logical keys that begin with %s are reserved", f, tasks.Reserved)
		}
	}
}
