package snapshot

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"filippo.io/age"
)

// sealMark is how an encrypted archive begins.
const sealMark = "age-encryption.org/v1\n"

// Seal returns a store that encrypts what it keeps in s, with age (age-encryption.org/v1), and
// decrypts what it reads. Archives that are not encrypted are read as they are, and without keys
// all are written so. Only contents are encrypted: names and sizes are seen in the store.
func Seal(s Store, k Keys) Store { return sealed{s, k} }

type sealed struct {
	Store
	keys Keys
}

var _ Store = sealed{}

// Create implements [Store].
func (s sealed) Create(ctx context.Context, name string) (Draft, error) {
	d, err := s.Store.Create(ctx, name)
	if err != nil || len(s.keys.recipients) == 0 {
		return d, err
	}
	w, err := age.Encrypt(d, s.keys.recipients...)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("encrypt archive %q: %w", name, err), d.Abort())
	}
	return sealedDraft{d, w}, nil
}

// Resume implements [Store]. The state of an encryption holds its key, which belongs into no
// checkpoint, so an encrypted archive begins anew.
func (s sealed) Resume(ctx context.Context, name string, at json.RawMessage) (Draft, error) {
	if len(s.keys.recipients) > 0 {
		return nil, errNoResume(name, "it is encrypted")
	}
	return s.Store.Resume(ctx, name, at)
}

// sealedDraft writes through the encryption.
type sealedDraft struct {
	Draft
	w io.WriteCloser
}

func (d sealedDraft) Write(b []byte) (int, error) { return d.w.Write(b) }

// Commit implements [Draft]: the encryption's last part first.
func (d sealedDraft) Commit() error {
	if err := d.w.Close(); err != nil {
		return errors.Join(err, d.Abort())
	}
	return d.Draft.Commit()
}

// Due implements [Draft].
func (sealedDraft) Due() bool { return false }

// Checkpoint implements [Draft]: there is none of an encryption.
func (sealedDraft) Checkpoint() (json.RawMessage, error) { return nil, nil }

// Open implements [Store]. An archive that the keys do not open is refused with tasks.ErrRefused.
func (s sealed) Open(ctx context.Context, name string) (Source, error) {
	in, err := s.Store.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	src := &sealedSource{Source: in, keys: s.keys, under: remembering{r: in}}
	plain := bufio.NewReaderSize(&src.under, 64<<10)
	start, err := plain.Peek(len(sealMark))
	if err != nil && err != io.EOF {
		return nil, errors.Join(err, in.Close())
	}
	if string(start) != sealMark {
		src.plain = plain
		return src, nil
	}
	if src.plain, err = age.Decrypt(plain, s.keys.orNone()...); err != nil {
		if src.under.err == nil {
			err = s.keys.refuse(name, err)
		}
		return nil, errors.Join(err, in.Close())
	}
	src.encrypted = true
	return src, nil
}

// orNone returns the identities; without any, one that opens nothing, which age wants.
func (k Keys) orNone() []age.Identity {
	if len(k.identities) == 0 {
		return []age.Identity{noIdentity{}}
	}
	return k.identities
}

type noIdentity struct{}

// Unwrap implements [age.Identity].
func (noIdentity) Unwrap([]*age.Stanza) ([]byte, error) { return nil, age.ErrIncorrectIdentity }

// sealedSource reads an archive that may be encrypted.
type sealedSource struct {
	Source
	keys      Keys
	under     remembering
	plain     io.Reader
	encrypted bool
	at        int64 // bytes read

	anywhere sync.Once
	window   window
	readerAt io.ReaderAt
	size     int64
	atErr    error
}

var _ Source = (*sealedSource)(nil)

// Read implements [Source]. What the store did not deliver is the store's error; what it
// delivered and cannot be decrypted is damage.
func (s *sealedSource) Read(b []byte) (int, error) {
	n, err := s.plain.Read(b)
	s.at += int64(n)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF && s.under.err == nil {
		err = fmt.Errorf("%w: the encryption of what follows offset %d does not match", ErrDamaged, s.at)
	}
	return n, err
}

// Size implements [Source]: after decryption.
func (s *sealedSource) Size() int64 {
	if !s.encrypted {
		return s.Source.Size()
	}
	s.open()
	return s.size
}

// ReadAt implements [Source].
func (s *sealedSource) ReadAt(b []byte, off int64) (int, error) {
	if !s.encrypted {
		return s.Source.ReadAt(b, off)
	}
	s.open()
	if s.atErr != nil {
		return 0, s.atErr
	}
	n, err := s.readerAt.ReadAt(b, off)
	if err != nil && err != io.EOF && s.window.failed() == nil {
		err = fmt.Errorf("%w: the encryption of what follows offset %d does not match", ErrDamaged, off)
	}
	return n, err
}

func (s *sealedSource) open() {
	s.anywhere.Do(func() {
		s.window = window{src: s.Source}
		s.readerAt, s.size, s.atErr = age.DecryptReaderAt(&s.window, s.Source.Size(), s.keys.identities...)
		if s.atErr != nil && s.window.failed() == nil {
			s.atErr = fmt.Errorf("%w: the end of its encryption: %v", ErrDamaged, s.atErr)
		}
	})
}

// remembering keeps the error of the reader below, which others wrap or hide.
type remembering struct {
	r   io.Reader
	err error
}

func (m *remembering) Read(b []byte) (int, error) {
	n, err := m.r.Read(b)
	if err != nil && err != io.EOF {
		m.err = err
	}
	return n, err
}

// window turns many small reads into few large ones: a read of an S3 object is a request.
type window struct {
	src  io.ReaderAt
	mu   sync.Mutex
	from int64
	data []byte
	err  error // of src, which the decryption hides
}

// failed returns the error with which the source failed last.
func (w *window) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

const windowSize = 4 << 20

// ReadAt implements [io.ReaderAt].
func (w *window) ReadAt(b []byte, off int64) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if off < w.from || off+int64(len(b)) > w.from+int64(len(w.data)) {
		data := make([]byte, max(windowSize, len(b)))
		n, err := w.src.ReadAt(data, off)
		if err != nil && err != io.EOF {
			w.err = err
			return 0, err
		}
		w.from, w.data = off, data[:n]
	}
	n := copy(b, w.data[off-w.from:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}
