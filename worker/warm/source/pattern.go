package source

import (
	"fmt"
	"maps"
	"strings"
	"text/template/parse"

	"github.com/alphanode/stoker/tasks"
)

// maxReadings bounds in how many ways a key may be read; one that can be read in more matches
// nothing.
const maxReadings = 16

// A Pattern is a key template read backwards: of a key it tells which values make it.
type Pattern struct{ parts []part }

// part is a literal text, or a name where there is one.
type part struct{ text, name string }

// Invert reads a template backwards. known are names whose values do not come from the item, such
// as the release. It refuses, with [tasks.ErrInvalid], a template that does more than put plain
// {{.name}} fields and literal text in a row, and one in which nothing stands between two names.
func Invert(text string, known map[string]string) (Pattern, error) {
	t, err := ParseTemplate(text)
	if err != nil {
		return Pattern{}, err
	}
	if t.t.Tree == nil { // an empty text
		return Pattern{}, fmt.Errorf("%w: the key's template is empty", tasks.ErrInvalid)
	}
	var p Pattern
	for _, node := range t.t.Root.Nodes {
		one, err := partOf(node, known)
		if err != nil {
			return Pattern{}, fmt.Errorf("%w: %v of the key's template %q cannot be read backwards: use plain {{.name}} fields and text", tasks.ErrInvalid, err, text)
		}
		if !p.add(one) {
			return Pattern{}, fmt.Errorf("%w: nothing stands between two names of the key's template %q: put a character there that the first never holds", tasks.ErrInvalid, text)
		}
	}
	return p, nil
}

// partOf returns the part that a node of a template's tree is. Its error says which it is not.
func partOf(node parse.Node, known map[string]string) (part, error) {
	switch n := node.(type) {
	case *parse.TextNode:
		return part{text: string(n.Text)}, nil
	case *parse.ActionNode:
		if len(n.Pipe.Decl) > 0 || len(n.Pipe.Cmds) != 1 || len(n.Pipe.Cmds[0].Args) != 1 {
			break
		}
		field, ok := n.Pipe.Cmds[0].Args[0].(*parse.FieldNode)
		if !ok || len(field.Ident) != 1 {
			break
		}
		if value, ok := known[field.Ident[0]]; ok {
			return part{text: value}, nil
		}
		return part{name: field.Ident[0]}, nil
	}
	return part{}, fmt.Errorf("%s", node)
}

// add appends a part; false where it is a name right after a name.
func (p *Pattern) add(one part) bool {
	if one == (part{}) {
		return true
	}
	last := len(p.parts) - 1
	switch {
	case last < 0:
	case one.name != "" && p.parts[last].name != "":
		return false
	case one.name == "" && p.parts[last].name == "":
		p.parts[last].text += one.text
		return true
	}
	p.parts = append(p.parts, one)
	return true
}

// Names returns the names of the template, each once, in order.
func (p Pattern) Names() []string {
	var names []string
	seen := map[string]bool{"": true}
	for _, one := range p.parts {
		if !seen[one.name] {
			names, seen[one.name] = append(names, one.name), true
		}
	}
	return names
}

// Match returns every way in which the key can be read: for each, the values by name. A key that
// cannot have come from the template has none. Several names leave a key with more than one reading
// where a value may hold the text between them; which is right only the source can tell.
func (p Pattern) Match(key string) []map[string]string {
	if err := CheckKey(key); err != nil {
		return nil
	}
	m := matcher{}
	m.match(p.parts, key, map[string]string{})
	if len(m.readings) > maxReadings {
		return nil
	}
	return m.readings
}

// matcher collects readings, one more than there may be.
type matcher struct{ readings []map[string]string }

func (m *matcher) match(parts []part, rest string, values map[string]string) {
	if len(m.readings) > maxReadings {
		return
	}
	if len(parts) == 0 {
		if rest == "" {
			m.readings = append(m.readings, maps.Clone(values))
		}
		return
	}
	text, name := parts[0].text, parts[0].name
	if known, ok := values[name]; ok {
		text, name = known, ""
	}
	if name == "" {
		if rest, ok := strings.CutPrefix(rest, text); ok {
			m.match(parts[1:], rest, values)
		}
		return
	}
	m.tryName(name, parts[1:], rest, values)
	delete(values, name)
}

// tryName gives a name every value after which the rest may go on.
func (m *matcher) tryName(name string, after []part, rest string, values map[string]string) {
	if len(after) == 0 {
		values[name] = rest
		m.match(after, "", values)
		return
	}
	for end := 0; end <= len(rest); end++ {
		next := strings.Index(rest[end:], after[0].text) // never a name: see add
		if next < 0 {
			return
		}
		end += next
		values[name] = rest[:end]
		m.match(after, rest[end:], values)
	}
}
