package warm

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/source"
)

// ParsePlan reads a plan and checks it whole. Its errors wrap [tasks.ErrInvalid] and name line
// and column of everything that is wrong.
func ParsePlan(text []byte) (*Plan, error) {
	doc, err := readDocument(text)
	if err != nil {
		return nil, err
	}
	return doc.plan, doc.errors().join()
}

// document is a plan's text with what was read of it.
type document struct {
	file     *ast.File
	plan     *Plan
	unknown  findings // fields that there are none of
	problems source.Problems
}

// readDocument reads a plan; its error is of a text that cannot be read at all.
func readDocument(text []byte) (doc *document, err error) {
	defer func() { // the library panics on some malformed files
		if recover() != nil {
			doc, err = nil, fmt.Errorf("plan: %w: malformed YAML", tasks.ErrInvalid)
		}
	}()
	if len(text) > maxPlan {
		return nil, fmt.Errorf("plan: %w: %d bytes: at most %d", tasks.ErrInvalid, len(text), maxPlan)
	}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, planError(err)
	}
	body, err := onlyBody(file)
	if err != nil {
		return nil, err
	}
	doc = &document{file: file, plan: new(Plan)}
	doc.unknown = unknownFields(body, reflect.TypeFor[Plan]())
	if err := yaml.NodeToValue(body, doc.plan); err != nil {
		found := place(err)
		if found.line == 0 {
			return nil, planError(err)
		}
		return nil, append(doc.unknown, found).join()
	}
	doc.plan.check(&doc.problems)
	return doc, nil
}

// onlyBody returns the one document of a file.
func onlyBody(file *ast.File) (ast.Node, error) {
	var bodies []ast.Node
	for _, d := range file.Docs {
		if d.Body != nil && d.Body.Type() != ast.CommentType && d.Body.Type() != ast.CommentGroupType {
			bodies = append(bodies, d.Body)
		}
	}
	switch len(bodies) {
	case 0:
		return nil, fmt.Errorf("plan: %w: empty: it needs version and sources", tasks.ErrInvalid)
	case 1:
		return bodies[0], nil
	}
	return nil, fmt.Errorf("plan: %w: more than one YAML document: keep one", tasks.ErrInvalid)
}

// finding is what is wrong at a place of a plan.
type finding struct {
	line, column int // 0 where the place is not known
	text         string
}

// findings are what is wrong with a plan.
type findings []finding

// join makes one error of findings that are invalid input; nil of none.
func (f findings) join() error { return f.because(tasks.ErrInvalid) }

// because makes one error of findings, in the order of the text; nil of none.
func (f findings) because(cause error) error {
	if len(f) == 0 {
		return nil
	}
	slices.SortStableFunc(f, func(a, b finding) int { return cmp.Or(a.line-b.line, a.column-b.column) })
	lines := make([]string, len(f))
	for i, one := range f {
		lines[i] = one.text
		if one.line > 0 {
			lines[i] = fmt.Sprintf("line %d, column %d: %s", one.line, one.column, one.text)
		}
	}
	if len(lines) == 1 {
		return fmt.Errorf("plan: %w: %s", cause, lines[0])
	}
	return fmt.Errorf("plan: %w: %d problems:\n  %s", cause, len(lines), strings.Join(lines, "\n  "))
}

// errors returns everything that is wrong with the document.
func (d *document) errors() findings {
	all := slices.Clone(d.unknown)
	for _, p := range d.problems {
		all = append(all, d.locate(p))
	}
	return all
}

// locate finds where the field of a problem stands.
func (d *document) locate(p *source.Problem) finding {
	line, column := position(d.file, p.Path)
	return finding{line, column, p.Error()}
}

// planError turns the decoder's error into one line with its place.
func planError(err error) error {
	if f := place(err); f.line > 0 {
		return findings{f}.join()
	}
	return fmt.Errorf("plan: %w: %v", tasks.ErrInvalid, err)
}

// place reads the place of an error of the library's.
func place(err error) finding {
	var at yaml.Error
	if errors.As(err, &at) && at.GetToken() != nil {
		pos := at.GetToken().Position
		return finding{pos.Line, pos.Column, at.GetMessage()}
	}
	return finding{text: err.Error()}
}

// unknownFields finds the fields of a mapping that the type does not have, and those below it. What
// an alias names is looked at where its anchor stands.
func unknownFields(node ast.Node, typ reflect.Type) findings {
	switch n := node.(type) {
	case *ast.AnchorNode:
		return unknownFields(n.Value, typ)
	case *ast.SequenceNode:
		var all findings
		if typ = pointed(typ); typ.Kind() == reflect.Slice {
			for _, item := range n.Values {
				all = append(all, unknownFields(item, typ.Elem())...)
			}
		}
		return all
	case *ast.MappingNode:
		var all findings
		for _, pair := range n.Values {
			all = append(all, unknownField(pair, pointed(typ))...)
		}
		return all
	case *ast.MappingValueNode:
		return unknownField(n, pointed(typ))
	}
	return nil
}

func unknownField(pair *ast.MappingValueNode, typ reflect.Type) findings {
	if typ.Kind() != reflect.Struct {
		return nil
	}
	if pair.Key.IsMergeKey() {
		return unknownFields(pair.Value, typ)
	}
	name := pair.Key.GetToken().Value
	fields := yamlFields(typ)
	inner, ok := fields[name]
	if !ok {
		at := pair.Key.GetToken().Position
		return findings{{at.Line, at.Column, fmt.Sprintf("unknown field %q%s", name, suggest(name, fields))}}
	}
	return unknownFields(pair.Value, inner)
}

// suggest names the field that was meant, if one is like it.
func suggest(name string, fields map[string]reflect.Type) string {
	for _, have := range slices.Sorted(maps.Keys(fields)) {
		if strings.EqualFold(have, name) || strings.HasPrefix(have, name) || strings.HasPrefix(name, have) {
			return fmt.Sprintf(": did you mean %s?", have)
		}
	}
	return ""
}

// yamlFields returns a struct's fields by their names in YAML.
func yamlFields(typ reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for i := range typ.NumField() {
		name, _, _ := strings.Cut(typ.Field(i).Tag.Get("yaml"), ",")
		fields[name] = typ.Field(i).Type
	}
	return fields
}

func pointed(typ reflect.Type) reflect.Type {
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	return typ
}

// position returns where the field at path stands, or the nearest field around it.
func position(file *ast.File, path string) (line, column int) {
	for path != "$" {
		if at, err := yaml.PathString(path); err == nil {
			if node, err := at.FilterFile(file); err == nil && node != nil {
				pos := node.GetToken().Position
				return pos.Line, pos.Column
			}
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 1)]
	}
	return 0, 0
}
