package tasks

import (
	"fmt"
	"regexp"
	"strings"
)

// DefaultTemplate is the key template of an app that names none.
const DefaultTemplate = "<app>:<release>:<key>"

// Reserved begins every logical key that belongs to stoker rather than to the site.
const Reserved = "#"

const (
	tagPrefix   = Reserved + "tag:"
	leasePrefix = Reserved + "lease:"
	ofPrefix    = Reserved + "of:"

	listingPrefix = Reserved + "listed:"
)

// TagIndex returns the logical key of a tag's index: a ZSET of logical keys, scored by the
// entry's expiry in Unix milliseconds (+inf without one).
func TagIndex(tag string) string { return tagPrefix + tag }

// TagPrefix begins the logical keys of all tag indexes.
func TagPrefix() string { return tagPrefix }

// TagOf returns the tag whose index has this logical key.
func TagOf(logical string) (tag string, ok bool) { return strings.CutPrefix(logical, tagPrefix) }

// LeaseKey returns the logical key under which one loader at a time leases a missing entry.
func LeaseKey(logical string) string { return leasePrefix + logical }

// IsLease reports whether a logical key is a loader's lease: leases are never copied or archived.
func IsLease(logical string) bool { return strings.HasPrefix(logical, leasePrefix) }

// CompanionKey returns the logical key of an entry's companion; see [Companion].
func CompanionKey(logical string) string { return ofPrefix + logical }

// Template maps a release and a logical key to a key of the cache Redis. The zero value is
// not usable; make one with [ParseTemplate]. It is immutable and safe for concurrent use.
type Template struct {
	text                string
	before, sep, suffix string // before <release> sep <key> suffix
}

// idSafe matches a string all of whose characters may stand in a release ID.
var idSafe = regexp.MustCompile(`^[A-Za-z0-9._-]*$`)

// ParseTemplate reads a template such as "<app>:<release>:<key>" or, for Redis Cluster,
// "<app>:<release>:{<key>}". It refuses one where the part between release and key holds only
// characters that an ID may contain: there, one release's prefix could cover another's (r1, r10).
func ParseTemplate(text, app string) (Template, error) {
	bad := func(why string) (Template, error) {
		return Template{}, fmt.Errorf("%w: key template %q: %s; for example %q (STOKER_KEY_TEMPLATE)", ErrInvalid, text, why, DefaultTemplate)
	}
	if strings.Count(text, "<release>") != 1 || strings.Count(text, "<key>") != 1 {
		return bad("it must hold <release> and <key> once each")
	}
	before, rest, _ := strings.Cut(strings.ReplaceAll(text, "<app>", app), "<release>")
	sep, suffix, ok := strings.Cut(rest, "<key>")
	if !ok {
		return bad("<key> must come after <release>")
	}
	if idSafe.MatchString(sep) {
		return bad(fmt.Sprintf("between <release> and <key> stands %q, which a release ID may contain, so one release's keys could pass for another's: add a character such as ':'", sep))
	}
	if strings.Contains(suffix, "<") || strings.Contains(before, "<") || strings.Contains(sep, "<") {
		return bad("it may hold <app>, <release> and <key> only")
	}
	if strings.HasPrefix(before+"\x00", "stoker:{") {
		return bad("keys that begin with stoker:{ are stoker's own")
	}
	return Template{text: text, before: before, sep: sep, suffix: suffix}, nil
}

// String returns the template as it was given.
func (t Template) String() string { return t.text }

// Prefix returns what every key of the release begins with. It is never empty.
func (t Template) Prefix(release string) string { return t.before + release + t.sep }

// Suffix returns what every key of the app ends with: "" unless the template wraps the key.
func (t Template) Suffix() string { return t.suffix }

// Key returns the key of the cache Redis that holds the release's entry.
func (t Template) Key(release, logical string) string {
	return t.before + release + t.sep + logical + t.suffix
}

// Logical returns the logical key of a key of the cache Redis, or ok = false when the key is
// not one of the release's.
func (t Template) Logical(release, key string) (logical string, ok bool) {
	rest, ok := strings.CutPrefix(key, t.Prefix(release))
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, t.suffix)
}

// Match returns the MATCH pattern of SCAN for the release's logical keys that begin with
// prefix ("" for all of them); glob characters in IDs and keys are escaped.
func (t Template) Match(release, prefix string) string {
	return EscapeGlob(t.Prefix(release)+prefix) + "*" + EscapeGlob(t.suffix)
}

// EscapeGlob quotes the characters that Redis's MATCH gives a meaning.
func EscapeGlob(s string) string {
	return globEscaper.Replace(s)
}

var globEscaper = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`)
