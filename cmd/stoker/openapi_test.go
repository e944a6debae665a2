package main

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

const operationsFile = "web/operations.json"

type object = map[string]any

// describer describes Go types as JSON Schema; what has a name is described once, in named.
type describer struct{ named object }

var (
	durationType = reflect.TypeFor[time.Duration]()
	anything     = []reflect.Type{reflect.TypeFor[json.RawMessage](), reflect.TypeFor[any]()}
)

func (d describer) schema(t reflect.Type) object {
	switch {
	case slices.Contains(anything, t):
		return object{}
	case t == reflect.TypeFor[tasks.Bytes]():
		return object{"description": "text, or {\"base64\": …} for bytes that are none", "oneOf": []any{object{"type": "string"}, object{"type": "object"}}}
	case t == reflect.TypeFor[target]():
		return object{"$ref": "#/components/schemas/Target"}
	case t == durationType:
		return object{"type": "integer", "description": "nanoseconds"}
	case t == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return d.schema(t.Elem())
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint32, reflect.Uint64, reflect.Uint8:
		return object{"type": "integer"}
	case reflect.Slice:
		return object{"type": "array", "items": d.schema(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": d.schema(t.Elem())}
	case reflect.Struct:
		if t.Name() == "" || t.PkgPath() == "" {
			return d.members(t)
		}
		pkg := t.PkgPath()[strings.LastIndex(t.PkgPath(), "/")+1:]
		name := strings.ToUpper(pkg[:1]) + pkg[1:] + strings.ToUpper(t.Name()[:1]) + t.Name()[1:]
		if _, done := d.named[name]; !done {
			d.named[name] = nil // while it is under way
			d.named[name] = d.members(t)
		}
		return object{"$ref": "#/components/schemas/" + name}
	}
	panic(fmt.Sprintf("describe %v", t))
}

// members describes a struct as package json encodes it.
func (d describer) members(t reflect.Type) object {
	properties, required := object{}, []any{}
	d.add(t, properties, &required)
	s := object{"type": "object", "properties": properties}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

func (d describer) add(t reflect.Type, properties object, required *[]any) {
	for f := range fieldsOfStruct(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-":
			continue
		case f.Anonymous && name == "":
			d.add(f.Type, properties, required)
			continue
		case name == "":
			name = f.Name
		}
		s := d.schema(f.Type)
		omitted := strings.Contains(options, "omit")
		switch f.Type.Kind() {
		case reflect.Slice, reflect.Map, reflect.Pointer:
			if !omitted {
				s = object{"oneOf": []any{s, object{"type": "null"}}}
			}
		}
		if !omitted {
			*required = append(*required, name)
		}
		properties[name] = s
	}
}

func fieldsOfStruct(t reflect.Type) func(func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			if f := t.Field(i); (f.IsExported() || f.Anonymous) && !yield(f) {
				return
			}
		}
	}
}

// types are an operation's In and Out.
func (op operation[In, Out]) types() (in, out reflect.Type) {
	return reflect.TypeFor[In](), reflect.TypeFor[Out]()
}

var inPath = regexp.MustCompile(`\{([a-z]+)\}`)

// describeOperations makes what the API says of its operations.
func describeOperations() object {
	d, paths := describer{object{}}, object{}
	for _, e := range endpoints() {
		op, ok := e.serve(nil)
		if !ok {
			continue
		}
		in, out := e.(interface{ types() (in, out reflect.Type) }).types()
		members := d.members(in)
		properties := members["properties"].(object)
		parameters := []any{}
		add := func(name, where string, required bool) {
			parameters = append(parameters, object{"name": name, "in": where, "required": required, "schema": object{"type": "string"}})
			delete(properties, name)
			members["required"] = slices.DeleteFunc(slices.Clone(listOf(members["required"])), func(n any) bool { return n == name })
		}
		needed := listOf(members["required"])
		for _, m := range inPath.FindAllStringSubmatch(op.Path, -1) {
			add(m[1], "path", true)
		}
		about := object{"operationId": op.ID, "summary": op.Says, "description": "Needs the scope " + string(op.Scope) + ".", "tags": []any{"operate"}}
		if op.Method == http.MethodGet {
			for f := range fieldsOfStruct(in) {
				if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); properties[name] != nil {
					add(name, "query", slices.Contains(needed, any(name)))
				}
			}
		} else {
			parameters = append(parameters, object{"name": "Idempotency-Key", "in": "header", "required": false, "schema": object{"type": "string", "maxLength": 255},
				"description": "The same key with the same request within 24 hours gets the first answer, and nothing is done again."})
			properties["reason"] = object{"type": "string", "maxLength": tasks.MaxReasonLen, "description": "kept with what it changes"}
			members["additionalProperties"] = false
			if len(listOf(members["required"])) == 0 {
				delete(members, "required")
			}
			about["requestBody"] = object{"required": members["required"] != nil, "content": object{"application/json": object{"schema": members}}}
		}
		about["parameters"] = parameters
		done := object{"description": "Done.", "content": object{"application/json": object{"schema": d.schema(out)}}}
		status := "200"
		if op.Goes {
			status = "202"
			done["description"] = "It goes on as a task."
			done["headers"] = object{"Location": object{"description": "where its progress and its result are", "schema": object{"type": "string"}}}
		}
		about["responses"] = object{status: done, "default": object{"description": "It is not done: detail says why, cause tells what kind of reason it is.",
			"content": object{"application/problem+json": object{"schema": object{"$ref": "#/components/schemas/Problem"}}}}}
		methods, _ := paths[op.Path].(object)
		if methods == nil {
			methods = object{}
			paths[op.Path] = methods
		}
		methods[strings.ToLower(op.Method)] = about
	}
	return object{"paths": paths, "components": object{"schemas": d.named}}
}

