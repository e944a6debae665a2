package web

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/redistest"
)

// apiSite is a site whose API records in a log of its own.
type apiSite struct {
	*site
	queue *redis.Client
	apply func(number int64)

	mu    sync.Mutex
	calls []tasks.Invalidation // recorded; guarded by mu
}

func newAPISite(t *testing.T, cfg Config, change ...func(*Deps)) *apiSite {
	t.Helper()
	s := &apiSite{queue: redistest.Mini(t)}
	client, err := tasks.NewClientFrom(s.queue, s.queue, tasks.Config{App: "alpha", KeyTemplate: tasks.DefaultTemplate, FillLimit: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	keys := tasks.KeysOf("alpha")
	tmpl, err := tasks.ParseTemplate(tasks.DefaultTemplate, "alpha")
	if err != nil {
		t.Fatal(err)
	}
	live := func(context.Context) ([]string, error) { return []string{"r41", "r42"}, nil }
	applier := invalidation.NewApplier(invalidation.Open(s.queue, keys, invalidation.Config{}), s.queue, tmpl, live, nil)
	s.apply = func(number int64) {
		t.Helper()
		if _, err := applier.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wire := func(d *Deps) {
		d.Invalidate = func(ctx context.Context, call tasks.Invalidation) (tasks.Receipt, error) {
			receipt, err := client.Invalidate(ctx, call)
			if err == nil {
				s.mu.Lock()
				s.calls = append(s.calls, call)
				s.mu.Unlock()
			}
			return receipt, err
		}
		d.Applied = func(ctx context.Context, number int64) (tasks.Applied, Stage, error) {
			a, pending, err := tasks.ReadApplied(ctx, s.queue, keys, number)
			if pending {
				return tasks.Applied{Number: number}, StagePending, nil
			}
			return a, StageApplied, err
		}
	}
	s.site = newSite(t, cfg, s.queue, append([]func(*Deps){wire}, change...)...)
	return s
}

// recorded returns the targets recorded so far, as kind and name, and forgets them.
func (s *apiSite) recorded() (targets []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.calls {
		for _, target := range c.Targets {
			targets = append(targets, target.Member())
		}
	}
	s.calls = nil
	return targets
}

func sending(kind, text string) func(*http.Request) {
	return func(r *http.Request) {
		r.Header.Set("Content-Type", kind)
		r.Body = io.NopCloser(strings.NewReader(text))
		r.ContentLength = int64(len(text))
	}
}

func asJSON(text string) func(*http.Request) { return sending("application/json", text) }

var asShop = basic("shop", invalidateSecret)

// post sends a body and returns status and answer.
func (s *apiSite) post(t *testing.T, change ...func(*http.Request)) (int, string) {
	t.Helper()
	resp := s.ask("POST", apiCalls, append([]func(*http.Request){asShop}, change...)...)
	return resp.StatusCode, body(t, resp)
}

const oneKey = `{"targets": [{"key": "post:1"}]}`

func tokens(t *testing.T) Config { return Config{WebTokensFile: tokensFile(t)} }

func TestAPIByScope(t *testing.T) {
	who := []func(*http.Request){
		func(*http.Request) {}, basic("vera", viewSecret), asShop, header("Authorization", "Bearer "+invalidateSecret), basic("otto", operateSecret),
	}
	s := newAPISite(t, tokens(t))
	number, err := s.deps.Invalidate(t.Context(), tasks.Invalidation{Targets: []tasks.Target{{Kind: tasks.KindKey, Name: "x"}}, By: tasks.By{Actor: "test"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		method, path string
		want         [5]int
	}{
		{"POST", apiCalls, [5]int{401, 403, 202, 202, 202}},
		{"GET", fmt.Sprintf("%s/%d", apiCalls, number.Number), [5]int{401, 200, 200, 200, 200}},
		{"GET", apiCalls + "/1", [5]int{401, 404, 404, 404, 404}},
		{"GET", "/v1/openapi.json", [5]int{401, 200, 200, 200, 200}},
		{"GET", apiCalls, [5]int{405, 405, 405, 405, 405}},
		{"DELETE", apiCalls + "/1", [5]int{405, 405, 405, 405, 405}},
		{"GET", "/v1/nothing", [5]int{404, 404, 404, 404, 404}},
	} {
		for i, as := range who {
			resp := s.ask(tt.method, tt.path, as, asJSON(oneKey))
			if resp.StatusCode != tt.want[i] {
				t.Errorf("%s %s as %d: status %d, want %d", tt.method, tt.path, i, resp.StatusCode, tt.want[i])
			}
			if kind := resp.Header.Get("Content-Type"); resp.StatusCode >= 400 && kind != "application/problem+json" {
				t.Errorf("%s %s as %d: %d is %s", tt.method, tt.path, i, resp.StatusCode, kind)
			}
		}
	}
	if got := len(s.recorded()); got != 4 {
		t.Errorf("%d calls recorded, want the test's own and those of three tokens", got)
	}
}

func TestAPIActorIsTheToken(t *testing.T) {
	for name, s := range map[string]*apiSite{"shop": newAPISite(t, tokens(t)), "local": newAPISite(t, Config{})} {
		for _, kind := range []string{callType, streamType} {
			if status, text := s.post(t, sending(kind, `{"targets": [{"tag": "a"}], "reason": "why"}`)); status != 202 {
				t.Fatalf("status %d: %s", status, text)
			}
		}
		for _, c := range s.calls {
			if diff := cmp.Diff(tasks.By{Actor: name, Reason: "why"}, c.By); diff != "" {
				t.Error(diff)
			}
		}
		if status, text := s.post(t, asJSON(`{"actor": "ann", "targets": [{"key": "a"}]}`)); status != 400 || !strings.Contains(text, "token's name") {
			t.Errorf("an actor of the client's own: %d %s", status, text)
		}
		for _, want := range []string{"actor=" + name, "method=POST", "path=/v1/invalidations", "status=202"} {
			if !strings.Contains(s.logged.String(), want) {
				t.Errorf("audit lines lack %q: %s", want, s.logged)
			}
		}
	}
}

func TestAPIFromPages(t *testing.T) {
	s := newAPISite(t, tokens(t))
	for name, as := range map[string]func(*http.Request){"cross-site": header("Sec-Fetch-Site", "cross-site"), "origin": header("Origin", "https://evil.example")} {
		resp := s.ask("POST", apiCalls, asShop, asJSON(oneKey), as)
		if text := body(t, resp); resp.StatusCode != 403 || !strings.Contains(text, "another origin") || resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s", name, resp.StatusCode, text)
		}
	}
	if got := s.recorded(); len(got) > 0 {
		t.Errorf("recorded %q", got)
	}
}

// refused are bodies, and what must be said about each.
var refused = []struct {
	name, kind, body string
	status           int
	want             []string
}{
	{"no JSON", callType, `{"targets": [`, 400, []string{"not JSON", "unexpected end"}},
	{"two bodies", callType, oneKey + oneKey, 400, []string{"not JSON", "after top-level value"}},
	{"no object", callType, `[1]`, 400, []string{"the body must be an object"}},
	{"null", callType, `null`, 400, []string{"the body must be an object"}},
	{"an unknown member", callType, `{"target": []}`, 400, []string{"target is unknown", "targets, refresh and reason"}},
	{"a member in other letters", callType, `{"Targets": []}`, 400, []string{"Targets is unknown"}},
	{"a member twice", callType, `{"targets": [{"key": "a"}], "targets": [{"key": "b"}]}`, 400, []string{`"targets" twice`}},
	{"targets of another type", callType, `{"targets": {"key": "a"}}`, 400, []string{"targets must be an array"}},
	{"a target that is a string", callType, `{"targets": ["post:1"]}`, 400, []string{"targets[0] must be an object"}},
	{"an unknown kind", callType, `{"targets": [{"key": "a"}, {"url": "/a"}]}`, 400, []string{"targets[1].url is unknown", "key, tag, prefix"}},
	{"a key that is a number", callType, `{"targets": [{"key": 17}]}`, 400, []string{"targets[0].key must be a string, not 17"}},
	{"a key that is null", callType, `{"targets": [{"key": null}]}`, 400, []string{"not null"}},
	{"a key twice", callType, `{"targets": [{"key": "a", "key": "b"}]}`, 400, []string{`targets[0] has "key" twice`}},
	{"bytes as text", callType, "{\"targets\": [{\"key\": \"a\xff\"}]}", 400, []string{"not UTF-8", "key_base64"}},
	{"half a surrogate pair", callType, `{"targets": [{"key": "a\udcff"}]}`, 400, []string{`a\udcff`, "surrogate", "targets[0].key_base64"}},
	{"the other half", callType, `{"targets": [{"key": "\ude00"}]}`, 400, []string{"surrogate"}},
	{"half a pair before an escape", callType, `{"targets": [{"key": "\ud83d\u0041"}]}`, 400, []string{"surrogate"}},
	{"a call beside calls", callType, `{"calls": [` + oneKey + `], "reason": "x"}`, 400, []string{"nothing beside it"}},
	{"no targets", callType, `{"reason": "x"}`, 422, []string{"names no target", `"targets": [{"key"`}},
	{"no targets in a batch", callType, `{"calls": [` + oneKey + `, {}]}`, 422, []string{"calls[1] names no target"}},
	{"an empty batch", callType, `{"calls": []}`, 422, []string{"calls is empty"}},
	{"two members", callType, `{"targets": [{"key": "a", "tag": "b"}]}`, 422, []string{"targets[0] has 2 members", "exactly one"}},
	{"no member", callType, `{"targets": [{}]}`, 422, []string{"targets[0] has 0 members", "exactly one"}},
	{"an empty key", callType, `{"targets": [{"key": ""}]}`, 422, []string{"targets[0]: empty key", "name what to invalidate"}},
	{"an empty prefix, encoded", callType, `{"targets": [{"prefix_base64": ""}]}`, 422, []string{"empty prefix"}},
	{"a reserved key", callType, `{"targets": [{"key": "#tag:x"}]}`, 422, []string{"#tag:x", "reserved"}},
	{"base64 that is none", callType, `{"targets": [{"key_base64": "_-8"}]}`, 422, []string{`targets[0].key_base64 "_-8"`, "standard alphabet with padding"}},
	{"a long key", callType, `{"targets": [{"key": "` + strings.Repeat("k", tasks.MaxTargetLen+1) + `"}]}`, 422, []string{"65537 bytes", "at most 65536"}},
	{"a long reason", callType, `{"targets": [{"key": "a"}], "reason": "` + strings.Repeat("r", tasks.MaxReasonLen+1) + `"}`, 422, []string{"reason of 1001 bytes", "at most 1000"}},
	{"a reason with control characters", callType, `{"targets": [{"key": "a"}], "reason": "a\u001b[2J"}`, 422, []string{`a\x1b[2J`, "plain text"}},
	{"too many targets", callType, callOf(tasks.MaxTargets + 1), 422, []string{"10000", "stream"}},
	{"too many targets in all", callType, `{"calls": [` + callOf(tasks.MaxTargets) + `,` + oneKey + `]}`, 422, []string{"10000", "stream"}},
	{"too many calls", callType, `{"calls": [` + strings.Repeat(oneKey+",", maxCalls) + oneKey + `]}`, 422, []string{"1000", "stream"}},
	{"a large body", callType, strings.Repeat(" ", maxAPIBody) + oneKey, 413, []string{"4194304 bytes", "stream"}},
	{"a form", "application/x-www-form-urlencoded", "key=a", 415, []string{`"application/x-www-form-urlencoded"`, "application/json"}},
	{"no type", "", oneKey, 415, []string{`""`, "application/x-ndjson"}},
	{"an empty stream", streamType, "\n \n", 422, []string{"holds no call"}},
	{"a bad line", streamType, "{}\n", 422, []string{"names no target", `"line":1`, `"recorded":0`}},
	{"a large line", streamType, "\n{" + strings.Repeat(" ", maxLine) + "}\n", 413, []string{"Line 2", `"line":2`}},
	{"a batch in a stream", streamType, `{"calls": [` + oneKey + `]}`, 400, []string{"calls is unknown"}},
}

// callOf is a call with n targets.
func callOf(n int) string {
	return `{"targets": [` + strings.TrimSuffix(strings.Repeat(`{"key": "k"},`, n), ",") + `]}`
}

func TestAPIRefuses(t *testing.T) {
	s := newAPISite(t, tokens(t))
	for _, tt := range refused {
		resp := s.ask("POST", apiCalls, asShop, sending(tt.kind, tt.body))
		text := body(t, resp)
		if resp.StatusCode != tt.status || resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s, want a problem %d: %.300s", tt.name, resp.StatusCode, resp.Header.Get("Content-Type"), tt.status, text)
		}
		var p problem
		if err := json.Unmarshal([]byte(text), &p); err != nil || p.Status != tt.status || p.Title != http.StatusText(tt.status) {
			t.Errorf("%s: problem %+v, %v", tt.name, p, err)
		}
		for _, want := range tt.want {
			if !strings.Contains(p.Detail, want) && !strings.Contains(text, want) {
				t.Errorf("%s: %.300q does not say %q", tt.name, p.Detail, want)
			}
		}
	}
	if got := s.recorded(); len(got) > 0 {
		t.Errorf("recorded %q", got)
	}
	if status, text := s.post(t, asJSON(oneKey), header("Content-Encoding", "gzip")); status != 415 || !strings.Contains(text, "gzip") {
		t.Errorf("compressed: %d %s", status, text)
	}
}

func TestAPIAtTheLimits(t *testing.T) {
	s := newAPISite(t, tokens(t))
	for name, text := range map[string]string{
		"targets":        callOf(tasks.MaxTargets),
		"calls":          `{"calls": [` + strings.Repeat(oneKey+",", maxCalls-1) + oneKey + `]}`,
		"bytes":          strings.Repeat(" ", maxAPIBody-len(oneKey)) + oneKey,
		"length of keys": `{"targets": [{"key": "` + strings.Repeat("k", tasks.MaxTargetLen) + `"}]}`,
	} {
		if status, answer := s.post(t, asJSON(text)); status != 202 {
			t.Errorf("%s: %d %.300s", name, status, answer)
		}
	}
}

func TestAPIAnyBytes(t *testing.T) {
	s := newAPISite(t, tokens(t))
	var every [256]byte
	for i := range every {
		every[i] = byte(i)
	}
	encode := base64.StdEncoding.EncodeToString
	text := fmt.Sprintf(`{"targets": [{"key_base64": %q}, {"tag_base64": %q}, {"prefix_base64": %q}, {"key": %s}]}`,
		encode(every[:]), encode([]byte("\x00tags\x00")), encode([]byte("\xff")), `"a \u0000\n<&>😀\ud83d\ude00�\\ud83d"`)
	if status, answer := s.post(t, asJSON(text)); status != 202 || !strings.Contains(answer, `"targets":4`) {
		t.Fatalf("%d %s", status, answer)
	}
	want := []string{"k:" + string(every[:]), "t:\x00tags\x00", "p:\xff", "k:a \x00\n<&>😀😀�\\ud83d"}
	if diff := cmp.Diff(want, s.recorded()); diff != "" {
		t.Error(diff)
	}
}

func TestAPIStatus(t *testing.T) {
	s := newAPISite(t, tokens(t))
	s.queue.Set(t.Context(), "alpha:r42:post:1", "v", 0)
	resp := s.ask("POST", apiCalls, asShop, asJSON(oneKey))
	var got accepted
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || resp.StatusCode != 202 || got.Targets != 1 {
		t.Fatalf("%d %+v %v", resp.StatusCode, got, err)
	}
	if want := fmt.Sprintf("/v1/invalidations/%d", got.Number); got.StatusURL != want || resp.Header.Get("Location") != want {
		t.Errorf("status URL %q, Location %q, want %q", got.StatusURL, resp.Header.Get("Location"), want)
	}
	var o outcome
	read := func() {
		t.Helper()
		o = outcome{}
		if err := json.Unmarshal([]byte(body(t, s.ask("GET", got.StatusURL, asShop))), &o); err != nil {
			t.Fatal(err)
		}
	}
	if read(); o.Status != StagePending || o.Number != got.Number || o.Removed != nil || !o.Recorded.Equal(time.UnixMicro(got.Number)) {
		t.Errorf("before it is applied: %+v", o)
	}
	s.apply(got.Number)
	if read(); o.Status != StageApplied || *o.Targets != 1 || o.Applied == nil || cmp.Diff(map[string]int64{"r41": 0, "r42": 1}, o.Removed) != "" {
		t.Errorf("when it is applied: %+v", o)
	}
	for path, want := range map[string]string{"/1": "number 1", "/x": `"x"`, "/0": `"0"`, "/-5": `"-5"`, "/99999999999999999999": "number"} {
		if text := body(t, s.ask("GET", apiCalls+path, asShop)); !strings.Contains(strings.ReplaceAll(text, `\"`, `"`), want) {
			t.Errorf("%s: %s", path, text)
		}
	}
}

func TestAPIBatch(t *testing.T) {
	s := newAPISite(t, tokens(t))
	status, text := s.post(t, asJSON(`{"calls": [{"targets": [{"key": "a"}]}, {"targets": [{"tag": "b"}, {"prefix": "c"}], "reason": "x"}]}`))
	var got struct{ Calls []accepted }
	if err := json.Unmarshal([]byte(text), &got); err != nil || status != 202 || len(got.Calls) != 2 || got.Calls[0].Targets != 1 || got.Calls[1].Targets != 2 {
		t.Fatalf("%d %s", status, text)
	}
	if len(s.recorded()) != 3 {
		t.Error("not all is recorded")
	}
	if status, _ := s.post(t, asJSON(`{"calls": [`+oneKey+`, {"targets": [{"key": ""}]}]}`)); status != 422 || len(s.recorded()) > 0 {
		t.Errorf("a batch with a bad call: %d, and something recorded", status)
	}
}

func TestAPIFailures(t *testing.T) {
	tests := []struct {
		name   string
		err    error
		status int
		retry  string
		want   string
	}{
		{"full", fmt.Errorf("%w: 1000000 targets", tasks.ErrFull), 429, "1", "1000000 targets"},
		{"away", errors.New("dial tcp 10.0.0.7:6379: connection refused"), 503, "5", "send it again"},
		{"slow", context.DeadlineExceeded, 503, "5", "may or may not be recorded"},
		{"not enqueued", fmt.Errorf("invalidation 7: %w", tasks.ErrNotEnqueued), 202, "", ""},
	}
	for _, tt := range tests {
		s := newAPISite(t, tokens(t), func(d *Deps) {
			d.Invalidate = func(context.Context, tasks.Invalidation) (tasks.Receipt, error) {
				return tasks.Receipt{Number: 7}, tt.err
			}
			d.Applied = func(context.Context, int64) (tasks.Applied, Stage, error) { return tasks.Applied{}, "", tt.err }
		})
		for _, kind := range []string{callType, streamType} {
			resp := s.ask("POST", apiCalls, asShop, sending(kind, oneKey))
			text := body(t, resp)
			if resp.StatusCode != tt.status || resp.Header.Get("Retry-After") != tt.retry || !strings.Contains(text, tt.want) || strings.Contains(text, "10.0.0.7") {
				t.Errorf("%s, %s: %d, Retry-After %q: %s", tt.name, kind, resp.StatusCode, resp.Header.Get("Retry-After"), text)
			}
		}
		if tt.status == 503 {
			if got := s.ask("GET", apiCalls+"/7", asShop).StatusCode; got != 503 {
				t.Errorf("%s: status of a number: %d", tt.name, got)
			}
			if !strings.Contains(s.logged.String(), tt.err.Error()) {
				t.Errorf("%s: the cause is not logged: %s", tt.name, s.logged)
			}
		}
	}
}

func TestAPIBodyThatStops(t *testing.T) {
	s := newAPISite(t, tokens(t))
	for err, want := range map[error]int{os.ErrDeadlineExceeded: 408, io.ErrUnexpectedEOF: 400} {
		for _, kind := range []string{callType, streamType} {
			stops := func(r *http.Request) {
				r.Header.Set("Content-Type", kind)
				r.Body = io.NopCloser(io.MultiReader(strings.NewReader(oneKey+"\n"), failing{err}))
			}
			if status, text := s.post(t, stops); status != want {
				t.Errorf("%v in %s: %d %s, want %d", err, kind, status, text, want)
			}
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestAPIStream(t *testing.T) {
	s := newAPISite(t, tokens(t))
	var lines bytes.Buffer
	for i := range 5_000 {
		fmt.Fprintf(&lines, "{\"targets\": [{\"key\": \"post:%d\"}, {\"tag\": \"t\"}]}\r\n\n", i)
	}
	status, text := s.post(t, sending(streamType, strings.TrimSpace(lines.String())))
	var sum summary
	if err := json.Unmarshal([]byte(text), &sum); err != nil || status != 202 || sum.Calls != 5_000 || sum.Targets != 10_000 || sum.First == 0 || sum.Last < sum.First {
		t.Fatalf("%d %s", status, text)
	}
	if got := len(s.recorded()); got != 10_000 {
		t.Errorf("%d targets recorded", got)
	}

	status, text = s.post(t, sending(streamType+"; charset=utf-8", oneKey+"\n"+oneKey+"\n{\"targets\": [{\"key\": \"\"}]}\n"+oneKey))
	if status != 422 || !strings.Contains(text, `"line":3`) || !strings.Contains(text, `"recorded":2`) || len(s.recorded()) != 2 {
		t.Errorf("a bad third line: %d %s", status, text)
	}
	if status, text = s.post(t, sending(streamType, oneKey), header("Idempotency-Key", "x")); status != 400 || !strings.Contains(text, "not for streams") {
		t.Errorf("with an idempotency key: %d %s", status, text)
	}
}

// A stream is taken no faster than it is recorded: what waits is bounded.
func TestAPIStreamIsHeldBack(t *testing.T) {
	var s *apiSite
	gate, full := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	inside := 0
	s = newAPISite(t, tokens(t), func(d *Deps) {
		d.Invalidate = func(context.Context, tasks.Invalidation) (tasks.Receipt, error) {
			mu.Lock()
			if inside++; inside == maxAtOnce {
				close(full)
			}
			mu.Unlock()
			<-gate
			return tasks.Receipt{Number: 1}, nil
		}
	})
	source := &counting{Reader: strings.NewReader(strings.Repeat(oneKey+"\n", 20_000))}
	answered := make(chan int)
	go func() {
		status, _ := s.post(t, func(r *http.Request) {
			r.Header.Set("Content-Type", streamType)
			r.Body = io.NopCloser(source)
		})
		answered <- status
	}()
	<-full
	if got, most := source.read(), (maxAtOnce+1)*len(oneKey+"\n")+64<<10; got > most {
		t.Errorf("%d bytes read while nothing is recorded, want at most %d", got, most)
	}
	close(gate)
	if status := <-answered; status != 202 {
		t.Errorf("status %d", status)
	}
}

type counting struct {
	io.Reader
	mu sync.Mutex
	n  int
}

func (c *counting) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.mu.Lock()
	c.n += n
	c.mu.Unlock()
	return n, err
}

func (c *counting) read() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func TestIdempotency(t *testing.T) {
	s := newAPISite(t, tokens(t))
	key := header("Idempotency-Key", "3f0c-1")
	first := s.ask("POST", apiCalls, asShop, asJSON(oneKey), key)
	again := s.ask("POST", apiCalls, asShop, asJSON(oneKey), key)
	if a, b := body(t, first), body(t, again); first.StatusCode != 202 || again.StatusCode != 202 || a != b {
		t.Errorf("first %d %s, again %d %s", first.StatusCode, a, again.StatusCode, b)
	}
	if a, b := first.Header.Get("Idempotency-Replayed"), again.Header.Get("Idempotency-Replayed"); a != "" || b != "true" {
		t.Errorf("Idempotency-Replayed %q, then %q", a, b)
	}
	if got := s.recorded(); len(got) != 1 {
		t.Errorf("recorded %q", got)
	}
	if status, text := s.post(t, asJSON(oneKey+" "), key); status != 422 || !strings.Contains(text, "3f0c-1") || !strings.Contains(text, "new key") {
		t.Errorf("the key with another body: %d %s", status, text)
	}
	if got := s.ask("POST", apiCalls, basic("otto", operateSecret), asJSON(oneKey+" "), key).StatusCode; got != 202 {
		t.Errorf("another token's key of that name: %d", got)
	}
	if ttl := s.queue.TTL(t.Context(), tasks.KeysOf("alpha").Idempotency("shop:3f0c-1")).Val(); ttl != keepAnswer {
		t.Errorf("kept for %v", ttl)
	}
	batch := `{"calls": [` + oneKey + `, {"targets": [{"key": "a"}, {"key": "b"}]}]}`
	_, a := s.post(t, asJSON(batch), header("Idempotency-Key", "b"))
	if _, b := s.post(t, asJSON(batch), header("Idempotency-Key", "b")); a != b || !strings.Contains(b, `"targets":2`) {
		t.Errorf("batch: %s, then %s", a, b)
	}
	for _, bad := range []string{"", "a b", "ä", "a\x01", strings.Repeat("k", maxKeyBytes+1)} {
		if status, text := s.post(t, asJSON(oneKey), header("Idempotency-Key", bad)); status != 400 || !strings.Contains(text, "visible ASCII") {
			t.Errorf("key %q: %d %s", bad, status, text)
		}
	}
	twice := func(r *http.Request) { r.Header["Idempotency-Key"] = []string{"a", "b"} }
	if status, text := s.post(t, asJSON(oneKey), twice); status != 400 || !strings.Contains(text, "send one") {
		t.Errorf("two keys: %d %s", status, text)
	}
}

func TestIdempotencyForgetsFailures(t *testing.T) {
	fail := true
	s := newAPISite(t, tokens(t), func(d *Deps) {
		record := d.Invalidate
		d.Invalidate = func(ctx context.Context, c tasks.Invalidation) (tasks.Receipt, error) {
			if fail {
				return tasks.Receipt{}, errors.New("away")
			}
			return record(ctx, c)
		}
	})
	key := header("Idempotency-Key", "k")
	if status, text := s.post(t, asJSON(oneKey), key); status != 503 {
		t.Fatalf("%d %s", status, text)
	}
	fail = false
	if status, text := s.post(t, asJSON(oneKey), key); status != 202 || len(s.recorded()) != 1 {
		t.Errorf("after a failure: %d %s", status, text)
	}
}

// Duplicates at once: one records, the others are told to wait or get its answer, also when the
// client of the first has gone.
func TestIdempotencyAtOnce(t *testing.T) {
	gate, inside := make(chan struct{}), make(chan struct{})
	s := newAPISite(t, tokens(t), func(d *Deps) {
		record := d.Invalidate
		d.Invalidate = func(ctx context.Context, c tasks.Invalidation) (tasks.Receipt, error) {
			close(inside) // a second time would panic
			<-gate
			return record(ctx, c)
		}
	})
	key := header("Idempotency-Key", "k")
	first := make(chan int)
	ctx, hangUp := context.WithCancel(t.Context())
	go func() {
		resp := s.ask("POST", apiCalls, func(r *http.Request) { *r = *r.WithContext(ctx) }, asShop, asJSON(oneKey), key)
		first <- resp.StatusCode
	}()
	<-inside
	hangUp()
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			resp := s.ask("POST", apiCalls, asShop, asJSON(oneKey), key)
			if resp.StatusCode != 409 || resp.Header.Get("Retry-After") != "1" {
				t.Errorf("a duplicate meanwhile: %d", resp.StatusCode)
			}
		})
	}
	all.Wait()
	close(gate)
	if status := <-first; status != 202 {
		t.Errorf("the first: %d", status)
	}
	for range 32 {
		all.Go(func() {
			if resp := s.ask("POST", apiCalls, asShop, asJSON(oneKey), key); resp.StatusCode != 202 {
				t.Errorf("a duplicate afterwards: %d", resp.StatusCode)
			}
		})
	}
	all.Wait()
	if got := s.recorded(); len(got) != 1 {
		t.Errorf("recorded %q", got)
	}
}

// Against a real server: SET NX GET, whose lost reply looks like a claim of one's own.
func TestIdempotencyLostReply(t *testing.T) {
	m := &idempotency{queue: redistest.Start(t).Client, keys: tasks.KeysOf("alpha")}
	mine := memo{Body: "b", Claim: "c"}
	for range 2 {
		if got, err := m.claim(t.Context(), "k", mine); err != nil || got.Claim != "c" {
			t.Errorf("claim: %+v, %v", got, err)
		}
	}
	if ttl, err := m.queue.PTTL(t.Context(), "k").Result(); err != nil || ttl <= 0 || ttl > claimLimit {
		t.Errorf("a claim for %v, %v: it would outlive a process that died for good", ttl, err)
	}
	if got, err := m.claim(t.Context(), "k", memo{Body: "b", Claim: "d"}); err != nil || got.Claim != "c" {
		t.Errorf("another's claim: %+v, %v", got, err)
	}
}

// Whatever is accepted is JSON, and names as many targets as it holds.
func FuzzReadBody(f *testing.F) {
	for _, tt := range refused {
		if len(tt.body) < 1000 {
			f.Add([]byte(tt.body))
		}
	}
	f.Add([]byte(`{"calls":[{"targets":[{"key_base64":"AA=="},{"tag":"\ud83d\ude00"}],"reason":"x"}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		calls, _, err := readBody(raw)
		if err != nil {
			if p := problemOf(err); p.Status != 400 && p.Status != 422 || p.Detail == "" {
				t.Errorf("problem %+v", p)
			}
			return
		}
		if !json.Valid(raw) || len(calls) == 0 {
			t.Errorf("accepted %q as %d calls", raw, len(calls))
		}
		for _, c := range calls {
			c.Actor, c.Reason = "fuzz", ""
			if err := c.Validate(); err != nil {
				t.Errorf("accepted %q: %v", raw, err)
			}
		}
	})
}

// TestAPIRefresh asks for a refresh, call by call.
func TestAPIRefresh(t *testing.T) {
	s := newAPISite(t, tokens(t))
	for text, want := range map[string]bool{
		`{"targets": [{"key": "k"}], "refresh": true}`:              true,
		`{"targets": [{"key": "k"}], "refresh": false}`:             false,
		`{"targets": [{"key": "k"}]}`:                               false,
		`{"calls": [{"refresh": true, "targets": [{"key": "k"}]}]}`: true,
	} {
		if status, answer := s.post(t, asJSON(text)); status != http.StatusAccepted {
			t.Fatalf("%s: %d %s", text, status, answer)
		}
		if got := s.calls[0].Refresh; got != want {
			t.Errorf("%s: refresh %v", text, got)
		}
		s.recorded()
	}
	if status, answer := s.post(t, asJSON(`{"targets": [{"key": "k"}], "refresh": "yes"}`)); status != http.StatusBadRequest || !strings.Contains(answer, "refresh must be true or false") {
		t.Errorf("refresh of yes: %d %s", status, answer)
	}
}
