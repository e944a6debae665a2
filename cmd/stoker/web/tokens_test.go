package web

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
)

func TestConfigValidate(t *testing.T) {
	tests := []struct {
		addr, tokens string
		ok           bool
	}{
		{"127.0.0.1:8080", "", true},
		{"localhost:8080", "", true},
		{"[::1]:8080", "", true},
		{"0.0.0.0:8080", "", false},
		{":8080", "", false},
		{"[::]:8080", "", false},
		{"192.0.2.1:8080", "", false},
		{"console.example:8080", "", false},
		{"0.0.0.0:8080", "tokens", true},
		{"127.0.0.1", "", false},
		{"", "tokens", false},
	}
	for _, tt := range tests {
		err := Config{WebAddr: tt.addr, WebTokensFile: tt.tokens, WebSession: time.Hour}.Validate()
		if (err == nil) != tt.ok {
			t.Errorf("address %q, tokens %q: %v", tt.addr, tt.tokens, err)
		}
		if err != nil && (!errors.Is(err, tasks.ErrInvalid) || !strings.Contains(err.Error(), "STOKER_WEB_")) {
			t.Errorf("address %q: error %q should be invalid input and name the setting", tt.addr, err)
		}
	}
}

func TestParseTokensNamesTheLine(t *testing.T) {
	const sum = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
	const other = "sha256:fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9"
	tests := []struct{ text, want string }{
		{"# a comment\n\nann operate " + sum + "\nben", "line 4: want 3 fields"},
		{"ann operate " + sum + " extra", "line 1: want 3 fields"},
		{"ann admin " + sum, `line 1: scope "admin": use view, operate or invalidate`},
		{"a/b view " + sum, `line 1: name "a/b"`},
		{"ann view hunter2-in-clear", "line 1: the token of \"ann\" must stand there as sha256:"},
		{"ann view sha256:abcd", "line 1: the token of \"ann\""},
		{"ann view " + sum + "\r\nann operate " + other, `line 2: name "ann" is taken`},
		{"ann view " + sum + "\nben operate " + sum, "line 2: the same token"},
		{"# nobody\n", "no token in it"},
	}
	for _, tt := range tests {
		_, err := parseTokens(tt.text)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !errors.Is(err, tasks.ErrInvalid) {
			t.Errorf("%q: error %v, want one with %q", tt.text, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error repeats a token: %v", err)
		}
	}
	got, err := parseTokens("  ann\toperate " + sum + "  \r\nben view " + other)
	if err != nil || len(got) != 2 || got[0].name != "ann" || got[1].scope != View {
		t.Errorf("two tokens: %v, %v", got, err)
	}
	if _, ok := matchToken(got, "ann", "foo"); !ok {
		t.Error("the token of ann does not match")
	}
}

func TestTokensFileOpenToAll(t *testing.T) {
	path := tokensFile(t)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, filepath.Join(t.TempDir(), "absent")} {
		if _, err := New(Deps{}, Config{WebAddr: "127.0.0.1:0", WebTokensFile: p, WebSession: time.Hour}); !errors.Is(err, tasks.ErrInvalid) {
			t.Errorf("tokens file %q: %v, want invalid input", p, err)
		}
	}
}

func FuzzParseTokens(f *testing.F) {
	f.Add("ann operate sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae\n")
	f.Add("# comment\r\n\x00")
	f.Fuzz(func(t *testing.T, text string) {
		found, err := parseTokens(text)
		if (err == nil) != (len(found) > 0) {
			t.Errorf("%d tokens and error %v", len(found), err)
		}
	})
}
