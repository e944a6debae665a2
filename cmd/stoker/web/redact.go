package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"unicode/utf8"
)

// Limits of what is shown of one payload, result or document.
const (
	maxShown    = 16 << 10 // bytes in all
	maxString   = 1_000    // bytes of one string
	maxElements = 50       // of one list or object
)

const hidden = "***"

var (
	secretName = regexp.MustCompile(`(?i)token|secret|passw|passphrase|authorization|cookie|credential|api[_-]?key|private[_-]?key|(^|_)(pwd|dsn|auth)$`)
	// Inside a longer text: the part between // and @ of a URL, the value after a telling name,
	// what an Authorization header holds.
	secretURL   = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)[^/?#\s"']*@`)
	secretPair  = regexp.MustCompile(`(?i)\b((?:[a-z0-9]+[_-])*(?:password|passwd|pwd|secret|token|api[_-]?key|signature)["']?\s*[=:]\s*)("[^"]*"|'[^']*'|[^\s&;,"']+)`)
	secretToken = regexp.MustCompile(`(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}`)
)

// redact returns what may be shown of a payload, a result or a document: JSON stays JSON, in its
// order, without the values of telling names and with long strings and lists cut; other text is
// cut; bytes that are no text are only counted.
func redact(raw []byte) string {
	if len(raw) == 0 {
		return ""
	}
	var out bytes.Buffer
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	switch {
	case json.Valid(raw) && redactValue(dec, &out, false) == nil:
		return cut(out.String(), maxShown)
	case utf8.Valid(raw):
		return cut(redactText(string(raw)), maxShown)
	}
	return fmt.Sprintf("(%d bytes that are no text)", len(raw))
}

// redactValue copies the decoder's next value; with hide its strings and numbers are hidden.
func redactValue(dec *json.Decoder, out *bytes.Buffer, hide bool) error {
	t, err := dec.Token()
	if err != nil {
		return err
	}
	if open, ok := t.(json.Delim); ok {
		return redactElements(dec, out, open == '{', hide)
	}
	switch v := t.(type) {
	case string:
		t = cut(redactText(v), maxString)
		if hide {
			t = hidden
		}
	case json.Number:
		if hide {
			t = hidden
		}
	}
	return writeJSON(out, t)
}

// redactElements copies the rest of an object or a list, the first [maxElements] of it.
func redactElements(dec *json.Decoder, out *bytes.Buffer, object, hide bool) error {
	ends := "[]"
	if object {
		ends = "{}"
	}
	out.WriteByte(ends[0])
	shown, left := 0, 0
	for dec.More() {
		name := ""
		if object {
			t, err := dec.Token()
			if err != nil {
				return err
			}
			name, _ = t.(string) // the name of a member is always a string
		}
		if shown == maxElements {
			var skipped json.RawMessage
			if err := dec.Decode(&skipped); err != nil {
				return err
			}
			left++
			continue
		}
		if err := redactElement(dec, out, object, name, hide, shown); err != nil {
			return err
		}
		shown++
	}
	if left > 0 {
		more := fmt.Sprintf(`,"… %d more"`, left)
		if object {
			more = fmt.Sprintf(`,"…":"%d more"`, left)
		}
		out.WriteString(more)
	}
	out.WriteByte(ends[1])
	_, err := dec.Token()
	return err
}

func redactElement(dec *json.Decoder, out *bytes.Buffer, object bool, name string, hide bool, before int) error {
	if before > 0 {
		out.WriteByte(',')
	}
	if object {
		if err := writeJSON(out, cut(redactText(name), maxString)); err != nil {
			return err
		}
		out.WriteByte(':')
		hide = hide || secretName.MatchString(name)
	}
	return redactValue(dec, out, hide)
}

// redactText hides what is secret inside a text.
func redactText(s string) string {
	s = secretURL.ReplaceAllString(s, "${1}"+hidden+"@")
	s = secretToken.ReplaceAllString(s, "$1 "+hidden)
	return secretPair.ReplaceAllString(s, "${1}"+hidden)
}

// cut shortens a text to about most bytes and says how long it was.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	end := most
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return fmt.Sprintf("%s… (%d bytes)", s[:end], len(s))
}

func writeJSON(out *bytes.Buffer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	out.Truncate(out.Len() - 1) // the encoder's newline
	return nil
}
