package web

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/alphanode/stoker/tasks"
)

// schema is as much of JSON Schema as the description uses; TestOpenAPISchemas refuses the rest.
type schema struct {
	Ref                  string             `json:"$ref"`
	Type                 string             `json:"type"`
	Description          string             `json:"description"`
	Required             []string           `json:"required"`
	Properties           map[string]*schema `json:"properties"`
	AdditionalProperties json.RawMessage    `json:"additionalProperties"`
	MinProperties        int                `json:"minProperties"`
	MaxProperties        int                `json:"maxProperties"`
	Items                *schema            `json:"items"`
	MinItems             int                `json:"minItems"`
	MaxItems             int                `json:"maxItems"`
	OneOf                []*schema          `json:"oneOf"`
	Enum                 []string           `json:"enum"`
	Const                string             `json:"const"`
	MinLength            int                `json:"minLength"`
	MaxLength            int                `json:"maxLength"`
	Pattern              string             `json:"pattern"`
	Minimum              int                `json:"minimum"`
	Format               string             `json:"format"`
	ContentEncoding      string             `json:"contentEncoding"`
}

type content map[string]struct {
	Schema   *schema
	Examples map[string]struct{ Value json.RawMessage }
}

type operation struct {
	RequestBody struct{ Content content }
	Responses   map[string]struct {
		Headers map[string]any
		Content content
	}
}

type description struct {
	OpenAPI    string
	Paths      map[string]map[string]operation
	Components struct{ Schemas map[string]*schema }
}

