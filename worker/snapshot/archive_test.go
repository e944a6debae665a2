package snapshot

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/alphanode/stoker/tasks"
)

var testHeader = Header{
	App: "blog", Release: "r41", Prefix: "blog:r41:", Mark: 1795371029000001, Epoch: "e1",
	Server: "7.0.15", Created: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC), Fields: true,
}

// asWritten leaves out what only a reader finds.
var asWritten = cmpopts.IgnoreFields(Summary{}, "Needs")

var testEntries = []tasks.Entry{
	{Key: "post:1", Type: tasks.EntryString, Value: "hello"},
	{Key: "", Type: tasks.EntryString, ExpiresAt: 1795371029123},
	{Key: "\x00tags\x00android ü \xff", Type: tasks.EntryHash, Items: []string{"f", "", "", "v\x00"}, ExpiresAt: 1},
	{Key: "l", Type: tasks.EntryList, Items: []string{"a", "a", ""}},
	{Key: "s", Type: tasks.EntrySet, Items: []string{"\xfe"}},
	{Key: "#tag:x", Type: tasks.EntryZSet, Items: []string{"post:1", "inf", "b", "1.5"}},
	{Key: "stream", Type: tasks.EntryDump, Value: "\x0f\x01\x02"},
	{Key: "fields", Type: tasks.EntryHash, Items: []string{"a", "1", "", "\x00", "b", ""}, FieldsExpireAt: []int64{1795371029123, 0, 1}, ExpiresAt: 1795371029124},
}

var update = flag.Bool("update", false, "write missing golden files")

func archive(t testing.TB, entries ...tasks.Entry) ([]byte, Summary) {
	t.Helper()
	return archiveOf(t, testHeader, entries...)
}

func archiveOf(t testing.TB, header Header, entries ...tasks.Entry) ([]byte, Summary) {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, header)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(entries...); err != nil {
		t.Fatal(err)
	}
	s, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), s
}

func readAll(r io.Reader) ([]tasks.Entry, Summary, error) {
	in, err := NewReader(r)
	if err != nil {
		return nil, Summary{}, err
	}
	var out []tasks.Entry
	for {
		b, err := in.Next()
		if err == io.EOF {
			return out, in.Summary(), nil
		}
		if err != nil {
			return nil, Summary{}, err
		}
		out = append(out, b.Entries...)
	}
}

func TestRoundTrip(t *testing.T) {
	big := tasks.Entry{Key: "big", Type: tasks.EntryString, Value: strings.Repeat("0123456789", 300_000)}
	many := []tasks.Entry{testEntries[0], big, testEntries[1]}
	for i := range 5000 {
		many = append(many, tasks.Entry{Key: fmt.Sprint("k", i), Type: tasks.EntryString, Value: strings.Repeat("x", i)})
	}
	for name, entries := range map[string][]tasks.Entry{"empty": nil, "types": testEntries, "many": many} {
		t.Run(name, func(t *testing.T) {
			raw, wrote := archive(t, entries...)
			got, read, err := readAll(iotest.OneByteReader(bytes.NewReader(raw)))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(entries, got); d != "" {
				t.Errorf("entries (-want +got):\n%s", d)
			}
			if d := cmp.Diff(wrote, read, asWritten); d != "" {
				t.Errorf("summary (-wrote +read):\n%s", d)
			}
			if read.Size != int64(len(raw)) || read.Entries != int64(len(entries)) || read.Header != testHeader {
				t.Errorf("summary %+v", read)
			}
		})
	}
}

func TestRoundTripOfAnything(t *testing.T) {
	text := rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 40), func(b []byte) string { return string(b) })
	entry := rapid.Custom(func(t *rapid.T) tasks.Entry {
		e := tasks.Entry{
			Key:       text.Draw(t, "key"),
			Type:      rapid.SampledFrom(typeCodes[1:]).Draw(t, "type"),
			ExpiresAt: rapid.Int64Min(0).Draw(t, "expiry"),
		}
		if single(e.Type) {
			e.Value = text.Draw(t, "value")
			return e
		}
		for range rapid.IntRange(1, 5).Draw(t, "items") {
			e.Items = append(e.Items, text.Draw(t, "a"), text.Draw(t, "b"))
		}
		if e.Type == tasks.EntryHash && rapid.Bool().Draw(t, "fields expire") {
			n := len(e.Items) / 2
			e.FieldsExpireAt = rapid.SliceOfN(rapid.Int64Min(0), n, n).Draw(t, "expiries")
		}
		return e
	})
	rapid.Check(t, func(rt *rapid.T) {
		entries := rapid.SliceOfN(entry, 1, 20).Draw(rt, "entries")
		raw, _ := archive(t, entries...)
		got, _, err := readAll(bytes.NewReader(raw))
		if err != nil {
			rt.Fatal(err)
		}
		if d := cmp.Diff(entries, got); d != "" {
			rt.Fatalf("(-want +got):\n%s", d)
		}
	})
}

