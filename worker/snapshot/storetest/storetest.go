// Package storetest is the contract of snapshot.Store as tests, run by every implementation.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/snapshot"
)

// Run tests the stores that open returns. Each call of open returns a new, empty store, and
// again returns another Store of the same place, as another process would have it.
func Run(t *testing.T, open func(t *testing.T) (store snapshot.Store, again func() snapshot.Store)) {
	for name, test := range map[string]func(*testing.T, snapshot.Store, snapshot.Store){
		"publish":     publish,
		"draft":       draft,
		"replace":     replace,
		"delete":      del,
		"names":       names,
		"cancelled":   cancelled,
		"concurrency": concurrency,
		"anywhere":    anywhere,
		"large":       large,
	} {
		t.Run(name, func(t *testing.T) {
			store, again := open(t)
			test(t, store, again())
		})
	}
}

func publish(t *testing.T, s, other snapshot.Store) {
	if got := list(t, s); len(got) != 0 {
		t.Errorf("a new store lists %v", got)
	}
	text := strings.Repeat("all kinds of bytes \x00\xff\n", 10_000)
	put(t, s, "b_r1_2-0a.stoker", text)
	put(t, s, "a_r1_1-0a.stoker", "")
	if got := get(t, other, "b_r1_2-0a.stoker"); got != text {
		t.Errorf("read back %d bytes, wrote %d", len(got), len(text))
	}
	objects, err := other.List(t.Context())
	if err != nil || len(objects) != 2 || objects[0].Name != "a_r1_1-0a.stoker" || objects[1].Size < int64(len(text)) || objects[1].Modified.IsZero() {
		t.Errorf("list: %+v, %v", objects, err)
	}
	if s.String() != other.String() || s.String() == "" {
		t.Errorf("two stores of one place are called %q and %q", s, other)
	}
}

func draft(t *testing.T, s, other snapshot.Store) {
	d, err := s.Create(t.Context(), "r1.stoker")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(d, "half of it"); err != nil {
		t.Fatal(err)
	}
	absent(t, other, "r1.stoker")
	if err := d.Abort(); err != nil {
		t.Errorf("abort: %v", err)
	}
	absent(t, other, "r1.stoker")
	if err := d.Commit(); err == nil {
		t.Error("commit after abort succeeds")
	}
	if got := list(t, other); len(got) != 0 {
		t.Errorf("after an aborted draft the store lists %v", got)
	}
}

func replace(t *testing.T, s, other snapshot.Store) {
	put(t, s, "r1.stoker", "first")
	r, err := other.Open(t.Context(), "r1.stoker")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	put(t, s, "r1.stoker", "second")
	if got, err := io.ReadAll(r); err != nil || string(got) != "first" {
		t.Errorf("a reader opened before reads %q, %v", got, err)
	}
	if got := get(t, other, "r1.stoker"); got != "second" {
		t.Errorf("after replacing: %q", got)
	}
	if got := list(t, other); len(got) != 1 {
		t.Errorf("list: %v", got)
	}
}

func del(t *testing.T, s, other snapshot.Store) {
	put(t, s, "r1.stoker", "one")
	put(t, s, "r10.stoker", "ten")
	for range 2 {
		if err := other.Delete(t.Context(), "r1.stoker"); err != nil {
			t.Errorf("delete: %v", err)
		}
		absent(t, s, "r1.stoker")
	}
	if got := list(t, s); len(got) != 1 || got[0] != "r10.stoker" {
		t.Errorf("list: %v", got)
	}
}

func names(t *testing.T, s, _ snapshot.Store) {
	for _, name := range []string{"", ".", "..", "../x", "a/b", `a\b`, "/etc/passwd", ".hidden", "a b", "a\x00b", "ä", strings.Repeat("a", 201)} {
		if _, err := s.Create(t.Context(), name); !errors.Is(err, tasks.ErrInvalid) {
			t.Errorf("create %q: %v", name, err)
		}
		if _, err := s.Open(t.Context(), name); !errors.Is(err, tasks.ErrInvalid) {
			t.Errorf("open %q: %v", name, err)
		}
		if err := s.Delete(t.Context(), name); !errors.Is(err, tasks.ErrInvalid) {
			t.Errorf("delete %q: %v", name, err)
		}
	}
	long := strings.Repeat("a", 200)
	put(t, s, long, "x")
	if got := get(t, s, long); got != "x" {
		t.Errorf("the longest name: %q", got)
	}
}

