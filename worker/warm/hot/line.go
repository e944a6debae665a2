package hot

import (
	"bytes"
	"strconv"
)

// ownAgent begins the User-Agent of everything that stoker asks a site for.
const ownAgent = "stoker/"

// maxPath bounds a path in bytes: what is longer is nobody's page.
const maxPath = 2048

// request is what a line of an access log tells.
type request struct {
	method, path, agent []byte
	status              int
}

// wanted reports whether the request is one of a visitor who got a page.
func (r request) wanted() bool {
	return string(r.method) == "GET" && (r.status >= 200 && r.status < 300 || r.status == 304) &&
		len(r.path) > 0 && r.path[0] == '/' && len(r.path) <= maxPath && !bytes.HasPrefix(r.agent, []byte(ownAgent))
}

// timeLayout has the length and the fixed characters of a line's time, such as
// [10/Oct/2000:13:55:36 -0700]; d is a digit, a any character.
const timeLayout = ` [dd/aaa/dddd:dd:dd:dd adddd] "`

// parseLine reads a line in common or combined format: host, identity and user, whatever they are, the
// time in brackets, the request in quotes, status and size; in combined format referrer and user agent
// follow in quotes. What comes after is ignored. false when the line is of another format.
func parseLine(line []byte) (request, bool) {
	var r request
	rest := afterTime(line)
	asked, rest, ok := quoted(rest)
	if !ok {
		return r, false
	}
	var code, size []byte
	if code, rest, ok = field(rest); !ok || len(code) != 3 {
		return r, false
	}
	if size, rest, ok = field(rest); !ok || !number(size) {
		return r, false
	}
	status, err := strconv.Atoi(string(code))
	if err != nil {
		return r, false
	}
	r.status = status
	if method, path, ok := bytes.Cut(asked, []byte(" ")); ok {
		if path, version, ok := bytes.Cut(path, []byte(" ")); ok && bytes.HasPrefix(version, []byte("HTTP/")) {
			r.method, r.path = method, path
		}
	}
	if rest, ok = bytes.CutPrefix(rest, []byte(` "`)); ok {
		if _, rest, ok = quoted(rest); ok && bytes.HasPrefix(rest, []byte(` "`)) {
			r.agent, _, _ = quoted(rest[2:])
		}
	}
	return r, true
}

// afterTime returns what follows the time and the quote that opens the request; nil without a time.
func afterTime(line []byte) []byte {
	for from := 0; ; {
		i := bytes.Index(line[from:], []byte(" ["))
		if i < 0 {
			return nil
		}
		at := from + i
		if matches(line[at:], timeLayout) {
			return line[at+len(timeLayout):]
		}
		from = at + 1
	}
}

func matches(text []byte, layout string) bool {
	if len(text) < len(layout) {
		return false
	}
	for i := range len(layout) {
		switch c := text[i]; layout[i] {
		case 'd':
			if c < '0' || c > '9' {
				return false
			}
		case 'a':
		default:
			if c != layout[i] {
				return false
			}
		}
	}
	return true
}

// quoted returns the text up to the quote that ends it, with what servers escape restored, and the rest.
func quoted(text []byte) (inner, rest []byte, ok bool) {
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			return unescape(text[:i]), text[i+1:], true
		case '\\':
			i++
		}
	}
	return nil, nil, false
}

// unescape restores \", \\ and \xHH. Text without a backslash is returned as it is.
func unescape(text []byte) []byte {
	if bytes.IndexByte(text, '\\') < 0 {
		return text
	}
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' || i+1 == len(text) {
			out = append(out, text[i])
			continue
		}
		i++
		if text[i] == 'x' && i+2 < len(text) {
			if n, err := strconv.ParseUint(string(text[i+1:i+3]), 16, 8); err == nil {
				out = append(out, byte(n))
				i += 2
				continue
			}
		}
		out = append(out, text[i])
	}
	return out
}

// field returns the word after a space, and the rest.
func field(text []byte) (word, rest []byte, ok bool) {
	if len(text) == 0 || text[0] != ' ' {
		return nil, nil, false
	}
	text = text[1:]
	if i := bytes.IndexByte(text, ' '); i >= 0 {
		return text[:i], text[i:], true
	}
	return text, nil, true
}

// number reports whether text is a size: digits, or the - of none.
func number(text []byte) bool {
	if string(text) == "-" {
		return true
	}
	for _, c := range text {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(text) > 0
}