// manyBlocks is a small archive of several blocks, so that damage can hit each kind of frame.
func manyBlocks(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, testHeader)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range [][]tasks.Entry{testEntries[:3], testEntries[3:5], testEntries[5:]} {
		if err := errors.Join(w.Write(part...), w.Flush()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func wantDamage(t *testing.T, what string, raw []byte) {
	t.Helper()
	s, err := Verify(t.Context(), bytes.NewReader(raw))
	if errors.Is(err, ErrNewer) && raw[len(magic)] > versionFields {
		return // which may be so
	}
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), " at offset ") {
		t.Errorf("%s: %+v, %v; want an error that names the place", what, s, err)
	}
}

func TestEveryFlippedBitIsFound(t *testing.T) {
	raw := manyBlocks(t)
	for i := range raw {
		for bit := range 8 {
			raw[i] ^= 1 << bit
			wantDamage(t, fmt.Sprintf("bit %d of byte %d", bit, i), raw)
			raw[i] ^= 1 << bit
		}
	}
	if _, err := Verify(t.Context(), bytes.NewReader(raw)); err != nil {
		t.Errorf("undamaged: %v", err)
	}
}

func TestEveryCutIsFound(t *testing.T) {
	raw := manyBlocks(t)
	for n := range raw {
		wantDamage(t, fmt.Sprintf("cut at %d of %d", n, len(raw)), raw[:n])
	}
}

// frames returns where each frame of an archive begins, and its end.
func frames(raw []byte) []int {
	at := []int{len(magic) + 1}
	for at[len(at)-1] < len(raw) {
		i := at[len(at)-1]
		at = append(at, i+headSize+int(parseHead(raw[i:]).stored))
	}
	return at
}

func TestRearrangedBlocksAreFound(t *testing.T) {
	raw := manyBlocks(t)
	at := frames(raw)
	frame := func(i int) []byte { return raw[at[i]:at[i+1]] }
	join := func(order ...int) []byte {
		out := bytes.Clone(raw[:at[0]])
		for _, i := range order {
			out = append(out, frame(i)...)
		}
		return out
	}
	if !bytes.Equal(join(0, 1, 2, 3, 4, 5), raw) {
		t.Fatal("frames are not where they should be")
	}
	for what, order := range map[string][]int{
		"missing block": {0, 1, 3, 4, 5}, "last block missing": {0, 1, 2, 4, 5}, "doubled": {0, 1, 1, 2, 3, 4, 5},
		"moved": {0, 2, 1, 3, 4, 5}, "two headers": {0, 0, 1, 2, 3, 4, 5}, "no header": {1, 2, 3, 4, 5},
		"two footers": {0, 1, 2, 3, 4, 5, 5}, "block after the footer": {0, 1, 2, 3, 4, 5, 3},
		"no index": {0, 1, 2, 3, 5}, "two indexes": {0, 1, 2, 3, 4, 4, 5}, "index first": {0, 4, 1, 2, 3, 5},
	} {
		wantDamage(t, what, join(order...))
	}
}

