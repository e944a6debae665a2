package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// draftAge is how old a draft is that nobody can want any more, and that nobody discarded: no task
// is tried again for so long.
const draftAge = 7 * 24 * time.Hour

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
	return &fileDraft{file: f, path: filepath.Join(s.dir, name)}, nil
}

// fileMark is the checkpoint of a draft.
type fileMark struct {
	File string `json:"file"` // in the store's directory
	Size int64  `json:"size"`
}

// Resume implements [Store]. It goes on in a copy, so that an earlier writer which is not quite dead
// cannot write into it; what that had stays until the copy has a checkpoint of its own.
func (s *FileStore) Resume(ctx context.Context, name string, at json.RawMessage) (Draft, error) {
	if err := check(ctx, name); err != nil {
		return nil, err
	}
	var m fileMark
	if err := json.Unmarshal(at, &m); err != nil || !draftOf(m.File, name) || m.Size < 0 {
		return nil, errNoResume(name, "its checkpoint is not one of a file")
	}
	from, err := os.Open(filepath.Join(s.dir, m.File))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoResume(name, "its draft is gone")
	}
	if err != nil {
		return nil, fmt.Errorf("go on with archive %q: %w", name, err)
	}
	defer func() { _ = from.Close() }()
	if info, err := from.Stat(); err != nil || info.Size() < m.Size {
		return nil, errNoResume(name, "its draft is shorter than it was")
	}
	if err := s.discard(name, m.File); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(s.dir, draftPrefix+name+".*"+draftSuffix)
	if err != nil {
		return nil, fmt.Errorf("go on with archive %q: %w", name, err)
	}
	d := &fileDraft{file: f, path: filepath.Join(s.dir, name), size: m.Size, last: m.Size, from: from.Name()}
	if _, err := io.CopyN(f, from, m.Size); err != nil {
		return nil, errors.Join(fmt.Errorf("go on with archive %q: %w", name, err), f.Close(), os.Remove(f.Name()))
	}
	return d, nil
}

// Discard implements [Store].
func (s *FileStore) Discard(ctx context.Context, name string) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	return s.discard(name, "")
}

// discard removes the drafts of a name but one.
func (s *FileStore) discard(name, but string) error {
	files, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("discard drafts of archive %q: %w", name, err)
	}
	for _, f := range files {
		if f.Name() == but || !draftOf(f.Name(), name) {
			continue
		}
		if err := os.Remove(filepath.Join(s.dir, f.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("discard drafts of archive %q: %w", name, err)
		}
	}
	return nil
}

// draftOf reports whether a file in the store's directory is a draft of that name.
func draftOf(file, name string) bool {
	middle, ok := strings.CutPrefix(file, draftPrefix+name+".")
	middle, ends := strings.CutSuffix(middle, draftSuffix)
	return ok && ends && middle != "" && strings.Trim(middle, "0123456789") == ""
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

// fileDraft is a file that becomes the archive.
type fileDraft struct {
	file *os.File
	path string // of the archive
	size int64
	last int64  // size at the last checkpoint
	from string // the draft that this one goes on with, until a checkpoint of its own is kept
	own  bool   // there is a checkpoint of its own
	done bool
}

var _ Draft = (*fileDraft)(nil)

func (d *fileDraft) name() string { return filepath.Base(d.path) }

// Write implements [Draft].
func (d *fileDraft) Write(b []byte) (int, error) {
	n, err := d.file.Write(b)
	d.size += int64(n)
	return n, err
}

// Commit implements [Draft].
func (d *fileDraft) Commit() error {
	if d.done {
		return fmt.Errorf("commit archive %q: %w", d.name(), os.ErrClosed)
	}
	d.done = true
	// The bytes must be on disk before the name is: after a power cut the name must not
	// stand for less.
	err := d.file.Sync()
	if closeErr := d.file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(d.file.Name(), d.path)
	}
	if err != nil {
		return fmt.Errorf("commit archive %q: %w", d.name(), errors.Join(err, d.drop()))
	}
	return errors.Join(d.replace(), syncDir(filepath.Dir(d.path)))
}

// Abort implements [Draft].
func (d *fileDraft) Abort() error {
	if d.done {
		return nil
	}
	d.done = true
	return errors.Join(d.file.Close(), d.drop())
}

// drop removes the draft, and what it goes on with.
func (d *fileDraft) drop() error {
	err := os.Remove(d.file.Name())
	if errors.Is(err, fs.ErrNotExist) { // discarded by another
		err = nil
	}
	return errors.Join(err, d.replace())
}

// replace removes what the draft goes on with.
func (d *fileDraft) replace() error {
	if d.from == "" {
		return nil
	}
	err := os.Remove(d.from)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	d.from = ""
	return err
}

// Due implements [Draft]: soon for one that goes on with another, which takes room until then.
func (d *fileDraft) Due() bool { return d.from != "" && d.size > d.last || worth(d.size, d.last) }

// Checkpoint implements [Draft]. It does not wait for the disk: what a power cut takes is found when
// the archive is read back.
func (d *fileDraft) Checkpoint() (json.RawMessage, error) {
	if d.own { // and was kept, since there is another one now
		if err := d.replace(); err != nil {
			return nil, fmt.Errorf("checkpoint of archive %q: %w", d.name(), err)
		}
	}
	d.own, d.last = true, d.size
	return json.Marshal(fileMark{filepath.Base(d.file.Name()), d.size})
}

// Leave implements [Draft].
func (d *fileDraft) Leave() error {
	if d.done {
		return nil
	}
	d.done = true
	return d.file.Close()
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
