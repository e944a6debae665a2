package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/alphanode/stoker/tasks"
)

// draftPrefix and draftSuffix frame the names of files being written; no archive's name
// begins with a dot.
const (
	draftPrefix = "."
	draftSuffix = ".draft"
)

// draftAge is how long a draft may lie untouched before it counts as left by a killed writer.
const draftAge = 24 * time.Hour

// FileStore keeps archives as files of one directory, readable by its owner alone. The
// directory is made when the first archive is.
type FileStore struct{ dir string }

var _ Store = (*FileStore)(nil)

// NewFileStore returns the store in dir.
func NewFileStore(dir string) *FileStore { return &FileStore{filepath.Clean(dir)} }

// String implements [Store].
func (s *FileStore) String() string {
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(s.dir)}).String()
}

// Create implements [Store].
func (s *FileStore) Create(ctx context.Context, name string) (Draft, error) {
	if err := check(ctx, name); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("create archive %q: %w", name, err)
	}
	s.dropOldDrafts()
	f, err := os.CreateTemp(s.dir, draftPrefix+name+".*"+draftSuffix) // mode 0600
	if err != nil {
		return nil, fmt.Errorf("create archive %q: %w", name, err)
	}
	return &fileDraft{File: f, path: filepath.Join(s.dir, name)}, nil
}

// Open implements [Store].
func (s *FileStore) Open(ctx context.Context, name string) (Source, error) {
	if err := check(ctx, name); err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(s.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open archive: %w: %q in %s", tasks.ErrNotFound, name, s)
	}
	if err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open archive: %w", err), f.Close())
	}
	return fileSource{f, info.Size()}, nil
}

type fileSource struct {
	*os.File
	size int64
}

var _ Source = fileSource{}

func (s fileSource) Size() int64 { return s.size }

// List implements [Store].
func (s *FileStore) List(ctx context.Context) ([]Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	files, err := os.ReadDir(s.dir) // sorted by name
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list archives: %w", err)
	}
	var out []Object
	for _, f := range files {
		if !f.Type().IsRegular() || ValidateName(f.Name()) != nil {
			continue
		}
		info, err := f.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("list archives: %w", err)
		}
		out = append(out, Object{Name: f.Name(), Size: info.Size(), Modified: info.ModTime()})
	}
	return out, nil
}

// Delete implements [Store].
func (s *FileStore) Delete(ctx context.Context, name string) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	switch err := os.Remove(filepath.Join(s.dir, name)); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("delete archive: %w", err)
	}
	return syncDir(s.dir)
}

// dropOldDrafts removes what killed writers left. It is housekeeping: errors wait for next time.
func (s *FileStore) dropOldDrafts() {
	files, _ := os.ReadDir(s.dir)
	for _, f := range files {
		if !strings.HasPrefix(f.Name(), draftPrefix) || !strings.HasSuffix(f.Name(), draftSuffix) {
			continue
		}
		if info, err := f.Info(); err == nil && time.Since(info.ModTime()) > draftAge {
			_ = os.Remove(filepath.Join(s.dir, f.Name()))
		}
	}
}

func check(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return ValidateName(name)
}

type fileDraft struct {
	*os.File
	path string
	done bool
}

var _ Draft = (*fileDraft)(nil)

func (d *fileDraft) Commit() error {
	if d.done {
		return fmt.Errorf("commit archive %q: %w", filepath.Base(d.path), os.ErrClosed)
	}
	d.done = true
	// The bytes must be on disk before the name is: after a power cut the name must not
	// stand for less.
	err := d.Sync()
	if closeErr := d.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(d.Name(), d.path)
	}
	if err != nil {
		_ = os.Remove(d.Name())
		return fmt.Errorf("commit archive %q: %w", filepath.Base(d.path), err)
	}
	return syncDir(filepath.Dir(d.path))
}

func (d *fileDraft) Abort() error {
	if d.done {
		return nil
	}
	d.done = true
	err := d.Close()
	return errors.Join(err, os.Remove(d.Name()))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer func() { _ = d.Close() }()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}
