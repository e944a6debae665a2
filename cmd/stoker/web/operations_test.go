package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/alphanode/stoker/tasks"
)

// goesOn is an answer of work that goes on.
type goesOn struct {
	Task string `json:"task"`
}

func (g goesOn) StatusURL() string { return "/v1/tasks/x/" + g.Task }

// done is what the operations below were asked for.
type done struct {
	in   string
	by   tasks.By
	dead bool // the context had ended
}

// operating is a site with operations that remember what they are asked for; err is their answer when it is set.
func operating(t *testing.T, err *error, change ...func(*Deps)) (*site, *[]done) {
	t.Helper()
	var asked []done
	do := func(answer any) func(context.Context, []byte, tasks.By) (any, error) {
		return func(ctx context.Context, in []byte, by tasks.By) (any, error) {
			asked = append(asked, done{string(in), by, ctx.Err() != nil})
			if *err != nil {
				return nil, *err
			}
			return answer, nil
		}
	}
	s := newSite(t, tokens(t), nil, append(change, func(d *Deps) {
		d.Operations = []Operation{
			{ID: "look", Method: "GET", Path: "/v1/things/{id}", Scope: View, Do: do([]string{"redis://ann:s3cret@host/1"})},
			{ID: "change", Method: "PUT", Path: "/v1/things/{id}", Scope: Operate, Do: do(map[string]int{"n": 1})},
			{ID: "work", Method: "POST", Path: "/v1/things", Scope: Operate, Do: do(goesOn{"t1"})},
		}
	})...)
	return s, &asked
}

func TestOperation(t *testing.T) {
	otto, vera, shop := basic("otto", operateSecret), basic("vera", viewSecret), basic("shop", invalidateSecret)
	tests := []struct {
		name, method, path string
		as                 func(*http.Request)
		change             func(*http.Request)
		status             int
		in                 string // "" for what must not be carried out
		says               string
	}{
		{"look", "GET", "/v1/things/a%20b?n=5", vera, asJSON(""), 200, `{"id":"a b","n":"5"}`, "redis://***@host/1"},
		{"twice in the query", "GET", "/v1/things/a?n=5&n=6", vera, asJSON(""), 400, "", "2 times"},
		{"the path's in the query", "GET", "/v1/things/a?id=b", vera, asJSON(""), 400, "", "stands in the address"},
		{"an app's token", "GET", "/v1/things/a", shop, asJSON(""), 403, "", "this needs view"},
		{"change", "PUT", "/v1/things/a", otto, asJSON(`{"x": [1], "reason": "why"}`), 200, `{"id":"a","x":[1]}`, `"n":1`},
		{"change without a body", "PUT", "/v1/things/a", otto, asJSON(""), 200, `{"id":"a"}`, ""},
		{"who may only look", "PUT", "/v1/things/a", vera, asJSON(`{}`), 403, "", "this needs operate"},
		{"the path's in the body", "PUT", "/v1/things/a", otto, asJSON(`{"id": "b"}`), 400, "", "stands in the address"},
		{"twice in the body", "PUT", "/v1/things/a", otto, asJSON(`{"x": 1, "x": 2}`), 400, "", "twice"},
		{"no object", "PUT", "/v1/things/a", otto, asJSON(`[1]`), 400, "", "must be an object"},
		{"no JSON", "PUT", "/v1/things/a", otto, asJSON(`{`), 400, "", "not JSON"},
		{"a reason that is none", "PUT", "/v1/things/a", otto, asJSON(`{"reason": 7}`), 400, "", "reason must be a string"},
		{"a reason that moves the cursor", "PUT", "/v1/things/a", otto, asJSON(`{"reason": "\u001b[2J"}`), 422, "", "control characters"},
		{"a form", "PUT", "/v1/things/a", otto, sending("application/x-www-form-urlencoded", "x=1"), 415, "", "application/json"},
		{"too large", "PUT", "/v1/things/a", otto, asJSON(`{"x": "` + strings.Repeat("x", maxAPIBody) + `"}`), 413, "", "over"},
		{"another method", "DELETE", "/v1/things/a", otto, asJSON(""), 405, "", "GET, PUT, HEAD"},
		{"from another page", "PUT", "/v1/things/a", otto, func(r *http.Request) { asJSON("{}")(r); r.Header.Set("Sec-Fetch-Site", "cross-site") }, 403, "", "another origin"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var none error
			s, asked := operating(t, &none)
			resp := s.ask(tt.method, tt.path, tt.as, tt.change)
			text := body(t, resp)
			if resp.StatusCode != tt.status || !strings.Contains(text, tt.says) {
				t.Errorf("status %d, want %d: %s", resp.StatusCode, tt.status, text)
			}
			in := ""
			for _, d := range *asked {
				in += d.in
			}
			if in != tt.in {
				t.Errorf("asked for %q, want %q", in, tt.in)
			}
			if kind := resp.Header.Get("Content-Type"); tt.status >= 400 && kind != "application/problem+json" {
				t.Errorf("Content-Type %q", kind)
			}
		})
	}
}

