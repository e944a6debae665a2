package web

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/alphanode/stoker/tasks"
)

// maxCalls bounds a batch; a stream has no such bound.
const maxCalls = 1_000

// callReader reads calls from JSON more strictly than package json does: a member given twice, in
// other letters or with mangled text would drop a target without a word, and what it names would
// stay in the cache. Its errors are problems.
type callReader struct {
	dec     *json.Decoder
	targets int // read so far, of all calls
}

func newCallReader(raw []byte) (*callReader, error) {
	if !utf8.Valid(raw) {
		return nil, malformed("The body is not UTF-8: send such a key as key_base64, tag_base64 or prefix_base64.")
	}
	if err := json.Unmarshal(raw, new(json.RawMessage)); err != nil {
		return nil, malformed("The body is not JSON: %v.", err)
	}
	return &callReader{dec: json.NewDecoder(bytes.NewReader(raw))}, nil
}

// readBody reads one call, or a batch {"calls": […]}; batch tells which. The calls have no actor yet.
func readBody(raw []byte) (calls []tasks.Invalidation, batch bool, err error) {
	r, err := newCallReader(raw)
	if err != nil {
		return nil, false, err
	}
	var one tasks.Invalidation
	single := false
	err = r.object("the body", func(name string) error {
		if name == "calls" {
			batch = true
			return r.array("calls", maxCalls, func(what string) error {
				call, err := r.call(what)
				calls = append(calls, call)
				return err
			})
		}
		single = true
		return r.callMember(&one, "", name)
	})
	switch {
	case err != nil:
		return nil, false, err
	case batch && single:
		return nil, false, malformed(`The body has calls and members of a call: send {"calls": […]} with nothing beside it.`)
	case batch && len(calls) == 0:
		return nil, false, invalid("calls is empty: send at least one.")
	case !batch:
		calls = []tasks.Invalidation{one}
		err = needTargets("the body", one)
	}
	return calls, batch, err
}

// readLine reads one call of a stream.
func readLine(raw []byte) (tasks.Invalidation, error) {
	r, err := newCallReader(raw)
	if err != nil {
		return tasks.Invalidation{}, err
	}
	return r.call("the call")
}

func (r *callReader) call(what string) (c tasks.Invalidation, err error) {
	err = r.object(what, func(name string) error { return r.callMember(&c, what+".", name) })
	if err == nil {
		err = needTargets(what, c)
	}
	return c, err
}

func needTargets(what string, c tasks.Invalidation) error {
	if len(c.Targets) == 0 {
		return invalid(`%s names no target: add "targets": [{"key": "…"}], with key, tag or prefix.`, what)
	}
	return nil
}

func (r *callReader) callMember(c *tasks.Invalidation, path, name string) (err error) {
	switch name {
	case "targets":
		return r.array(path+"targets", tasks.MaxTargets, func(what string) error {
			if r.targets++; r.targets > tasks.MaxTargets {
				return invalid("More than %d targets in one request: use a tag, several requests, or a stream (Content-Type: %s).", tasks.MaxTargets, streamType)
			}
			t, err := r.target(what)
			c.Targets = append(c.Targets, t)
			return err
		})
	case "reason":
		c.Reason, err = r.text(path + "reason")
		return err
	case "refresh":
		c.Refresh, err = r.flag(path + "refresh")
		return err
	case "actor":
		return malformed("%sactor is not for the client to say: it is the token's name. Leave it out.", path)
	default:
		return malformed("%s%s is unknown: a call has targets, refresh and reason, a batch has calls.", path, name)
	}
}

