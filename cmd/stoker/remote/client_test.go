package remote

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/alphanode/stoker/tasks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// file writes a file that is its owner's alone.
func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// api is a client of a server that answers as serve does.
func api(t *testing.T, serve http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(serve)
	t.Cleanup(s.Close)
	c, err := New(Config{ApiURL: s.URL + "/below/", ApiTokenFile: file(t, " s3cret\n")}, "7")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestCall(t *testing.T) {
	type in struct {
		ID string `json:"id"`
		N  int    `json:"n,string,omitempty"`
	}
	for _, tt := range []struct {
		at           Route
		in           in
		reason, want string
	}{
		{Route{"GET", "/v1/things/{id}"}, in{"a/b c", 5}, "not sent", "GET /below/v1/things/a%2Fb%20c?n=5 "},
		{Route{"POST", "/v1/things/{id}/go"}, in{"r1", 0}, "why", `POST /below/v1/things/r1/go {"reason":"why"}`},
		{Route{"POST", "/v1/things"}, in{"r1", 2}, "", `POST /below/v1/things {"id":"r1","n":"2"}`},
	} {
		var got string
		c := api(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			got = r.Method + " " + r.RequestURI + " " + string(body)
			if r.Header.Get("Authorization") != "Bearer s3cret" || (r.Header.Get("Idempotency-Key") != "") != (r.Method == "POST") {
				t.Errorf("headers %v", r.Header)
			}
			_, _ = io.WriteString(w, `{"n": 7}`)
		})
		var out struct{ N int }
		if err := c.Call(t.Context(), tt.at, tt.in, tt.reason, &out); err != nil || out.N != 7 || got != tt.want {
			t.Errorf("%v: %v, %+v, sent %s, want %s", tt.at, err, out, got, tt.want)
		}
	}
	c := api(t, func(http.ResponseWriter, *http.Request) { t.Error("sent") })
	for _, id := range []string{"", ".", ".."} {
		if err := c.Call(t.Context(), Route{"GET", "/v1/things/{id}"}, in{ID: id}, "", nil); !errors.Is(err, tasks.ErrInvalid) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// What is passing is asked again, a write with the same key, and nothing else is.
func TestAgain(t *testing.T) {
	for status, want := range map[int]int{502: 2, 503: 2, 504: 2, 0: 2, 500: 1, 409: 1, 429: 1, 307: 1} {
		keys := map[string]int{}
		c := api(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			keys[r.Header.Get("Idempotency-Key")+string(body)]++
			switch {
			case len(keys) == 1 && keys[r.Header.Get("Idempotency-Key")+string(body)] > 1:
				_, _ = io.WriteString(w, "{}")
			case status == 0:
				panic(http.ErrAbortHandler) // the connection breaks
			default:
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(status)
			}
		})
		err := c.Call(t.Context(), Route{"POST", "/v1/go"}, struct{}{}, "", &struct{}{})
		sent := 0
		for _, n := range keys {
			sent += n
		}
		if len(keys) != 1 || sent != want || (err == nil) != (want == 2) {
			t.Errorf("status %d: sent %d times with %d keys, %v", status, sent, len(keys), err)
		}
	}
}

func TestRefusals(t *testing.T) {
	problem := func(status int, detail, cause string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(map[string]any{"detail": detail, "cause": cause})
		}
	}
	for _, tt := range []struct {
		serve http.HandlerFunc
		cause error // nil for one that callers need not tell apart
		says  string
	}{
		{problem(422, "invalid input: x", "invalid"), tasks.ErrInvalid, "invalid input: x"},
		{problem(404, "no such", "not found"), tasks.ErrNotFound, "no such"},
		{problem(409, "not now", "refused"), tasks.ErrRefused, "not now"},
		{problem(409, "too old", "not fresh"), tasks.ErrNotFresh, "too old"},
		{problem(500, "it broke", ""), nil, "it broke"},
		{problem(401, "No such token.", ""), tasks.ErrRefused, "STOKER_API_TOKEN_FILE"},
		{problem(403, "ben has the scope view", ""), tasks.ErrRefused, "ben has the scope view"},
		{func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", 404) }, nil, "not as an API does"},
		{func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://id.example/", http.StatusFound)
		}, tasks.ErrInvalid, "https://id.example/"},
		{func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }, nil, "another version's"},
	} {
		err := api(t, tt.serve).Call(t.Context(), Route{"GET", "/v1/x"}, struct{}{}, "", &struct{}{})
		if err == nil || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v, want %s", err, tt.says)
		}
		for _, cause := range []error{tasks.ErrInvalid, tasks.ErrNotFound, tasks.ErrRefused, tasks.ErrNotFresh} {
			if errors.Is(err, cause) != (cause == tt.cause) {
				t.Errorf("%v wraps %v: %v", err, cause, errors.Is(err, cause))
			}
		}
	}
}