func readDescription(t *testing.T) (d description) {
	t.Helper()
	if err := json.Unmarshal(openAPI, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// check says where a value is not as described; "" when it is.
func (d description) check(s *schema, at string, v any) string {
	if s.Ref != "" {
		return d.check(d.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")], at, v)
	}
	if len(s.OneOf) > 0 {
		var wrong []string
		for _, one := range s.OneOf {
			if w := d.check(one, at, v); w != "" {
				wrong = append(wrong, w)
			}
		}
		if len(wrong) != len(s.OneOf)-1 {
			return fmt.Sprintf("%s is %d of %d: %v", at, len(s.OneOf)-len(wrong), len(s.OneOf), wrong)
		}
		return ""
	}
	switch v := v.(type) {
	case map[string]any:
		if s.Type == "object" {
			return d.checkObject(s, at, v)
		}
	case []any:
		if s.Type == "array" {
			for i, item := range v {
				if w := d.check(s.Items, fmt.Sprintf("%s[%d]", at, i), item); w != "" {
					return w
				}
			}
			return ""
		}
	case string:
		if s.Type == "string" && (len(s.Enum) == 0 || slices.Contains(s.Enum, v)) {
			return ""
		}
	case float64:
		if s.Type == "number" || s.Type == "integer" && v == float64(int64(v)) {
			return ""
		}
	}
	return fmt.Sprintf("%s = %v is no %s", at, v, s.Type)
}

func (d description) checkObject(s *schema, at string, v map[string]any) string {
	for _, name := range s.Required {
		if _, ok := v[name]; !ok {
			return at + " lacks " + name
		}
	}
	if s.MaxProperties > 0 && len(v) > s.MaxProperties || len(v) < s.MinProperties {
		return fmt.Sprintf("%s has %d members", at, len(v))
	}
	for name, value := range v {
		member := s.Properties[name]
		if member == nil && len(s.AdditionalProperties) > 0 && json.Unmarshal(s.AdditionalProperties, &member) != nil {
			return at + " has an unknown " + name
		}
		if member != nil {
			if w := d.check(member, at+"."+name, value); w != "" {
				return w
			}
		}
	}
	return ""
}

// Every answer that the handlers give is described, and every one described is given.
func TestOpenAPIDescribesTheHandlers(t *testing.T) {
	d := readDescription(t)
	seen := map[string]bool{}
	ask := func(s *apiSite, method, pattern, path string, change ...func(*http.Request)) {
		t.Helper()
		resp := s.ask(method, path, change...)
		text := body(t, resp)
		name := fmt.Sprintf("%s %s %d", method, pattern, resp.StatusCode)
		seen[name] = true
		described, ok := d.Paths[pattern][strings.ToLower(method)].Responses[fmt.Sprint(resp.StatusCode)]
		if !ok {
			t.Errorf("%s is not described: %s", name, text)
			return
		}
		kind, ok := described.Content[resp.Header.Get("Content-Type")]
		if !ok {
			t.Errorf("%s: Content-Type %q is not described", name, resp.Header.Get("Content-Type"))
			return
		}
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if wrong := d.check(kind.Schema, "the answer", v); wrong != "" {
			t.Errorf("%s: %s", name, wrong)
		}
		for _, h := range []string{"Retry-After", "Location", "Idempotency-Replayed"} {
			if _, ok := described.Headers[h]; !ok && resp.Header.Get(h) != "" {
				t.Errorf("%s: header %s is not described", name, h)
			}
		}
	}
	one := apiCalls + "/{number}"
	s := newAPISite(t, tokens(t))
	for _, tt := range refused {
		ask(s, "POST", apiCalls, apiCalls, asShop, sending(tt.kind, tt.body))
	}
	ask(s, "POST", apiCalls, apiCalls, asShop, asJSON(oneKey), header("Idempotency-Key", "k"))
	ask(s, "POST", apiCalls, apiCalls, asShop, asJSON(oneKey), header("Idempotency-Key", "k"))
	ask(s, "POST", apiCalls, apiCalls, asShop, asJSON(oneKey+" "), header("Idempotency-Key", "k"))
	ask(s, "POST", apiCalls, apiCalls, asShop, asJSON(`{"calls": [`+oneKey+`]}`))
	ask(s, "POST", apiCalls, apiCalls, asShop, sending(streamType, oneKey))
	ask(s, "POST", apiCalls, apiCalls, basic("vera", viewSecret), asJSON(oneKey))
	ask(s, "POST", apiCalls, apiCalls, asShop, func(r *http.Request) { asJSON("")(r); r.Body = http.NoBody })
	ask(s, "POST", apiCalls, apiCalls, asShop, func(r *http.Request) { asJSON("")(r); r.Body = stopped{} })
	busy := fmt.Sprintf(`{"body": %q, "claim": "another"}`, sumOf(oneKey))
	s.queue.Set(t.Context(), tasks.KeysOf("alpha").Idempotency("shop:busy"), busy, 0)
	ask(s, "POST", apiCalls, apiCalls, asShop, asJSON(oneKey), header("Idempotency-Key", "busy"))

	number, err := s.deps.Invalidate(t.Context(), tasks.Invalidation{Targets: []tasks.Target{{Kind: tasks.KindKey, Name: "x"}}, By: tasks.By{Actor: "test"}})
	if err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("%s/%d", apiCalls, number.Number)
	ask(s, "GET", one, path, asShop)
	s.apply(number.Number)
	ask(s, "GET", one, path, asShop)
	ask(s, "GET", one, apiCalls+"/1", asShop)
	ask(s, "GET", one, apiCalls+"/x", asShop)
	ask(s, "GET", "/v1/openapi.json", "/v1/openapi.json", asShop)

	open := newAPISite(t, Config{})
	for _, route := range [][2]string{{"POST", apiCalls}, {"GET", one}, {"GET", "/v1/openapi.json"}} {
		at := strings.Replace(route[1], "{number}", "1", 1)
		ask(open, route[0], route[1], at, host("elsewhere.example"))
		for range 11 { // one more than there are tries
			ask(s, route[0], route[1], at, basic("shop", "guess"), from(route[0]+at+":1"))
		}
	}
	for _, cause := range []error{tasks.ErrFull, errors.New("away")} {
		failing := newAPISite(t, tokens(t), func(d *Deps) {
			d.Invalidate = func(context.Context, tasks.Invalidation) (tasks.Receipt, error) { return tasks.Receipt{}, cause }
			d.Applied = func(context.Context, int64) (tasks.Applied, Stage, error) {
				return tasks.Applied{}, "", errors.New("away")
			}
		})
		ask(failing, "POST", apiCalls, apiCalls, asShop, asJSON(oneKey))
		ask(failing, "GET", one, apiCalls+"/1", asShop)
	}

	described := map[string]bool{}
	for path, methods := range d.Paths {
		for method, op := range methods {
			for status := range op.Responses {
				described[strings.ToUpper(method)+" "+path+" "+status] = true
			}
		}
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(described)), slices.Sorted(maps.Keys(seen))); diff != "" {
		t.Errorf("described and given (-described +given):\n%s", diff)
	}
}

// stopped is a body that stops coming.
type stopped struct{}

func (stopped) Read([]byte) (int, error) { return 0, os.ErrDeadlineExceeded }
func (stopped) Close() error             { return nil }

// Every example is as described, and accepted; what the description forbids is refused.
func TestOpenAPIExamples(t *testing.T) {
	d := readDescription(t)
	s := newAPISite(t, tokens(t))
	sent := 0
	for kind, c := range d.Paths[apiCalls]["post"].RequestBody.Content {
		for name, example := range c.Examples {
			sent++
			var v any
			if err := json.Unmarshal(example.Value, &v); err != nil {
				t.Fatal(err)
			}
			if wrong := d.check(c.Schema, name, v); wrong != "" {
				t.Error(wrong)
			}
			text := string(example.Value)
			if lines, ok := v.(string); ok {
				text = lines
			}
			if status, answer := s.post(t, sending(kind, text)); status != 202 {
				t.Errorf("example %s: %d %s", name, status, answer)
			}
		}
	}
	if sent < 4 || len(s.recorded()) < 8 {
		t.Errorf("%d examples sent", sent)
	}
	for _, tt := range refused {
		var v any
		if tt.kind != callType || tt.status != 400 || json.Unmarshal([]byte(tt.body), &v) != nil {
			continue
		}
		// A decoder that is less strict than the API sees nothing wrong in these.
		if strings.Contains(tt.name, "twice") || strings.Contains(tt.name, "half") || strings.Contains(tt.name, "bytes") {
			continue
		}
		if d.check(d.Paths[apiCalls]["post"].RequestBody.Content[callType].Schema, tt.name, v) == "" {
			t.Errorf("%s is refused, and the description allows it", tt.name)
		}
	}
}

// The description's limits are the code's, and it uses no keyword that these tests do not read.
func TestOpenAPISchemas(t *testing.T) {
	d := readDescription(t)
	if !strings.HasPrefix(d.OpenAPI, "3.1.") {
		t.Errorf("openapi %q", d.OpenAPI)
	}
	all := d.Components.Schemas
	got := []int{all["Call"].Properties["targets"].MaxItems, all["Batch"].Properties["calls"].MaxItems, all["Call"].Properties["reason"].MaxLength}
	if diff := cmp.Diff([]int{tasks.MaxTargets, maxCalls, tasks.MaxReasonLen}, got); diff != "" {
		t.Error(diff)
	}
	var raw struct {
		Components struct{ Schemas map[string]json.RawMessage }
	}
	if err := json.Unmarshal(openAPI, &raw); err != nil {
		t.Fatal(err)
	}
	for name, text := range raw.Components.Schemas {
		dec := json.NewDecoder(strings.NewReader(string(text)))
		dec.DisallowUnknownFields()
		if err := dec.Decode(new(schema)); err != nil {
			t.Errorf("schema %s: %v", name, err)
		}
	}
}

func decode(t *testing.T, text string) (v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func sumOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.RawStdEncoding.EncodeToString(sum[:])
}
