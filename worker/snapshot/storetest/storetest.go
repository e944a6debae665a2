// Package storetest is the contract of snapshot.Store as tests, run by every implementation.
package storetest

import (
	"context"
	"encoding/json"
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
		"resume":      resume,
		"zombie":      zombie,
		"discard":     discard,
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
		if _, err := s.Resume(t.Context(), name, nil); !errors.Is(err, tasks.ErrInvalid) && !errors.Is(err, tasks.ErrNotFound) {
			t.Errorf("resume %q: %v", name, err)
		}
		if err := errors.Join(s.Delete(t.Context(), name), s.Discard(t.Context(), name)); !errors.Is(err, tasks.ErrInvalid) {
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
	for what, err := range map[string]error{
		"create": createErr, "open": openErr, "list": listErr, "delete": s.Delete(ctx, "r1.stoker"),
		"discard": s.Discard(ctx, "r1.stoker"),
	} {
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
	piece := noise(piece)
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

// piece is written until a checkpoint is due.
const piece = 1<<20 - 7

// untilDue writes to a draft until a checkpoint is due and returns it; nil when none ever is, as with
// stores whose archives always begin anew.
func untilDue(t *testing.T, d snapshot.Draft, text string) (written int, at json.RawMessage) {
	t.Helper()
	for written < len(text) && (written == 0 || !d.Due()) {
		n, err := io.WriteString(d, text[written:min(written+piece, len(text))])
		if written += n; err != nil {
			t.Fatal(err)
		}
	}
	if !d.Due() {
		return written, nil
	}
	at, err := d.Checkpoint()
	if err != nil || at == nil {
		t.Fatalf("checkpoint %s, %v where one is due", at, err)
	}
	if d.Due() {
		t.Error("another checkpoint is due at once")
	}
	return written, at
}

// resume goes on with a draft again and again, each time behind a checkpoint after which more was
// written, as another process would.
func resume(t *testing.T, s, other snapshot.Store) {
	text := noise(58 << 20)
	d, err := s.Create(t.Context(), "r1.stoker")
	if err != nil {
		t.Fatal(err)
	}
	done := 0
	for tries := range 4 {
		n, at := untilDue(t, d, text[done:])
		done += n
		if at == nil && tries == 0 { // it never is
			noResume(t, s, "r1.stoker", json.RawMessage(`{}`))
			_ = d.Abort()
			return
		}
		if at == nil {
			break
		}
		if _, err := io.WriteString(d, "what nobody knows of "+noise(piece*(tries%2))); err != nil {
			t.Fatal(err)
		}
		if err := d.Leave(); err != nil {
			t.Fatalf("leave: %v", err)
		}
		if err := errors.Join(d.Abort(), d.Leave()); err != nil {
			t.Errorf("after leaving: %v", err)
		}
		absent(t, other, "r1.stoker")
		noResume(t, s, "r2.stoker", at)
		s, other = other, s
		for range 2 { // a process that dies at once costs nothing
			if d, err = s.Resume(t.Context(), "r1.stoker", at); err != nil {
				t.Fatalf("resume %d: %v", tries, err)
			}
			if err := d.Leave(); err != nil {
				t.Fatal(err)
			}
		}
		if d, err = s.Resume(t.Context(), "r1.stoker", at); err != nil {
			t.Fatalf("resume %d: %v", tries, err)
		}
	}
	if _, err := io.WriteString(d, text[done:]); err != nil {
		t.Fatal(err)
	}
	if err := d.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := get(t, other, "r1.stoker"); got != text {
		t.Errorf("read back %d bytes, wrote %d, or others", len(got), len(text))
	}
	if got := list(t, other); len(got) != 1 {
		t.Errorf("list: %v", got)
	}
	for _, bad := range []string{``, `null`, `{}`, `[]`, `{"file":"../r1.stoker","size":1}`, `{"file":"r1.stoker","size":1}`, `{"upload":"none","parts":["x"]}`} {
		noResume(t, s, "r1.stoker", json.RawMessage(bad))
	}
}

func noResume(t *testing.T, s snapshot.Store, name string, at json.RawMessage) {
	t.Helper()
	if _, err := s.Resume(t.Context(), name, at); !errors.Is(err, tasks.ErrNotFound) {
		t.Errorf("resume %s from %.60s: %v, want not found", name, at, err)
	}
}

// zombie has a try that was taken for dead write on beside its retry: what is published is one's or the
// other's, whole.
func zombie(t *testing.T, s, other snapshot.Store) {
	text := noise(18 << 20)
	first, err := s.Create(t.Context(), "r1.stoker")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.Abort() }()
	n, at := untilDue(t, first, text)
	if at == nil {
		return // there is no going on
	}
	second, err := other.Resume(t.Context(), "r1.stoker", at)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = second.Abort() }()
	whole := map[string]bool{}
	for i, d := range []snapshot.Draft{first, second} {
		rest := strings.Repeat(fmt.Sprint(i), 17<<20)
		whole[text[:n]+rest] = true
		if _, err := io.WriteString(d, rest); err != nil {
			t.Logf("write %d: %v", i, err)
		}
	}
	published := 0
	for i, d := range []snapshot.Draft{first, second} {
		if err := d.Commit(); err != nil {
			t.Logf("commit %d: %v", i, err)
			continue
		}
		published++
		if got := get(t, s, "r1.stoker"); !whole[got] {
			t.Fatalf("commit %d publishes %d bytes that are neither's", i, len(got))
		}
	}
	if published == 0 {
		absent(t, s, "r1.stoker")
	}
}

// discard drops the drafts of one name, whatever their writers think.
func discard(t *testing.T, s, other snapshot.Store) {
	text := noise(18 << 20)
	put(t, s, "r1.stoker", "committed")
	d, err := s.Create(t.Context(), "r1.stoker")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Abort() }()
	_, at := untilDue(t, d, text)
	neighbour, err := s.Create(t.Context(), "r1.stoker.2")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = neighbour.Abort() }()
	if _, err := io.WriteString(neighbour, text); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := other.Discard(t.Context(), "r1.stoker"); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Commit(); err == nil {
		t.Error("a draft that was discarded is committed")
	}
	noResume(t, other, "r1.stoker", at)
	if err := neighbour.Commit(); err != nil {
		t.Errorf("the neighbour: %v", err)
	}
	if got := get(t, other, "r1.stoker"); got != "committed" {
		t.Errorf("the archive of that name is %.20q", got)
	}
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
