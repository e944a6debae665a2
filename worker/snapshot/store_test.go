package snapshot_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/snapshot"
	"github.com/alphanode/stoker/worker/snapshot/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFileStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) (snapshot.Store, func() snapshot.Store) {
		url := "file://" + t.TempDir() + "/made when needed"
		open := func() snapshot.Store {
			s, err := snapshot.Open(url)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		return open(), open
	})
}

func TestFileStoreOnDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "snapshots")
	s := snapshot.NewFileStore(dir)
	d, err := s.Create(t.Context(), "r1.stoker")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".r1.stoker.1.draft", ".r1.stoker.2.draft"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-8 * 24 * time.Hour)
	if err := os.Chtimes(filepath.Join(dir, ".r1.stoker.1.draft"), old, old); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(d, "x"); err != nil {
		t.Fatal(err)
	}
	if err := d.Commit(); err != nil {
		t.Fatal(err)
	}
	second, err := s.Create(t.Context(), "r2.stoker")
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Abort(); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", f.Name(), info.Mode())
		}
		names = append(names, f.Name())
	}
	if got, want := strings.Join(names, " "), ".r1.stoker.2.draft r1.stoker"; got != want {
		t.Errorf("files %q, want %q: a fresh draft stays, an old one goes", got, want)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info.Mode(), err)
	}
}

func TestCommitThatCannotPublish(t *testing.T) {
	dir := t.TempDir()
	s := snapshot.NewFileStore(dir)
	if err := os.Mkdir(filepath.Join(dir, "r1.stoker"), 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := s.Create(t.Context(), "r1.stoker")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Commit(); err == nil {
		t.Error("commit over a directory succeeds")
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("a draft is left: %v", files)
	}
}

func TestOpen(t *testing.T) {
	for url, want := range map[string]string{
		"s3://key:x-secret@bucket": "credentials come from",
		"gs://bucket":              "use file:///dir or s3://bucket/prefix",
		"file://relative/dir":      "full path",
		"file:///":                 "full path",
		"file:///dir?x=1":          "full path",
		"file:dir":                 "full path",
		"dir":                      "file:///dir",
		"://x-secret":              "file:///dir",
	} {
		err := snapshot.Config{SnapshotURL: url}.Validate()
		if !errors.Is(err, tasks.ErrInvalid) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "x-secret") {
			t.Errorf("open %q: %v, want %q", url, err, want)
		}
	}
	if err := (snapshot.Config{}).Validate(); err != nil {
		t.Errorf("no snapshots: %v", err)
	}
	s, err := snapshot.Open("file:///var/lib/my%20site")
	if err != nil || s.String() != "file:///var/lib/my%20site" {
		t.Errorf("got %v, %v", s, err)
	}
}

func TestNoStore(t *testing.T) {
	s, err := snapshot.Open("")
	if err != nil {
		t.Fatal(err)
	}
	_, createErr := s.Create(t.Context(), "r1.stoker")
	_, openErr := s.Open(t.Context(), "r1.stoker")
	_, listErr := s.List(t.Context())
	for _, err := range []error{createErr, openErr, listErr, s.Delete(t.Context(), "r1.stoker")} {
		if !errors.Is(err, tasks.ErrRefused) || !strings.Contains(err.Error(), "STOKER_SNAPSHOT_URL") {
			t.Errorf("got %v, want a refusal with the way out", err)
		}
	}
}

func TestName(t *testing.T) {
	release := strings.Repeat("r", 64)
	name := snapshot.Name(strings.Repeat("a", 32), release, 1<<62, strings.Repeat("job", 100))
	if err := snapshot.ValidateName(name); err != nil {
		t.Error(err)
	}
	seen := map[string]bool{}
	for _, n := range []string{
		snapshot.Name("a", "b-c", 1, "j"), snapshot.Name("a-b", "c", 1, "j"), snapshot.Name("a", "b-c", 2, "j"),
		snapshot.Name("a", "b-c", 1, "k"), snapshot.Name("a", "b-c_1", 1, "j"),
	} {
		if seen[n] {
			t.Errorf("%q names two archives", n)
		}
		seen[n] = true
	}
}

func TestDescriptorMatches(t *testing.T) {
	s := snapshot.Summary{Header: snapshot.Header{Release: "r1", Mark: 7, Epoch: "e"}, Footer: snapshot.Footer{Entries: 3, Checksum: "ab"}, Size: 9}
	d := snapshot.Describe(s, "n", "file:///x", time.Unix(1, 0))
	if err := d.Matches(s); err != nil {
		t.Error(err)
	}
	s.Checksum = "cd"
	if err := d.Matches(s); !errors.Is(err, snapshot.ErrDamaged) {
		t.Errorf("another archive: %v", err)
	}
}
