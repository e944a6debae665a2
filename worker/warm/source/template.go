package source

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"

	"github.com/alphanode/stoker/tasks"
)

// Template is a text/template of a plan that refuses a name its data does not hold.
// Besides the built-in functions it has json, which renders a value as JSON.
type Template struct {
	t *template.Template
	// parts are the template's where it only puts plain fields and text in a row, as most do; such
	// a one renders in a fraction of the time.
	parts []part
}

// Data is what a template sees, by name.
type Data interface {
	Get(name string) (value any, ok bool)
	All() map[string]any // for templates that are not plain
}

// ParseTemplate compiles text.
func ParseTemplate(text string) (Template, error) {
	funcs := template.FuncMap{"json": func(v any) (string, error) {
		raw, err := json.Marshal(v)
		return string(raw), err
	}}
	t, err := template.New("").Option("missingkey=error").Funcs(funcs).Parse(text)
	if err != nil {
		return Template{}, fmt.Errorf("template %q: %s", text, strings.TrimPrefix(strings.TrimPrefix(err.Error(), "template: :"), "1: "))
	}
	return Template{t, plainParts(t)}, nil
}

// plainParts returns a plain template's parts; nil of one that is not.
func plainParts(t *template.Template) []part {
	if t.Tree == nil { // an empty text
		return nil
	}
	var all []part
	for _, node := range t.Root.Nodes {
		one, err := partOf(node, nil)
		if err != nil {
			return nil
		}
		all = append(all, one)
	}
	return all
}

// ParseTemplates compiles several texts.
func ParseTemplates(texts []string) ([]Template, error) {
	all := make([]Template, len(texts))
	for i, text := range texts {
		t, err := ParseTemplate(text)
		if err != nil {
			return nil, err
		}
		all[i] = t
	}
	return all, nil
}

// CheckTemplate reports whether text compiles.
func CheckTemplate(text string) error {
	_, err := ParseTemplate(text)
	return err
}

// Render returns the template's text for data: a [Data], or whatever text/template takes.
func (t Template) Render(data any) (string, error) {
	if d, ok := data.(Data); ok {
		if text, ok := t.plain(d); ok {
			return text, nil
		}
		data = d.All()
	}
	var b strings.Builder
	if err := t.t.Execute(&b, data); err != nil {
		return "", fmt.Errorf("render: %s", strings.TrimPrefix(err.Error(), "template: :"))
	}
	return b.String(), nil
}

// plain renders a plain template; false of another, and where a name is missing.
func (t Template) plain(d Data) (string, bool) {
	if t.parts == nil {
		return "", false
	}
	var text []byte
	for _, p := range t.parts {
		if p.name == "" {
			text = append(text, p.text...)
			continue
		}
		switch v, ok := d.Get(p.name); v := v.(type) {
		case string:
			text = append(text, v...)
		case nil:
			return "", false
		default:
			if !ok {
				return "", false
			}
			text = fmt.Append(text, v)
		}
	}
	return string(text), true
}

// Names returns the names of its data that the template uses wherever it is rendered, each once; not those that
// it uses inside a range or a with.
func (t Template) Names() []string {
	var names []string
	if t.t.Tree != nil {
		collect(t.t.Root, &names)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// collect adds the names that a node of a template's tree uses.
func collect(node parse.Node, names *[]string) {
	switch n := node.(type) {
	case *parse.ListNode:
		for _, inner := range n.Nodes {
			collect(inner, names)
		}
	case *parse.ActionNode:
		collect(n.Pipe, names)
	case *parse.IfNode:
		collect(n.Pipe, names) // its branches may not be for all data
	case *parse.RangeNode:
		collect(n.Pipe, names)
	case *parse.WithNode:
		collect(n.Pipe, names)
	case *parse.PipeNode:
		for _, cmd := range n.Cmds {
			for _, arg := range cmd.Args {
				collect(arg, names)
			}
		}
	case *parse.FieldNode:
		*names = append(*names, n.Ident[0])
	}
}

// RenderAll renders several templates for data.
func RenderAll(all []Template, data any) ([]string, error) {
	texts := make([]string, len(all))
	for i, t := range all {
		text, err := t.Render(data)
		if err != nil {
			return nil, err
		}
		texts[i] = text
	}
	return texts, nil
}

// CheckKey reports a logical key that a plan's source may not write.
func CheckKey(key string) error {
	switch {
	case key == "":
		return fmt.Errorf("empty key")
	case strings.HasPrefix(key, tasks.Reserved):
		return fmt.Errorf("key %s: logical keys that begin with %s are reserved", tasks.Bytes(key), tasks.Reserved)
	}
	return nil
}
