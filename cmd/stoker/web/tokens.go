package web

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/alphanode/stoker/tasks"
)

// Scope says what a token is good for.
type Scope string

// The scopes. Operate includes the others; invalidate is for app servers and shows nothing but what
// became of a call.
const (
	View       Scope = "view"
	Operate    Scope = "operate"
	Invalidate Scope = "invalidate"
)

// signedIn is asked for where any token will do.
const signedIn Scope = ""

// allows reports whether holding s is enough where need is asked for.
func (s Scope) allows(need Scope) bool { return s == need || s == Operate || need == signedIn }

// token is one line of the tokens file. The secret itself is kept nowhere.
type token struct {
	name  string
	scope Scope
	sum   [sha256.Size]byte
}

// fingerprint names a token where its hash should not stand.
func (t token) fingerprint() string { return digest(string(t.sum[:])) }

var tokenName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

// readTokens reads a tokens file.
func readTokens(path string) ([]token, error) {
	raw, err := readSecret("STOKER_WEB_TOKENS_FILE", path)
	if err != nil {
		return nil, err
	}
	found, err := parseTokens(string(raw))
	if err != nil {
		return nil, fmt.Errorf("tokens file %q: %w", path, err)
	}
	return found, nil
}

// readSecret reads a file of secrets, which must not be readable by every user of the machine.
func readSecret(setting, path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %v (%s)", tasks.ErrInvalid, err, setting)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("%w: %q has mode %04o, open to every user of the machine: chmod 640 it, or less (%s)", tasks.ErrInvalid, path, info.Mode().Perm(), setting)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %v (%s)", tasks.ErrInvalid, err, setting)
	}
	return raw, nil
}

// parseTokens reads lines of "name scope sha256:hex"; empty lines and those that begin with #
// are skipped. Errors name the line and never repeat its third field, which may be a token that
// somebody forgot to hash.
func parseTokens(text string) ([]token, error) {
	var found []token
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		t, err := parseToken(line)
		if err == nil && slices.ContainsFunc(found, func(o token) bool { return o.name == t.name }) {
			err = fmt.Errorf("name %q is taken by a line above", t.name)
		}
		if err == nil && slices.ContainsFunc(found, func(o token) bool { return o.sum == t.sum }) {
			err = fmt.Errorf("the same token as a line above: give %q its own", t.name)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", tasks.ErrInvalid, number, err)
		}
		found = append(found, t)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%w: no token in it, so nobody could sign in: add a line such as \"ann operate sha256:<hex>\"", tasks.ErrInvalid)
	}
	return found, nil
}

func parseToken(line string) (token, error) {
	fields := strings.Fields(line)
	if len(fields) != 3 {
		return token{}, fmt.Errorf("want 3 fields \"name scope sha256:hex\", found %d", len(fields))
	}
	t := token{name: fields[0], scope: Scope(fields[1])}
	if !tokenName.MatchString(t.name) {
		return token{}, fmt.Errorf("name %q: use 1 to 64 of letters, digits, '.', '_', '@' and '-'", t.name)
	}
	if !slices.Contains([]Scope{View, Operate, Invalidate}, t.scope) {
		return token{}, fmt.Errorf("scope %q: use view, operate or invalidate", t.scope)
	}
	digest, ok := strings.CutPrefix(fields[2], "sha256:")
	sum, err := hex.DecodeString(digest)
	if !ok || err != nil || len(sum) != sha256.Size {
		return token{}, fmt.Errorf("the token of %q must stand there as sha256: and 64 hex digits, as `printf %%s \"$TOKEN\" | sha256sum` prints them", t.name)
	}
	copy(t.sum[:], sum)
	return t, nil
}

// matchToken returns the token with that secret and, unless name is "", that name. It looks at
// every token for the same time, whichever matches.
func matchToken(known []token, name, secret string) (match token, ok bool) {
	sum := sha256.Sum256([]byte(secret))
	for _, t := range known {
		same := subtle.ConstantTimeCompare(sum[:], t.sum[:])
		if name != "" {
			same &= subtle.ConstantTimeCompare([]byte(name), []byte(t.name))
		}
		if same == 1 {
			match, ok = t, true
		}
	}
	return match, ok
}
