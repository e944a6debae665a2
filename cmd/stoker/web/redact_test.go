package web

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestRedact(t *testing.T) {
	tests := []struct{ in, want string }{
		{``, ``},
		{`{"v":1,"number":1795371029000001,"targets":2,"sample":[{"kind":"key","name":"post:42"}]}`, `{"v":1,"number":1795371029000001,"targets":2,"sample":[{"kind":"key","name":"post:42"}]}`},
		{`{"z":1,"a":{"password":"p","Api-Key":7,"ok":true}}`, `{"z":1,"a":{"password":"***","Api-Key":"***","ok":true}}`},
		{`{"secrets":{"deep":["a",{"b":1}]}}`, `{"secrets":{"deep":["***",{"b":"***"}]}}`},
		{`{"SITE_DSN":"x","dsn_env":"SITE_DSN","author":"ann"}`, `{"SITE_DSN":"***","dsn_env":"SITE_DSN","author":"ann"}`},
		{`{"url":"redis://user:hunter2@cache:6379/0"}`, `{"url":"redis://***@cache:6379/0"}`},
		{`{"url":"https://site/?page=2&token=abc&x=1"}`, `{"url":"https://site/?page=2&token=***&x=1"}`},
		{`{"h":"Authorization: Bearer abcdefghij"}`, `{"h":"Authorization: Bearer ***"}`},
		{`{"plan":"headers: {\"X-Secret\": \"abc\"}"}`, `{"plan":"headers: {\"X-Secret\": ***}"}`},
		{`{"html":"<b>&"}`, `{"html":"<b>&"}`},
		{`dial postgres://ann:pw@db/site failed`, `dial postgres://***@db/site failed`},
		{`host=db password=hunter2 user=ann`, `host=db password=*** user=ann`},
		{`{"broken": "password=hunter2`, `{"broken": "password=***`},
		{"\xff\x00\x01", `(3 bytes that are no text)`},
	}
	for _, tt := range tests {
		if got := redact([]byte(tt.in)); got != tt.want {
			t.Errorf("redact(%s)\n got %s\nwant %s", tt.in, got, tt.want)
		}
	}
}

func TestRedactShortens(t *testing.T) {
	var many []int
	object := map[string]int{}
	for i := range 1000 {
		many = append(many, i)
		object[fmt.Sprint(i)] = i
	}
	raw, err := json.Marshal(map[string]any{"many": many, "object": object, "long": strings.Repeat("é", 5000)})
	if err != nil {
		t.Fatal(err)
	}
	got := redact(raw)
	if !json.Valid([]byte(got)) || len(got) > 5000 {
		t.Errorf("%d bytes, valid %v", len(got), json.Valid([]byte(got)))
	}
	for _, want := range []string{`"… 950 more"`, `"…":"950 more"`, "(10000 bytes)"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
	if got := redact([]byte(strings.Repeat("word ", 10_000))); len(got) > maxShown+100 {
		t.Errorf("long text: %d bytes shown", len(got))
	}
}

func FuzzRedact(f *testing.F) {
	f.Add([]byte(`{"a":[1,2,{"token":"x"}],"b":"http://u:p@h/"}`))
	f.Add([]byte("\xff"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got := redact(raw)
		if len(raw) < maxString && json.Valid(raw) && !json.Valid([]byte(got)) {
			t.Errorf("JSON %q became %q", raw, got)
		}
	})
}