func cancelled(t *testing.T, s, _ snapshot.Store) {
	put(t, s, "r1.stoker", "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, createErr := s.Create(ctx, "r2.stoker")
	_, openErr := s.Open(ctx, "r1.stoker")
	_, listErr := s.List(ctx)
	for what, err := range map[string]error{"create": createErr, "open": openErr, "list": listErr, "delete": s.Delete(ctx, "r1.stoker")} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a cancelled context: %v", what, err)
		}
	}
	if got := get(t, s, "r1.stoker"); got != "x" {
		t.Errorf("afterwards: %q", got)
	}
}

// anywhere reads parts of an archive, beside reading it through.
func anywhere(t *testing.T, s, other snapshot.Store) {
	text := noise(200_000)
	put(t, s, "r1.stoker", text)
	r, err := other.Open(t.Context(), "r1.stoker")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if r.Size() != int64(len(text)) {
		t.Errorf("size %d, want %d", r.Size(), len(text))
	}
	begin := make([]byte, 1000)
	if _, err := io.ReadFull(r, begin); err != nil || string(begin) != text[:1000] {
		t.Errorf("read the beginning: %v", err)
	}
	for _, at := range []int{0, 1, 65_535, 65_536, 131_000, len(text) - 500} {
		b := make([]byte, 500)
		if n, err := r.ReadAt(b, int64(at)); n != len(b) || err != nil && err != io.EOF || string(b) != text[at:at+500] {
			t.Errorf("read at %d: %d bytes, %v", at, n, err)
		}
	}
	b := make([]byte, 500)
	if n, err := r.ReadAt(b, int64(len(text)-200)); n != 200 || err != io.EOF {
		t.Errorf("read across the end: %d bytes, %v", n, err)
	}
	if rest, err := io.ReadAll(r); err != nil || string(rest) != text[1000:] {
		t.Errorf("read on: %d bytes, %v", len(rest), err)
	}
}

// large writes more than a store may want to hold in memory, in pieces that fit nothing.
func large(t *testing.T, s, other snapshot.Store) {
	piece := noise(1<<20 - 7)
	d, err := s.Create(t.Context(), "r1.stoker")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Abort() }()
	const pieces = 21
	for range pieces {
		if n, err := io.WriteString(d, piece); n != len(piece) || err != nil {
			t.Fatalf("write: %d bytes, %v", n, err)
		}
	}
	absent(t, other, "r1.stoker")
	if err := d.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := get(t, other, "r1.stoker"); got != strings.Repeat(piece, pieces) {
		t.Errorf("read back %d bytes, wrote %d", len(got), pieces*len(piece))
	}
	again, err := s.Create(t.Context(), "r2.stoker")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(again, strings.Repeat(piece, pieces)); err != nil {
		t.Fatal(err)
	}
	if err := again.Abort(); err != nil {
		t.Errorf("abort: %v", err)
	}
	absent(t, other, "r2.stoker")
}

// noise is text that nothing can compress, the same every time.
func noise(n int) string {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return string(b)
}

// concurrency has many writers of one name: whoever comes last, the archive is one of theirs
// and whole.
func concurrency(t *testing.T, s, other snapshot.Store) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			text := strings.Repeat(fmt.Sprint(i), 50_000)
			d, err := s.Create(t.Context(), "r1.stoker")
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = d.Abort() }()
			if _, err := io.WriteString(d, text); err != nil {
				t.Error(err)
			}
			if err := d.Commit(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got := get(t, other, "r1.stoker")
	if len(got) != 50_000 || strings.Count(got, got[:1]) != len(got) {
		t.Errorf("%d bytes of several writers", len(got))
	}
	if got := list(t, other); len(got) != 1 {
		t.Errorf("list: %v", got)
	}
}

func put(t *testing.T, s snapshot.Store, name, text string) {
	t.Helper()
	d, err := s.Create(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Abort() }()
	if _, err := io.WriteString(d, text); err != nil {
		t.Fatal(err)
	}
	if err := d.Commit(); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, s snapshot.Store, name string) string {
	t.Helper()
	r, err := s.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func list(t *testing.T, s snapshot.Store) []string {
	t.Helper()
	objects, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, o := range objects {
		out = append(out, o.Name)
	}
	return out
}

func absent(t *testing.T, s snapshot.Store, name string) {
	t.Helper()
	if _, err := s.Open(t.Context(), name); !errors.Is(err, tasks.ErrNotFound) {
		t.Errorf("open %q: %v, want not found", name, err)
	}
}