func TestUnreached(t *testing.T) {
	c, err := New(Config{ApiURL: "http://127.0.0.1:1"}, "7")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	began := time.Now()
	err = c.Call(t.Context(), Route{"GET", "/v1/x"}, struct{}{}, "", nil)
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") || !strings.Contains(err.Error(), "STOKER_API_URL") {
		t.Errorf("%v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v to say so", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Call(ctx, Route{"GET", "/v1/x"}, struct{}{}, "", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestTLS(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }))
	defer s.Close()
	ca := file(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	for _, tt := range []struct{ ca, says string }{{ca, ""}, {"", "STOKER_API_CA_FILE"}} {
		c, err := New(Config{ApiURL: s.URL, ApiCAFile: tt.ca}, "7")
		if err != nil {
			t.Fatal(err)
		}
		err = c.Call(t.Context(), Route{"GET", "/v1/x"}, struct{}{}, "", &struct{}{})
		c.Close()
		if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("authorities %q: %v", tt.ca, err)
		}
	}
}

func TestConfig(t *testing.T) {
	open := file(t, "s3cret")
	if err := os.Chmod(open, 0o604); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		cfg  Config
		says string // "" for what is right
	}{
		{Config{ApiURL: "https://stoker.example/ops"}, ""},
		{Config{ApiURL: "https://stoker.example", ApiTokenFile: file(t, "s3cret\n")}, ""},
		{Config{ApiURL: "stoker.example"}, `"stoker.example"`},
		{Config{ApiURL: "ftp://stoker.example"}, `"ftp://stoker.example"`},
		{Config{ApiURL: "https://ann:s3cret@stoker.example"}, "STOKER_API_TOKEN_FILE"},
		{Config{ApiURL: "https://ann:s3cret\x01@stoker.example"}, "STOKER_API_URL"},
		{Config{ApiURL: "https://stoker.example?x=1"}, "https://host"},
		{Config{ApiURL: "https://stoker.example", ApiTokenFile: "nowhere"}, "nowhere"},
		{Config{ApiURL: "https://stoker.example", ApiTokenFile: open}, "chmod 600"},
		{Config{ApiURL: "https://stoker.example", ApiTokenFile: file(t, "")}, "holds no token"},
		{Config{ApiURL: "https://stoker.example", ApiTokenFile: file(t, "ann operate sha256:s3cret")}, "holds no token"},
		{Config{ApiURL: "https://stoker.example", ApiCAFile: file(t, "x")}, "PEM"},
		{Config{ApiURL: "https://stoker.example", ApiCAFile: "nowhere"}, "nowhere"},
		{Config{ApiTokenFile: open}, "STOKER_API_URL is not"},
		{Config{ApiCAFile: open}, "STOKER_API_URL is not"},
		{Config{}, ""},
	} {
		err := errors.Join(tt.cfg.Validate(), tt.cfg.Complete())
		if err == nil && tt.cfg.Enabled() {
			var c *Client
			if c, err = New(tt.cfg, "7"); err == nil {
				c.Close()
			}
		}
		if (err == nil) != (tt.says == "") || err != nil && (!errors.Is(err, tasks.ErrInvalid) || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "s3cret")) {
			t.Errorf("%+v: %v", tt.cfg, err)
		}
	}
}