// target reads {"key": "…"} and its like: exactly one member.
func (r *callReader) target(what string) (t tasks.Target, err error) {
	members := 0
	err = r.object(what, func(name string) error {
		kind, encoded := strings.CutSuffix(name, "_base64")
		switch tasks.Kind(kind) {
		case tasks.KindKey, tasks.KindTag, tasks.KindPrefix:
		default:
			return malformed("%s.%s is unknown: a target has one of key, tag, prefix, key_base64, tag_base64, prefix_base64.", what, name)
		}
		value, err := r.text(what + "." + name)
		if err != nil {
			return err
		}
		if encoded {
			raw, err := base64.StdEncoding.Strict().DecodeString(value)
			if err != nil {
				return invalid("%s.%s %q is not base64: use the standard alphabet with padding.", what, name, value)
			}
			value = string(raw)
		}
		members++
		t = tasks.Target{Kind: tasks.Kind(kind), Name: tasks.Bytes(value)}
		return nil
	})
	switch {
	case err != nil:
		return t, err
	case members != 1:
		return t, invalid("%s has %d members: give exactly one of key, tag, prefix or their _base64; make another target of each.", what, members)
	}
	if err := t.Validate(); err != nil {
		return t, fmt.Errorf("%s: %w", what, err)
	}
	return t, nil
}

// object reads an object, member by member.
func (r *callReader) object(what string, member func(name string) error) error {
	if err := r.open('{', what, "an object"); err != nil {
		return err
	}
	seen := map[string]bool{}
	for r.dec.More() {
		token, err := r.dec.Token()
		if err != nil {
			return malformed("The body is not JSON: %v.", err)
		}
		name := token.(string) // json.Decoder gives no other in this place
		if seen[name] {
			return malformed("%s has %q twice: give it once.", what, name)
		}
		seen[name] = true
		if err := member(name); err != nil {
			return err
		}
	}
	return r.close()
}

// array reads an array of up to limit items, item by item.
func (r *callReader) array(what string, limit int, item func(what string) error) error {
	if err := r.open('[', what, "an array"); err != nil {
		return err
	}
	for i := 0; r.dec.More(); i++ {
		if i == limit {
			return invalid("%s has over %d items: send several requests, or a stream (Content-Type: %s).", what, limit, streamType)
		}
		if err := item(fmt.Sprintf("%s[%d]", what, i)); err != nil {
			return err
		}
	}
	return r.close()
}

func (r *callReader) open(want json.Delim, what, kind string) error {
	token, err := r.dec.Token()
	if err != nil || token != want {
		return malformed("%s must be %s.", what, kind)
	}
	return nil
}

func (r *callReader) close() error {
	if _, err := r.dec.Token(); err != nil {
		return malformed("The body is not JSON: %v.", err)
	}
	return nil
}

// text reads a string. Package json puts U+FFFD for half a surrogate pair, which is how some
// languages write bytes that are not UTF-8: the name would be another's.
func (r *callReader) text(what string) (string, error) {
	var raw json.RawMessage
	var s string
	if err := r.dec.Decode(&raw); err != nil || raw[0] != '"' || json.Unmarshal(raw, &s) != nil {
		return "", malformed("%s must be a string, not %.40s.", what, raw)
	}
	if halfPair(raw) {
		return "", malformed("%s %s holds half of a surrogate pair, which is no text: send it as base64 (%s_base64).", what, raw, what)
	}
	return s, nil
}

// flag reads true or false.
func (r *callReader) flag(what string) (bool, error) {
	token, err := r.dec.Token()
	on, ok := token.(bool)
	if err != nil || !ok {
		return false, malformed("%s must be true or false.", what)
	}
	return on, nil
}

// halfPair reports whether a JSON string holds a \u escape of half a surrogate pair.
func halfPair(raw []byte) bool {
	unit := func(at int) rune { // of the escape that begins there, 0 for none
		if at+6 > len(raw) || raw[at] != '\\' || raw[at+1] != 'u' {
			return 0
		}
		n, _ := strconv.ParseUint(string(raw[at+2:at+6]), 16, 16) // JSON has been checked
		return rune(n)
	}
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		switch first := unit(i); {
		case !utf16.IsSurrogate(first):
			i++ // the escaped character may be a backslash
		case utf16.DecodeRune(first, unit(i+6)) == utf8.RuneError:
			return true
		default:
			i += 11
		}
	}
	return false
}
