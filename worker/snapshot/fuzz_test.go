package snapshot

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"runtime/metrics"
	"slices"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/alphanode/stoker/tasks"
)

// What reading may allocate: so much whatever the input, for the decoder and what runs beside the test; and
// so much for each byte of the file and of a block before compression.
const (
	allocFixed   = 24 << 20
	allocPerByte = 64 // an entry of four bytes is some hundred in memory
)

// allocated returns the bytes that this process has allocated so far.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// bounded runs read and fails when it allocates more than an archive of these bytes may cost.
func bounded(t *testing.T, archive []byte, read func()) {
	t.Helper()
	limit := uint64(allocFixed + allocPerByte*len(archive))
	for at := len(magic) + 1; at+headSize <= len(archive); {
		h := parseHead(archive[at:])
		if h.check() != nil {
			break
		}
		if h.kind == kindBlock {
			limit += allocPerByte * uint64(h.raw)
		}
		at += headSize + int(h.stored)
	}
	before := allocated()
	read()
	if got := allocated() - before; got > limit {
		t.Errorf("allocated %d bytes for an archive of %d, limit %d", got, len(archive), limit)
	}
}

// FuzzReader: no input panics or allocates beyond its limit, and whatever is accepted can be written
// and read again.
func FuzzReader(f *testing.F) {
	raw := manyBlocks(f)
	f.Add(raw)
	f.Add(raw[:len(raw)/2])
	f.Add([]byte(magic + "\x01"))
	f.Fuzz(func(t *testing.T, data []byte) { readTwice(t, data) })
}

// readTwice reads an archive within bounds and, when it is accepted, what is written of it.
func readTwice(t *testing.T, data []byte) {
	t.Helper()
	var entries []tasks.Entry
	var s Summary
	var err error
	bounded(t, data, func() { entries, s, err = readAll(bytes.NewReader(data)) })
	if err != nil {
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNewer) {
			t.Errorf("neither damaged nor newer: %v", err)
		}
		return
	}
	again, _ := archiveOf(t, s.Header, entries...)
	got, _, err := readAll(bytes.NewReader(again))
	if err != nil || !cmp.Equal(entries, got) {
		t.Errorf("accepted, but not the same again: %v", err)
	}
}

// framed returns an archive of one block with that body, whose checksums all hold.
func framed(h head, body []byte) []byte {
	put := func(b []byte, h head, body []byte) []byte {
		h.stored = uint32(len(body))
		start := len(b)
		b = h.append(b)
		h.sum = frameSum(b[start:], body)
		return append(h.append(b[:start]), body...)
	}
	b := put(append([]byte(magic), versionFields), head{kind: kindHeader, raw: 2}, []byte("{}"))
	b = put(b, h, body)
	index := appendPlace(nil, Place{Number: 1, Offset: int64(len(magic) + 1 + headSize + 2), Entries: int64(h.entries)})
	b = put(b, head{kind: kindIndex, number: 2, raw: uint32(len(index)), entries: 1}, index)
	return put(b, head{kind: kindFooter, number: 3, raw: 2}, []byte("{}"))
}

// FuzzFrames goes at what stands behind the checksums: a block's lengths, counts and compressed body.
func FuzzFrames(f *testing.F) {
	zip, err := zstd.NewWriter(nil)
	if err != nil {
		f.Fatal(err)
	}
	var body []byte
	for _, e := range testEntries {
		body = appendEntry(body, e)
	}
	f.Add(byte(kindBlock), uint32(len(body)), uint32(len(testEntries)), zip.EncodeAll(body, nil))
	zeros := make([]byte, blockTarget)
	f.Add(byte(kindBlock), uint32(len(zeros)), uint32(len(zeros)/minEntry), zip.EncodeAll(zeros, nil))
	many := append(binary.AppendUvarint([]byte("\x01k\x04\x00"), 4<<20), make([]byte, 4<<20)...) // empty members
	f.Add(byte(kindBlock), uint32(len(many)), uint32(1), zip.EncodeAll(many, nil))
	f.Add(byte(kindIndex), uint32(0), uint32(0), []byte{})
	f.Fuzz(func(t *testing.T, k byte, raw, entries uint32, body []byte) {
		data := framed(head{kind: kind(k), number: 1, raw: raw, entries: entries}, body)
		readTwice(t, data)
		bounded(t, data, func() { salvageAll(t, data) })
	})
}

