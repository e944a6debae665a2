package freshness

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/alphanode/stoker/tasks"
)

// differs compares an entry with the origin's, and returns its print when they differ.
func (h held) differs(a Answer) (bool, string) {
	if a.Entry.Type != tasks.EntryString || h.print == "" && h.text == a.Entry.Value {
		return false, ""
	}
	print := h.print
	if print == "" {
		print = printOf(h.text)
	}
	return print != printOf(a.Entry.Value), print
}

// printOf is a fingerprint of a value. Two JSON objects or arrays that say the same have the same,
// whatever the order of their fields and the space between them.
func printOf(value string) string {
	if same, ok := canonical(value); ok {
		value = same
	}
	return fmt.Sprintf("%016x", xxhash.Sum64String(value))
}

// canonical rewrites a JSON object or array; false for anything else.
func canonical(value string) (string, bool) {
	trimmed := strings.TrimLeft(value, " \t\r\n")
	if trimmed == "" || trimmed[0] != '{' && trimmed[0] != '[' || !json.Valid([]byte(value)) {
		return "", false
	}
	dec := json.NewDecoder(strings.NewReader(value))
	dec.UseNumber() // as it is written: a large number must not lose digits
	var v any
	if dec.Decode(&v) != nil {
		return "", false
	}
	var out bytes.Buffer
	if json.NewEncoder(&out).Encode(v) != nil {
		return "", false
	}
	return out.String(), true
}