// Work that goes on is answered with its address; who asks twice with one key has it done once, and it is
// done under the token's name, also for a client that hung up.
func TestOperationOnce(t *testing.T) {
	var none error
	s, asked := operating(t, &none)
	gone := func(r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		cancel()
		*r = *r.WithContext(ctx)
	}
	var answers []string
	for i, key := range []string{"k", "k", "other"} {
		resp := s.ask("POST", "/v1/things", basic("otto", operateSecret), asJSON(`{"to": "r1", "reason": "slow"}`), header("Idempotency-Key", key), gone)
		if resp.StatusCode != http.StatusAccepted || resp.Header.Get("Location") != "/v1/tasks/x/t1" {
			t.Errorf("status %d, Location %q", resp.StatusCode, resp.Header.Get("Location"))
		}
		if replayed := resp.Header.Get("Idempotency-Replayed") == "true"; replayed != (i == 1) {
			t.Errorf("request %d replayed: %v", i, replayed)
		}
		answers = append(answers, body(t, resp))
	}
	one := done{in: `{"to":"r1"}`, by: tasks.By{Actor: "otto", Reason: "slow"}}
	if diff := cmp.Diff([]done{one, one}, *asked, cmp.AllowUnexported(done{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if answers[0] != answers[1] {
		t.Errorf("answers %q", answers)
	}
	for key, want := range map[string]int{"k": 422, "a b": 400} { // another body, no key
		if resp := s.ask("POST", "/v1/things", basic("otto", operateSecret), asJSON(`{"to": "r2"}`), header("Idempotency-Key", key)); resp.StatusCode != want {
			t.Errorf("key %q: status %d, want %d", key, resp.StatusCode, want)
		}
	}
}

// An operation that fails says why and what kind of reason it is, without passwords, and may be asked for again
// with the same key.
func TestOperationFails(t *testing.T) {
	for _, tt := range []struct {
		err    error
		status int
		cause  string
	}{
		{fmt.Errorf("%w: x", tasks.ErrInvalid), 422, "invalid"},
		{fmt.Errorf("x: %w", tasks.ErrNotFound), 404, "not found"},
		{fmt.Errorf("x: %w", tasks.ErrRefused), 409, "refused"},
		{fmt.Errorf("x: %w", tasks.ErrNotFresh), 409, "not fresh"},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), 504, ""},
		{errors.New("dial redis://ann:s3cret@host/1: no"), 500, ""},
	} {
		err := tt.err
		s, asked := operating(t, &err)
		for range 2 {
			resp := s.ask("POST", "/v1/things", basic("otto", operateSecret), asJSON("{}"), header("Idempotency-Key", "k"))
			text := body(t, resp)
			var p problem
			if e := json.Unmarshal([]byte(text), &p); e != nil {
				t.Fatal(e)
			}
			if resp.StatusCode != tt.status || p.Cause != tt.cause || strings.Contains(text, "s3cret") {
				t.Errorf("%v: status %d, %s", tt.err, resp.StatusCode, text)
			}
		}
		if len(*asked) != 2 {
			t.Errorf("%v: carried out %d times", tt.err, len(*asked))
		}
	}
}
