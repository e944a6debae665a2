package tasks

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// Bytes is a key, tag or prefix: any bytes at all. In JSON it is a plain string where it is
// printable UTF-8 and {"base64": "…"} where it is not, so that payloads stay readable and no
// client's key is mangled.
type Bytes string

type encodedBytes struct {
	Base64 *string `json:"base64"`
}

// MarshalJSON implements [json.Marshaler].
func (b Bytes) MarshalJSON() ([]byte, error) {
	if printable(string(b)) {
		return json.Marshal(string(b))
	}
	s := base64.StdEncoding.EncodeToString([]byte(b))
	return json.Marshal(encodedBytes{&s})
}

// UnmarshalJSON implements [json.Unmarshaler].
func (b *Bytes) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		var s string
		if err := json.Unmarshal(data, &s); err != nil {
			return err
		}
		*b = Bytes(s)
		return nil
	}
	var e encodedBytes
	if err := json.Unmarshal(data, &e); err != nil {
		return err
	}
	if e.Base64 == nil {
		return fmt.Errorf(`%w: bytes: want a string or {"base64": "…"}, got %.40q`, ErrInvalid, data)
	}
	raw, err := base64.StdEncoding.DecodeString(*e.Base64)
	if err != nil {
		return fmt.Errorf("%w: bytes: %v", ErrInvalid, err)
	}
	*b = Bytes(raw)
	return nil
}

// String shows the bytes to a person: as they are where printable, quoted where not.
func (b Bytes) String() string {
	if printable(string(b)) {
		return string(b)
	}
	return fmt.Sprintf("%+q", string(b))
}

func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}