// FuzzParser goes at what stands behind the compression.
func FuzzParser(f *testing.F) {
	var body []byte
	for _, e := range testEntries {
		body = appendEntry(body, e)
	}
	f.Add(string(body), len(testEntries))
	f.Fuzz(func(t *testing.T, body string, n int) {
		p := parser{text: body}
		entries, err := p.entries(max(n, 0))
		if err != nil {
			return
		}
		var again []byte
		for _, e := range entries {
			size := len(appendEntry(nil, e))
			if size > entrySize(e) || size < minEntry {
				t.Errorf("entry of %d bytes, estimated %d", size, entrySize(e))
			}
			again = appendEntry(again, e)
		}
		q := parser{text: string(again)}
		if got, err := q.entries(len(entries)); err != nil || !cmp.Equal(entries, got) {
			t.Errorf("accepted, but not the same again: %v", err)
		}
	})
}

// FuzzSalvage: no input panics, and none makes it allocate beyond its limit. It looks for frames at
// every offset, so frames that overlap count, too.
func FuzzSalvage(f *testing.F) {
	raw := manyBlocks(f)
	f.Add(raw)
	f.Add(raw[:len(raw)/2])
	f.Fuzz(func(t *testing.T, data []byte) {
		before := allocated()
		salvageAll(t, data)
		// A body is read where its checksum may hold: no longer than the file, and at places where a
		// frame may begin.
		limit := uint64(allocFixed) + allocPerByte*uint64(len(data))*uint64(1+plausibles(data))
		if got := allocated() - before; got > limit {
			t.Errorf("allocated %d bytes for a file of %d, limit %d", got, len(data), limit)
		}
	})
}

// plausibles counts the offsets at which a head with lengths within its limits stands.
func plausibles(data []byte) (n int) {
	for at := 0; at+headSize <= len(data); at++ {
		if parseHead(data[at:]).check() == nil {
			n++
		}
	}
	return n
}

// stored is a store that holds one object, whatever its name.
type stored struct {
	none
	data []byte
}

func (s stored) Open(context.Context, string) (Source, error) {
	return memory{bytes.NewReader(s.data)}, nil
}

// fuzzKey is one for all processes of a fuzz run, or the seeds of one would be unreadable to another.
const fuzzKey = "AGE-SECRET-KEY-1T8TSC5QG77K8Y7KRLPUJMSM6TDGUSSPDQ5SFHV6KHU2EN8WV5WNQF33X2C"

// FuzzSealed: what lies in a store and may be encrypted: no input panics or allocates beyond its limit,
// read through or anywhere, and the two agree.
func FuzzSealed(f *testing.F) {
	key, err := age.ParseX25519Identity(fuzzKey)
	if err != nil {
		f.Fatal(err)
	}
	keys := Keys{recipients: []age.Recipient{key.Recipient()}, identities: []age.Identity{key}}
	plain := manyBlocks(f)
	for _, text := range [][]byte{nil, plain, bytes.Repeat(plain, 200)} { // none of the encryption's chunks, one, some
		var b bytes.Buffer
		w, err := age.Encrypt(&b, key.Recipient())
		if err != nil {
			f.Fatal(err)
		}
		if _, err := w.Write(text); err != nil {
			f.Fatal(err)
		}
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
		f.Add(b.Bytes()[:b.Len()/2])
	}
	f.Add(plain)
	f.Fuzz(func(t *testing.T, data []byte) {
		const fixed = allocFixed + 3*windowSize
		before := allocated()
		through := readSealed(t, keys, data)
		if got, limit := allocated()-before, uint64(fixed+allocPerByte*len(data)); got > limit {
			t.Errorf("allocated %d bytes for an object of %d, limit %d", got, len(data), limit)
		}
		if through != nil && !bytes.HasPrefix(data, []byte(sealMark)) && !bytes.Equal(through, data) {
			t.Error("what is not encrypted is not read as it is")
		}
	})
}

// readSealed reads an object through and backwards in pieces; nil when that fails.
func readSealed(t *testing.T, keys Keys, data []byte) []byte {
	t.Helper()
	in, err := Seal(stored{data: data}, keys).Open(t.Context(), "r1.stoker")
	if err != nil {
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, tasks.ErrRefused) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("open: %v", err)
		}
		return nil
	}
	through, err := io.ReadAll(in)
	if err != nil {
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("read: %v", err)
		}
		return nil
	}
	if int64(len(through)) != in.Size() {
		t.Errorf("%d bytes were read of %d", len(through), in.Size())
	}
	const piece = 50_000
	anywhere := make([]byte, 0, len(through))
	for end := int64(len(through)); end > 0; {
		at := max(0, end-piece)
		b := make([]byte, end-at)
		if n, err := in.ReadAt(b, at); n != len(b) || err != nil && err != io.EOF {
			t.Fatalf("read at %d: %d bytes, %v", at, n, err)
		}
		slices.Reverse(b)
		anywhere, end = append(anywhere, b...), at
	}
	if slices.Reverse(anywhere); !bytes.Equal(anywhere, through) {
		t.Error("read anywhere, it is another")
	}
	return append([]byte{}, through...)
}