func TestDamageNamesItsPlace(t *testing.T) {
	raw := manyBlocks(t)
	at := frames(raw)
	raw[at[2]+headSize] ^= 1
	_, err := Verify(t.Context(), bytes.NewReader(raw))
	if want := fmt.Sprintf("frame 2 at offset %d: checksum mismatch", at[2]); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestLengthsDoNotAllocate(t *testing.T) {
	raw := manyBlocks(t)
	at := frames(raw)
	h := parseHead(raw[at[1]:])
	h.stored, h.raw = maxStored, MaxEntry // within the limits, but the file is short
	lying := append(h.append(bytes.Clone(raw[:at[1]])), raw[at[1]+headSize:]...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	wantDamage(t, "a block of 512 MiB", lying)
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 32<<20 {
		t.Errorf("allocated %d bytes for a file of %d", got, len(lying))
	}
	for name, change := range map[string]func(*head){
		"stored":  func(h *head) { h.stored = maxStored + 1 },
		"raw":     func(h *head) { h.raw = MaxEntry + 1 },
		"entries": func(h *head) { h.entries = h.raw/minEntry + 1 },
		"long":    func(h *head) { h.stored, h.raw, h.entries = 1<<20, blockTarget+1, 2 },
		"ratio":   func(h *head) { h.raw, h.entries = maxRatio*h.stored+1, 1 },
		"none":    func(h *head) { h.entries = 0 },
	} {
		h := parseHead(raw[at[1]:])
		change(&h)
		if h.check() == nil {
			t.Errorf("%s beyond its limit passes", name)
		}
	}
}

func TestParserRefuses(t *testing.T) {
	for name, body := range map[string]string{
		"empty":          "",
		"short key":      "\x05ab",
		"no type":        "\x01k",
		"type 0":         "\x01k\x00\x00\x00",
		"type 9":         "\x01k\x09\x00\x00",
		"many items":     "\x01k\x03\x00\xff\xff\xff\xff\x0f",
		"negative time":  "\x01k\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00",
		"endless number": "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
		"odd hash":       "\x01k\x02\x00\x01\x01f",
		"empty set":      "\x01k\x04\x00\x00",
		"left over":      "\x01k\x01\x00\x00x",
		"no fields":      "\x01k\x07\x00\x00",
		"many fields":    "\x01k\x07\x00\xff\xff\xff\xff\x0f",
		"short field":    "\x01k\x07\x00\x01\x01f\x00",
		"negative field": "\x01k\x07\x00\x01\x01f\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
	} {
		p := parser{text: body}
		if got, err := p.entries(1); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestWriterRefuses(t *testing.T) {
	w, err := NewWriter(io.Discard, testHeader)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(tasks.Entry{Key: "k", Type: "stream"}); !errors.Is(err, tasks.ErrInvalid) {
		t.Errorf("unknown type: %v", err)
	}
	plain := testHeader
	plain.Fields = false
	if w, err = NewWriter(io.Discard, plain); err != nil {
		t.Fatal(err)
	}
	for _, e := range testEntries {
		if err := w.Write(e); (err != nil) != (len(e.FieldsExpireAt) > 0) {
			t.Errorf("entry %s in an archive of version 1: %v", e.Key, err)
		}
	}
}

// TestVersions holds what was written once against what is read today: testdata has an archive of each
// version. -update writes those that are missing, and no others.
func TestVersions(t *testing.T) {
	for version := byte(versionPlain); version <= versionFields; version++ {
		header, entries := testHeader, testEntries
		if header.Fields = version == versionFields; !header.Fields {
			entries = entries[:len(entries)-1]
		}
		path := fmt.Sprintf("testdata/version%d.stoker", version)
		if _, err := os.Stat(path); *update && errors.Is(err, fs.ErrNotExist) {
			raw, _ := archiveOf(t, header, entries...)
			if err := os.WriteFile(path, raw, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got, s, err := readAll(bytes.NewReader(raw))
		if err != nil || raw[len(magic)] != version {
			t.Fatalf("%s: version %d, %v", path, raw[len(magic)], err)
		}
		if d := cmp.Diff(entries, got); d != "" || s.Header != header {
			t.Errorf("%s: %+v, entries (-want +got):\n%s", path, s.Header, d)
		}
	}
}

// TestNewerVersionsAreRefused: not as damage, which could be salvaged around.
func TestNewerVersionsAreRefused(t *testing.T) {
	raw := manyBlocks(t)
	raw[len(magic)] = versionFields + 1
	_, err := Verify(t.Context(), bytes.NewReader(raw))
	if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "version 3") || !strings.Contains(err.Error(), "upgrade") || errors.Is(err, ErrDamaged) {
		t.Errorf("got %v", err)
	}
	raw, _ = archiveOf(t, testHeader, testEntries...)
	raw[len(magic)] = versionPlain // then its last entry is of no type that there is
	if _, err := Verify(t.Context(), bytes.NewReader(raw)); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "unknown type 7") {
		t.Errorf("type 7 in version 1: %v", err)
	}
}

func TestSourceErrorsAreNotDamage(t *testing.T) {
	raw := manyBlocks(t)
	broken := errors.New("connection reset")
	for n := range raw {
		r := io.MultiReader(bytes.NewReader(raw[:n]), iotest.ErrReader(broken))
		if _, err := Verify(t.Context(), r); !errors.Is(err, broken) || errors.Is(err, ErrDamaged) {
			t.Fatalf("source that fails after %d bytes: %v", n, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Verify(ctx, bytes.NewReader(raw)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

type failingWriter struct{ left int }

func (w *failingWriter) Write(b []byte) (int, error) {
	if w.left -= len(b); w.left < 0 {
		return 0, errors.New("disk full")
	}
	return len(b), nil
}

func TestWriterReportsFailure(t *testing.T) {
	size := len(manyBlocks(t))
	for _, n := range []int{0, 8, size / 2} {
		w, err := NewWriter(&failingWriter{left: n}, testHeader)
		if err == nil {
			if err = w.Write(testEntries...); err == nil {
				_, err = w.Close()
			}
		}
		if err == nil || !strings.Contains(err.Error(), "disk full") {
			t.Errorf("room for %d bytes: %v", n, err)
		}
	}
}

func BenchmarkArchive(b *testing.B) {
	var entries []tasks.Entry
	for i := range 1000 {
		entries = append(entries, tasks.Entry{Key: fmt.Sprint("post:", i), Type: tasks.EntryString, Value: strings.Repeat(fmt.Sprint(i, " some text "), 80)})
	}
	b.Run("write", func(b *testing.B) {
		w, err := NewWriter(io.Discard, testHeader)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if err := w.Write(entries...); err != nil {
				b.Fatal(err)
			}
		}
		b.SetBytes(w.footer.Bytes / int64(b.N))
	})
	raw, s := archive(b, entries...)
	b.Run("verify", func(b *testing.B) {
		b.SetBytes(s.Bytes)
		for b.Loop() {
			if _, err := Verify(b.Context(), bytes.NewReader(raw)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
