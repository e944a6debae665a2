package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/goleak"

	"github.com/alphanode/stoker/tasks"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// nasty is a message in which somebody tries to call everybody and to break out of the form.
var nasty = tasks.Notify{
	Event: tasks.EventWorse, At: time.Date(2026, 11, 22, 20, 30, 3, 0, time.UTC), App: "site", Release: "r42",
	Title: "r42 is worse than r41 <!channel> @all",
	Lines: []string{"errors: 0 of 400 before,\n9 of 400 after", `*bold* _x_ [link](http://evil.example) "quoted" <b>`, "stoker rollback --to r41 --wait"},
}

func TestFormats(t *testing.T) {
	for _, f := range Formats() {
		got, err := body(f, nasty)
		if err != nil {
			t.Fatal(err)
		}
		var shown bytes.Buffer
		if err := json.Indent(&shown, got, "", "  "); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		shown.WriteByte('\n')
		file := filepath.Join("testdata", string(f)+".json")
		if *update {
			if err := os.WriteFile(file, shown.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), shown.String()); diff != "" {
			t.Errorf("%s (-want +got; -update rewrites it):\n%s", f, diff)
		}
	}
	if _, err := body("pigeon", nasty); !errors.Is(err, tasks.ErrInvalid) {
		t.Errorf("unknown format: %v", err)
	}
}

func TestDiscordIsShort(t *testing.T) {
	long := nasty
	long.Lines = []string{strings.Repeat("é", 5000)}
	raw, err := body(Discord, long)
	if err != nil {
		t.Fatal(err)
	}
	var m struct{ Content string }
	if err := json.Unmarshal(raw, &m); err != nil || len([]rune(m.Content)) != maxDiscord {
		t.Errorf("%d characters, %v", len([]rune(m.Content)), err)
	}
}

func sender(t *testing.T, url string, change func(*Config)) *Sender {
	t.Helper()
	cfg := Config{WebhookURL: url, WebhookSecret: secret, WebhookFormat: JSON, WebhookTimeout: 5 * time.Second}
	if change != nil {
		change(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// TestSigned: a receiver with the secret verifies the message, and no other, by the specification's own
// library.
func TestSigned(t *testing.T) {
	for name, key := range map[string]string{"the specification's form": secret, "plain": "a plain secret of thirty characters"} {
		t.Run(name, func(t *testing.T) {
			var verified, forged error
			var id string
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				raw, _ := io.ReadAll(r.Body)
				wh, _ := webhooks.NewWebhookRaw([]byte(key))
				if strings.HasPrefix(key, "whsec_") {
					wh, _ = webhooks.NewWebhook(key)
				}
				verified, id = wh.Verify(raw, r.Header), r.Header.Get("webhook-id")
				forged = wh.Verify(bytes.Replace(raw, []byte("r42"), []byte("r43"), 1), r.Header)
			}))
			defer srv.Close()
			sent, err := sender(t, srv.URL, func(c *Config) { c.WebhookSecret = key }).Send(context.Background(), tasks.Alone("msg-1"), nasty)
			if err != nil || sent.Status != 200 || id != "msg-1" {
				t.Errorf("sent %+v as %q, %v", sent, id, err)
			}
			if verified != nil || forged == nil {
				t.Errorf("the message: %v; a forged one: %v", verified, forged)
			}
		})
	}
}

// TestAnswers: what may succeed later is tried again, what cannot is not; neither tells where the
// receiver is.
func TestAnswers(t *testing.T) {
	for status, final := range map[int]bool{
		200: false, 204: false, 301: true, 302: true, 400: true, 401: true, 404: true, 410: true,
		408: false, 425: false, 429: false, 500: false, 503: false,
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://127.0.0.1:1/elsewhere")
			w.WriteHeader(status)
		}))
		_, err := sender(t, srv.URL+"/T0KEN", nil).Send(context.Background(), tasks.Alone("m"), nasty)
		srv.Close()
		if (err == nil) != (status < 300) || errors.Is(err, tasks.ErrRefused) != final {
			t.Errorf("%d: %v", status, err)
		}
		if err != nil && strings.Contains(err.Error(), "T0KEN") {
			t.Errorf("%d: the error tells the address: %v", status, err)
		}
	}
	gone := httptest.NewServer(nil)
	gone.Close()
	_, err := sender(t, gone.URL+"/T0KEN", nil).Send(context.Background(), tasks.Alone("m"), nasty)
	if err == nil || errors.Is(err, tasks.ErrRefused) || strings.Contains(err.Error(), "T0KEN") {
		t.Errorf("nobody there: %v", err)
	}
	if _, err := sender(t, "", nil).Send(context.Background(), tasks.Alone("m"), nasty); !errors.Is(err, tasks.ErrRefused) {
		t.Errorf("no address: %v", err)
	}
}

// TestHangs: a receiver that takes the message and says nothing costs the timeout, no more.
func TestHangs(t *testing.T) {
	end := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-end }))
	defer srv.Close()
	defer close(end)
	s := sender(t, srv.URL+"/T0KEN", nil)
	s.http.Timeout = 50 * time.Millisecond
	_, err := s.Send(context.Background(), tasks.Alone("m"), nasty)
	if err == nil || errors.Is(err, tasks.ErrRefused) || strings.Contains(err.Error(), "T0KEN") {
		t.Errorf("got %v", err)
	}
}

func TestConfigValidate(t *testing.T) {
	good := Config{WebhookURL: "https://chat.example/hooks/T0KEN", WebhookSecret: secret, WebhookFormat: Slack, WebhookTimeout: 10 * time.Second}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Config){
		"STOKER_WEBHOOK_URL":                 func(c *Config) { c.WebhookURL = "chat.example/T0KEN" },
		"STOKER_WEBHOOK_SECRET has 6":        func(c *Config) { c.WebhookSecret = "T0KEN!" },
		"STOKER_WEBHOOK_SECRET begins":       func(c *Config) { c.WebhookSecret = "whsec_T0KEN!" },
		`STOKER_WEBHOOK_FORMAT "telegram"`:   func(c *Config) { c.WebhookFormat = "telegram" },
		"STOKER_WEBHOOK_TIMEOUT 1m0s":        func(c *Config) { c.WebhookTimeout = time.Minute },
		"STOKER_WEBHOOK_TIMEOUT 0s: use 1s ": func(c *Config) { c.WebhookTimeout = 0 },
	} {
		cfg := good
		change(&cfg)
		err := cfg.Validate()
		if !errors.Is(err, tasks.ErrInvalid) || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "T0KEN") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
