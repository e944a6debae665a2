package snapshot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/alphanode/stoker/tasks"
)

// typeCodes are the types as they stand in a block: the index is the code.
var typeCodes = [...]string{
	1: tasks.EntryString,
	2: tasks.EntryHash,
	3: tasks.EntryList,
	4: tasks.EntrySet,
	5: tasks.EntryZSet,
	6: tasks.EntryDump,

	codeFields: tasks.EntryHash,
}

// codeFields is the type of a hash some of whose fields expire, from format version 2 on.
const codeFields = 7

func codeOf(e tasks.Entry) byte {
	if len(e.FieldsExpireAt) > 0 {
		return codeFields
	}
	return byte(slices.Index(typeCodes[:], e.Type))
}

func single(entryType string) bool {
	return entryType == tasks.EntryString || entryType == tasks.EntryDump
}

// appendEntry adds a valid entry to a block's raw body.
func appendEntry(b []byte, e tasks.Entry) []byte {
	b = appendString(b, e.Key)
	b = append(b, codeOf(e))
	b = binary.AppendUvarint(b, uint64(e.ExpiresAt))
	if single(e.Type) {
		return appendString(b, e.Value)
	}
	if len(e.FieldsExpireAt) > 0 {
		b = binary.AppendUvarint(b, uint64(len(e.FieldsExpireAt)))
		for i, at := range e.FieldsExpireAt {
			b = appendString(b, e.Items[2*i])
			b = appendString(b, e.Items[2*i+1])
			b = binary.AppendUvarint(b, uint64(at))
		}
		return b
	}
	b = binary.AppendUvarint(b, uint64(len(e.Items)))
	for _, it := range e.Items {
		b = appendString(b, it)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// entrySize is an upper bound of what appendEntry adds.
func entrySize(e tasks.Entry) int {
	return e.Size() + itemSize*(len(e.Items)+len(e.FieldsExpireAt)+4)
}

// parser reads a block's raw body. The entries' strings are parts of text, so that a block
// costs one allocation for all of its bytes.
type parser struct {
	text string
	pos  int
	old  bool // of format version 1, which has no codeFields
}

// entries reads exactly n entries, which must end where the body ends.
func (p *parser) entries(n int) ([]tasks.Entry, error) {
	if n > len(p.text)/minEntry {
		return nil, fmt.Errorf("%d entries in %d bytes", n, len(p.text))
	}
	out := make([]tasks.Entry, 0, n)
	for i := range n {
		e, err := p.entry()
		if err == nil {
			err = e.Validate()
		}
		if err != nil {
			return nil, fmt.Errorf("entry %d of %d at byte %d of the block: %w", i+1, n, p.pos, err)
		}
		out = append(out, e)
	}
	if p.pos != len(p.text) {
		return nil, fmt.Errorf("%d bytes left after the last of %d entries", len(p.text)-p.pos, n)
	}
	return out, nil
}

func (p *parser) entry() (e tasks.Entry, err error) {
	if e.Key, err = p.string(); err != nil {
		return e, err
	}
	if p.pos == len(p.text) {
		return e, errShort
	}
	code := p.text[p.pos]
	p.pos++
	if int(code) >= len(typeCodes) || code == 0 || p.old && code == codeFields {
		return e, fmt.Errorf("unknown type %d", code)
	}
	e.Type = typeCodes[code]
	expiry, err := p.uvarint(1<<63 - 1)
	if err != nil {
		return e, err
	}
	e.ExpiresAt = int64(expiry)
	if single(e.Type) {
		e.Value, err = p.string()
		return e, err
	}
	// An item takes a byte at least, so more items than bytes left is a lie.
	n, err := p.uvarint(uint64(min(len(p.text)-p.pos, maxItems)))
	if err != nil {
		return e, err
	}
	if code == codeFields {
		return e, p.fields(&e, int(n))
	}
	e.Items = make([]string, 0, n)
	for range n {
		it, err := p.string()
		if err != nil {
			return e, err
		}
		e.Items = append(e.Items, it)
	}
	return e, nil
}

// fields reads the fields of a hash, each with its expiry.
func (p *parser) fields(e *tasks.Entry, n int) error {
	if n > (len(p.text)-p.pos)/3 { // a field, a value and an expiry take a byte each at least
		return errShort
	}
	e.Items = make([]string, 0, 2*n)
	e.FieldsExpireAt = make([]int64, 0, n)
	for range n {
		for range 2 {
			it, err := p.string()
			if err != nil {
				return err
			}
			e.Items = append(e.Items, it)
		}
		at, err := p.uvarint(1<<63 - 1)
		if err != nil {
			return err
		}
		e.FieldsExpireAt = append(e.FieldsExpireAt, int64(at))
	}
	return nil
}

var errShort = errors.New("it ends too early")

func (p *parser) string() (string, error) {
	n, err := p.uvarint(uint64(len(p.text) - p.pos))
	if err != nil {
		return "", err
	}
	if n > uint64(len(p.text)-p.pos) {
		return "", errShort
	}
	s := p.text[p.pos : p.pos+int(n)]
	p.pos += int(n)
	return s, nil
}

// uvarint reads a number of at most limit.
func (p *parser) uvarint(limit uint64) (uint64, error) {
	var v uint64
	for shift := 0; shift < 64; shift += 7 {
		if p.pos == len(p.text) {
			return 0, errShort
		}
		c := p.text[p.pos]
		p.pos++
		if shift == 63 && c > 1 {
			break
		}
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			if v > limit {
				return 0, fmt.Errorf("number %d: at most %d here", v, limit)
			}
			return v, nil
		}
	}
	return 0, fmt.Errorf("a number of more than 64 bits")
}
