package snapshot_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/snapshot"
	"github.com/alphanode/stoker/worker/snapshot/storetest"
)

func identity(t *testing.T) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// sealedDir opens the store in dir with a key file of those lines.
func sealedDir(t *testing.T, dir string, lines ...string) snapshot.Store {
	t.Helper()
	s, err := snapshot.Config{SnapshotURL: "file://" + dir, SnapshotKeyFile: keyFile(t, lines...)}.Store()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func keyFile(t *testing.T, lines ...string) string {
	t.Helper()
	if len(lines) == 0 {
		return ""
	}
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte("# made by age-keygen\n\n"+strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestSealedStore(t *testing.T) {
	key := identity(t)
	storetest.Run(t, func(t *testing.T) (snapshot.Store, func() snapshot.Store) {
		dir := t.TempDir()
		open := func() snapshot.Store { return sealedDir(t, dir, key.String()) }
		return open(), open
	})
}

func read(t *testing.T, s snapshot.Store, name string) (string, error) {
	t.Helper()
	in, err := s.Open(t.Context(), name)
	if err != nil {
		return "", err
	}
	defer func() { _ = in.Close() }()
	text, err := io.ReadAll(in)
	return string(text), err
}

func TestKeysOfArchives(t *testing.T) {
	dir := t.TempDir()
	old, current, stranger := identity(t), identity(t), identity(t)
	const text = "the pages of a site"
	for name, keys := range map[string][]string{
		"plain.stoker": nil, "old.stoker": {old.String()}, "new.stoker": {current.String(), old.String()},
		"shared.stoker": {current.String(), stranger.Recipient().String()},
	} {
		if err := write(t, sealedDir(t, dir, keys...), name, text); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || bytes.Contains(raw, []byte(text)) != (keys == nil) {
			t.Errorf("%s lies in the directory as %q, %v", name, raw, err)
		}
	}
	for _, c := range []struct {
		name string
		keys []string
		says string // "" for success
	}{
		{"plain.stoker", nil, ""},
		{"plain.stoker", []string{current.String()}, ""},
		{"old.stoker", []string{current.String(), old.String()}, ""},
		{"old.stoker", []string{current.String()}, "none of the 1 keys in"},
		{"old.stoker", nil, "it is encrypted: name the file with its key in STOKER_SNAPSHOT_KEY_FILE"},
		{"new.stoker", []string{current.String()}, ""},
		{"new.stoker", []string{old.String()}, "none of the 1 keys in"}, // an old key that leaked opens nothing new
		{"shared.stoker", []string{stranger.String()}, ""},
	} {
		got, err := read(t, sealedDir(t, dir, c.keys...), c.name)
		switch {
		case c.says == "" && (err != nil || got != text):
			t.Errorf("%s: %q, %v", c.name, got, err)
		case c.says != "" && (!errors.Is(err, tasks.ErrRefused) || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
	}
}

func TestKeyFilesThatCannotBeUsed(t *testing.T) {
	secret := identity(t).String()
	for says, lines := range map[string][]string{
		"line 3 is neither": {strings.ToLower(secret)},
		"line 4 is neither": {secret, secret[:40]},
		"no identity":       {identity(t).Recipient().String()},
		"line 3 is":         {"age1nonsense"},
	} {
		err := snapshot.Config{SnapshotURL: "file:///tmp", SnapshotKeyFile: keyFile(t, lines...)}.Validate()
		if !errors.Is(err, tasks.ErrInvalid) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "STOKER_SNAPSHOT_KEY_FILE") || strings.Contains(strings.ToUpper(err.Error()), secret[:30]) {
			t.Errorf("%v, want %q", err, says)
		}
	}
	if err := (snapshot.Config{SnapshotURL: "file:///tmp", SnapshotKeyFile: "/does/not/exist"}).Validate(); !errors.Is(err, tasks.ErrInvalid) {
		t.Errorf("a missing file: %v", err)
	}
}

// TestDamageUnderTheSeal: whatever is flipped or cut off of an encrypted archive is found.
func TestDamageUnderTheSeal(t *testing.T) {
	dir, key := t.TempDir(), identity(t)
	s := sealedDir(t, dir, key.String())
	d, err := s.Create(t.Context(), "r1.stoker")
	if err != nil {
		t.Fatal(err)
	}
	w, err := snapshot.NewWriter(d, snapshot.Header{App: "blog", Release: "r1"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 { // more than one of the encryption's chunks
		value := make([]byte, 1000)
		for j := range value {
			value[j] = byte(i * j * j >> 3)
		}
		if err := w.Write(tasks.Entry{Key: fmt.Sprint("post:", i), Type: tasks.EntryString, Value: string(value)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err = w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Commit(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "r1.stoker")
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	verify := func(raw []byte) error {
		if err := os.WriteFile(file, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		in, err := s.Open(t.Context(), "r1.stoker")
		if err != nil {
			return err
		}
		defer func() { _ = in.Close() }()
		_, err = snapshot.Verify(t.Context(), in)
		return err
	}
	if err := verify(raw); err != nil {
		t.Fatalf("undamaged: %v", err)
	}
	for i := 0; i < len(raw); i += 1 + i/50 {
		damaged := bytes.Clone(raw)
		damaged[i] ^= 1 << (i % 8)
		if err := verify(damaged); !errors.Is(err, snapshot.ErrDamaged) && !errors.Is(err, tasks.ErrRefused) {
			t.Errorf("bit of byte %d flipped: %v", i, err)
		}
		if err := verify(raw[:i]); !errors.Is(err, snapshot.ErrDamaged) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
}
