package source

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/template"

	"github.com/alphanode/stoker/tasks"
)

// Template is a text/template of a plan that refuses a name its data does not hold.
// Besides the built-in functions it has json, which renders a value as JSON.
type Template struct{ t *template.Template }

// ParseTemplate compiles text.
func ParseTemplate(text string) (Template, error) {
	funcs := template.FuncMap{"json": func(v any) (string, error) {
		raw, err := json.Marshal(v)
		return string(raw), err
	}}
	t, err := template.New("").Option("missingkey=error").Funcs(funcs).Parse(text)
	if err != nil {
		return Template{}, fmt.Errorf("template %q: %s", text, strings.TrimPrefix(err.Error(), "template: :"))
	}
	return Template{t}, nil
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

// Render returns the template's text for data.
func (t Template) Render(data any) (string, error) {
	var b strings.Builder
	if err := t.t.Execute(&b, data); err != nil {
		return "", fmt.Errorf("render: %s", strings.TrimPrefix(err.Error(), "template: :"))
	}
	return b.String(), nil
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