func listOf(v any) []any {
	list, _ := v.([]any)
	return list
}

// The description of the operations equals the code; run with -update to write it.
func TestOperationsDescribed(t *testing.T) {
	var want bytes.Buffer
	enc := json.NewEncoder(&want)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(describeOperations()); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(operationsFile, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(operationsFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.String(), string(got)); diff != "" {
		t.Errorf("%s is not the code's; go test ./cmd/stoker -run TestOperationsDescribed -update writes it (-code +file):\n%s", operationsFile, diff)
	}
}

// described is the whole description, as the API serves it.
type described struct {
	t   *testing.T
	doc any
}

func readDescribed(t *testing.T, url string) described {
	t.Helper()
	_, _, body := asOperator(t, http.MethodGet, url+"/v1/openapi.json", "")
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return described{t, doc}
}

// check says where an answer is not as the description says.
func (d described) check(method, path string, status int, kind string, body []byte) {
	d.t.Helper()
	of := "default"
	if status < 300 {
		of = fmt.Sprint(status)
	}
	escape := strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D")
	c := jsonschema.NewCompiler()
	if err := c.AddResource("https://stoker.example/openapi.json", d.doc); err != nil {
		d.t.Fatal(err)
	}
	s, err := c.Compile("https://stoker.example/openapi.json#/paths/" + escape.Replace(path) + "/" + strings.ToLower(method) + "/responses/" + of + "/content/" + escape.Replace(kind) + "/schema")
	if err != nil {
		d.t.Errorf("%s %s: status %d of type %q is not described: %v", method, path, status, kind, err)
		return
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err == nil {
		err = s.Validate(v)
	}
	if err != nil {
		d.t.Errorf("%s %s: %v\n%s", method, path, err, body)
	}
}

func asOperator(t *testing.T, method, url, body string) (status int, kind string, answer []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer token-of-operate")
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Content-Type"), answer
}

// Every operation answers as it is described, when it is done and when it is not.
func TestOperationsAnswerAsDescribed(t *testing.T) {
	in := newInstall(t)
	in.town()
	in.write("plan.yaml", onePost)
	url := in.serveAPI()
	d := readDescribed(t, url)
	plan, err := json.Marshal(onePost)
	if err != nil {
		t.Fatal(err)
	}
	in.start("worker")
	task := func(path, body string) string {
		t.Helper()
		status, _, answer := asOperator(t, "POST", url+path, body)
		if status != http.StatusAccepted {
			t.Fatalf("%s: %d %s", path, status, answer)
		}
		at := url + field[string](t, string(answer), "status_url")
		var text string
		redistest.Eventually(t, path, func() bool {
			_, _, answer := asOperator(t, "GET", at, "")
			text = string(answer)
			return strings.Contains(text, `"state":"done"`) || strings.Contains(text, `"state":"failed"`)
		})
		return strings.TrimPrefix(at, url)
	}
	snapshot := task("/v1/releases/kept/snapshot", `{"reason": "try"}`)
	task("/v1/freshness", "")
	_, _, _ = asOperator(t, "POST", url+"/v1/invalidations", `{"targets": [{"key": "post:1"}]}`)
	redistest.Eventually(t, "the invalidation", func() bool {
		_, _, answer := asOperator(t, "GET", url+"/v1/invalidations?n=1", "")
		return string(answer) != "[]\n"
	})
	done := map[string]bool{}
	for _, c := range []struct {
		method, path, at, body string
		status                 int
	}{
		{"GET", "/v1/status", "", "", 200},
		{"GET", "/v1/releases", "", "", 200},
		{"GET", "/v1/releases/{id}", "/v1/releases/r1", "", 200},
		{"GET", "/v1/releases/{id}", "/v1/releases/r77", "", 404},
		{"POST", "/v1/releases", "", `{"id": "r98", "notes": {"owner": "ann", "files": ["a"]}, "reason": "new"}`, 200},
		{"POST", "/v1/releases", "", `{"id": "r98"}`, 409},
		{"PUT", "/v1/releases/{id}/notes", "/v1/releases/r98/notes", `{"notes": {"owner": "ben", "reason": "because"}}`, 200},
		{"PUT", "/v1/releases/{id}/notes", "/v1/releases/r98/notes", `{"note": {}}`, 422},
		{"GET", "/v1/releases/{id}/note", "/v1/releases/r1/note", "", 200},
		{"GET", "/v1/releases/{id}/note", "/v1/releases/r1/note?form=html", "", 200},
		{"GET", "/v1/releases/{id}/note", "/v1/releases/r1/note?form=pdf", "", 422},
		{"POST", "/v1/releases/{id}/pin", "/v1/releases/r98/pin", "", 200},
		{"POST", "/v1/releases/{id}/unpin", "/v1/releases/r98/unpin", "", 200},
		{"POST", "/v1/releases/{id}/warm", "/v1/releases/r98/warm", `{"plan": ` + string(plan) + `}`, 202},
		{"POST", "/v1/releases/{id}/warm", "/v1/releases/r98/warm", `{"plan": ` + string(plan) + `, "pace": "mad"}`, 422},
		{"POST", "/v1/releases/{id}/warm/plan", "/v1/releases/r98/warm/plan", `{}`, 422},
		{"POST", "/v1/plans/check", "", `{"plan": ` + string(plan) + `}`, 500},
		{"POST", "/v1/plans/check", "", `{"plan": "x"}`, 422},
		{"POST", "/v1/releases/{id}/activate", "/v1/releases/r10/activate", `{}`, 409},
		{"POST", "/v1/rollback", "", `{"to": "r10"}`, 202},
		{"POST", "/v1/rollback", "", `{"to": "gone"}`, 409},
		{"POST", "/v1/rollback", "", `[]`, 400},
		{"GET", "/v1/invalidations", "/v1/invalidations?n=5", "", 200},
		{"GET", "/v1/invalidations", "/v1/invalidations?n=5&n=6", "", 400},
		{"POST", "/v1/invalidation-plan", "", `{"targets": [{"key_base64": "AHRhZ3MA/w=="}], "refresh": true}`, 200},
		{"GET", "/v1/snapshots", "", "", 200},
		{"POST", "/v1/releases/{id}/snapshot", "/v1/releases/kept/snapshot", "", 202},
		{"POST", "/v1/releases/{id}/snapshot/verify", "/v1/releases/kept/snapshot/verify", "", 200},
		{"POST", "/v1/releases/{id}/snapshot/inspect", "/v1/releases/kept/snapshot/inspect", `{"limit": 5}`, 200},
		{"POST", "/v1/drills", "", "", 202},
		{"POST", "/v1/expiry/plan", "", "", 200},
		{"POST", "/v1/expiry", "", "", 202},
		{"POST", "/v1/releases/{id}/baseline", "/v1/releases/r1/baseline", "", 422},
		{"GET", "/v1/comparison", "/v1/comparison?a=r1&b=r10", "", 404},
		{"POST", "/v1/comparison", "", `{"a": "r1", "b": "r10"}`, 422},
		{"POST", "/v1/health", "", "", 200},
		{"GET", "/v1/health", "", "", 200},
		{"GET", "/v1/freshness", "", "", 200},
		{"POST", "/v1/freshness", "", "", 202},
		{"POST", "/v1/doctor", "", "", 200},
		{"POST", "/v1/lanes/{lane}/pause", "/v1/lanes/bulk/pause", "", 200},
		{"POST", "/v1/lanes/{lane}/resume", "/v1/lanes/bulk/resume", "", 200},
		{"POST", "/v1/lanes/{lane}/resume", "/v1/lanes/none/resume", "", 422},
		{"POST", "/v1/notifications/test", "", "", 409},
		{"POST", "/v1/notifications/test/task", "", "", 202},
		{"GET", "/v1/tasks/{type}/{task}", snapshot, "", 200},
		{"GET", "/v1/tasks/{type}/{task}", "/v1/tasks/release:rollback/none", "", 404},
		{"GET", "/v1/runs/{run}", "/v1/runs/none", "", 404},
	} {
		if c.at == "" {
			c.at = c.path
		}
		status, kind, answer := asOperator(t, c.method, url+c.at, c.body)
		if status != c.status {
			t.Errorf("%s %s %s: status %d, want %d: %s", c.method, c.at, c.body, status, c.status, answer)
			continue
		}
		done[c.method+" "+c.path] = true
		d.check(c.method, c.path, status, kind, answer)
	}
	for _, e := range endpoints() {
		if op, ok := e.serve(nil); ok && !done[op.Method+" "+op.Path] {
			t.Errorf("%s %s was not tried", op.Method, op.Path)
		}
	}
}
