package tasks

import (
	"crypto/sha1"
	_ "embed"
	"encoding/hex"
	"strings"
)

const (
	// digestChars is how much of a value's SHA-1 its companion holds. It guards against
	// accidents: whoever can write to the cache needs no collision to harm it.
	digestChars = 16
	// maxCompanion is the size in bytes above which a value has no companion: a removal that
	// looks at one reads the value, inside the server.
	maxCompanion = 64 << 10
)

// CompanionLua defines what scripts know of companions; it goes before their own text.
//
//go:embed companion.lua
var CompanionLua string

// Companion returns what is to be kept under [CompanionKey] beside a value that is put with
// tags, or "" for nothing. It says which tags the value has, so that an invalidation of a
// tag the entry had before leaves it alone.
//
// It counts only for the very value it was written for: the value's SHA-1, and the
// expiry, to the millisecond, that entry and companion share, must both agree. A value that
// somebody else puts, changes in place, copies or keeps longer is therefore removed by every
// tag it is listed under, and it does not matter in which order entry and companion are
// written, or whether the companion is lost. An entry without expiry has none: there the
// value alone would have to tell two writers apart.
//
// The form is the first 16 hex digits of the SHA-1, a line feed, and each tag with a line feed
// behind it.
func Companion(value string, expiresAt int64, tags []string) string {
	if len(tags) == 0 || expiresAt <= 0 || len(value) > maxCompanion {
		return ""
	}
	sum := sha1.Sum([]byte(value))
	return hex.EncodeToString(sum[:])[:digestChars] + "\n" + strings.Join(tags, "\n") + "\n"
}
