package snapshot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"

	"github.com/alphanode/stoker/tasks"
)

// Block is a run of entries as the archive holds them.
type Block struct {
	Number  int   // from 1
	Offset  int64 // of its frame in the file
	Entries []tasks.Entry
}

// Reader reads one archive. It is not safe for concurrent use. Its errors name the frame and
// the offset; those that the archive is to blame for wrap [ErrDamaged], those of the source
// (a disk, a network) do not.
type Reader struct {
	r       io.Reader
	zip     *zstd.Decoder
	sum     *xxhash.Digest // of every frame accepted so far
	header  Header
	version byte
	seen    Footer // what was counted, to be held against the footer
	needs   Needs
	skim    bool   // the blocks are not looked into
	index   []byte // the lines of the blocks read, to be held against the index
	size    int64  // bytes accepted
	done    bool

	head   [headSize]byte
	stored []byte
	raw    []byte
}

// NewReader reads the archive's header from r.
func NewReader(r io.Reader) (*Reader, error) {
	zip, err := newDecoder()
	if err != nil {
		return nil, err
	}
	in := &Reader{r: r, zip: zip, sum: xxhash.New()}
	if err := in.readMagic(); err != nil {
		return nil, err
	}
	h, body, err := in.frame(0)
	if err != nil {
		return nil, err
	}
	if h.kind != kindHeader {
		return nil, in.damaged(0, "a header belongs here")
	}
	if err := unmarshalStrict(body, &in.header); err != nil {
		return nil, in.damaged(0, "header: %v", err)
	}
	in.header.Fields = in.version >= versionFields
	in.accept(body)
	return in, nil
}

// Header returns what the archive says of itself.
func (r *Reader) Header() Header { return r.header }

// Next returns the next block, and io.EOF after the last one when the footer agrees with all
// that was read and nothing follows it. The block's entries share memory with one another but
// not with the next block's.
func (r *Reader) Next() (Block, error) {
	h, body, err := r.next()
	if err != nil {
		return Block{}, err
	}
	b := Block{Number: int(h.number), Offset: r.size}
	if b.Entries, err = r.decode(h, body); err != nil {
		return Block{}, r.damaged(b.Number, "%v", err)
	}
	r.seen.Blocks++
	r.index = appendPlace(r.index, placeOf(b.Number, b.Offset, b.Entries))
	prefix := len(r.header.Prefix)
	for _, e := range b.Entries {
		r.seen.count(e)
		r.needs.Add(e, prefix)
	}
	r.accept(body)
	return b, nil
}

// Ahead returns the blocks that are left, each read while the one before it is dealt with. It ends with
// an error, or when the archive was read to its end and is whole. Until it has ended the Reader is
// its own.
func (r *Reader) Ahead() iter.Seq2[Block, error] {
	type step struct {
		block Block
		err   error
	}
	return func(yield func(Block, error) bool) {
		steps, enough := make(chan step), make(chan struct{})
		go func() {
			defer close(steps)
			for {
				b, err := r.Next()
				if err == io.EOF {
					return
				}
				select {
				case steps <- step{b, err}:
				case <-enough:
					return
				}
				if err != nil {
					return
				}
			}
		}()
		defer func() {
			close(enough)
			for range steps { // until it is closed
			}
		}()
		for s := range steps {
			if !yield(s.block, s.err) {
				return
			}
		}
	}
}

// Summary describes the archive; it is complete once Next has returned io.EOF.
func (r *Reader) Summary() Summary {
	return Summary{Header: r.header, Footer: r.seen, Size: r.size, Needs: r.needs}
}

// Verify reads an archive to its end and checks every byte of it.
func Verify(ctx context.Context, r io.Reader) (Summary, error) {
	in, err := NewReader(r)
	if err != nil {
		return Summary{}, err
	}
	for {
		if err := ctx.Err(); err != nil {
			return Summary{}, err
		}
		switch _, err := in.Next(); {
		case err == io.EOF:
			return in.Summary(), nil
		case err != nil:
			return Summary{}, err
		}
	}
}

// Skim reads an archive to its end and holds every byte of it against the checksums, without looking into
// its blocks. One whose checksum is the one that its writer made, or that it had when it was verified, is
// what was written, or verified.
// progress, which may be nil, gets the entries passed so far.
func Skim(ctx context.Context, r io.Reader, progress func(entries int64)) (Summary, error) {
	in, err := NewReader(r)
	if err != nil {
		return Summary{}, err
	}
	in.skim = true
	for {
		if err := ctx.Err(); err != nil {
			return Summary{}, err
		}
		h, body, err := in.next()
		if err == io.EOF {
			return in.Summary(), nil
		}
		if err != nil {
			return Summary{}, err
		}
		in.seen.Blocks++
		in.seen.Entries += int64(h.entries)
		in.accept(body)
		if progress != nil {
			progress(in.seen.Entries)
		}
	}
}

func (r *Reader) readMagic() error {
	b := r.head[:len(magic)+1]
	if err := r.fill(b); err != nil {
		return r.failed(0, err)
	}
	if string(b[:len(magic)]) != magic {
		return r.damaged(0, "it does not begin as a stoker archive does")
	}
	switch err := archives.Check(int(b[len(magic)])); {
	case errors.Is(err, ErrNewer):
		return fmt.Errorf("read archive: %w, or take the archive for damaged", err)
	case err != nil:
		return r.damaged(0, "there is no format version 0")
	}
	r.version = b[len(magic)]
	_, _ = r.sum.Write(b)
	r.size = int64(len(b))
	return nil
}

// next reads the next frame: a block's, or io.EOF after index and footer.
func (r *Reader) next() (head, []byte, error) {
	if r.done {
		return head{}, nil, io.EOF
	}
	number := r.seen.Blocks + 1
	h, body, err := r.frame(number)
	switch {
	case err != nil:
		return head{}, nil, err
	case h.kind == kindBlock:
		return h, body, nil
	case h.kind != kindIndex:
		return head{}, nil, r.damaged(number, "a block or the index belongs here")
	case int(h.entries) != r.seen.Blocks || !r.skim && !bytes.Equal(body, r.index):
		return head{}, nil, r.damaged(number, "the index does not tell of the blocks before it")
	}
	r.accept(body)
	return head{}, nil, r.finish(number + 1)
}

// frame reads one frame and checks its sum and number; the caller accepts it.
func (r *Reader) frame(number int) (head, []byte, error) {
	if err := r.fill(r.head[:]); err != nil {
		return head{}, nil, r.failed(number, err)
	}
	h := parseHead(r.head[:])
	if err := h.check(); err != nil {
		return head{}, nil, r.damaged(number, "%v", err)
	}
	if err := r.body(int(h.stored)); err != nil {
		return head{}, nil, r.failed(number, err)
	}
	if frameSum(r.head[:], r.stored) != h.sum {
		return head{}, nil, r.damaged(number, "checksum mismatch")
	}
	if int64(h.number) != int64(number) {
		return head{}, nil, r.damaged(number, "frame %d stands here", h.number)
	}
	return h, r.stored, nil
}

// body reads n bytes into r.stored, which grows as they come: n may be a lie.
func (r *Reader) body(n int) error {
	r.stored = r.stored[:0]
	for n > 0 {
		from, step := len(r.stored), min(n, 1<<20)
		if cap(r.stored) < from+step {
			r.stored = append(make([]byte, 0, 2*from+step), r.stored...)
		}
		r.stored = r.stored[:from+step]
		if err := r.fill(r.stored[from:]); err != nil {
			return err
		}
		n -= step
	}
	return nil
}

func (r *Reader) decode(h head, body []byte) ([]tasks.Entry, error) {
	if cap(r.raw) < int(h.raw) {
		r.raw = make([]byte, 0, h.raw)
	}
	// The capacity is the limit of what the decoder may write.
	raw, err := r.zip.DecodeAll(body, r.raw[:0:h.raw])
	if err != nil {
		return nil, fmt.Errorf("decompress: %v", err)
	}
	if len(raw) != int(h.raw) {
		return nil, fmt.Errorf("decompress: %d bytes instead of %d", len(raw), h.raw)
	}
	p := parser{text: string(raw), old: r.version == versionPlain}
	return p.entries(int(h.entries))
}

// finish holds the footer against what was read, and makes sure that it is the end.
func (r *Reader) finish(number int) error {
	h, body, err := r.frame(number)
	if err != nil {
		return err
	}
	if h.kind != kindFooter {
		return r.damaged(number, "the footer belongs here")
	}
	var f Footer
	if err := unmarshalStrict(body, &f); err != nil {
		return r.damaged(number, "footer: %v", err)
	}
	r.seen.Checksum = fmt.Sprintf("%016x", r.sum.Sum64())
	if r.skim { // what only the blocks could tell
		r.seen.Bytes, r.seen.Tags, r.seen.Dumps, r.seen.DumpVersion = f.Bytes, f.Tags, f.Dumps, f.DumpVersion
	}
	if f != r.seen {
		return r.damaged(number, "the footer tells of %+v, the archive holds %+v", f, r.seen)
	}
	r.accept(body)
	switch n, err := io.ReadFull(r.r, r.head[:1]); {
	case n > 0:
		return r.damaged(number, "something follows the footer")
	case err != io.EOF:
		return r.failed(number, err)
	}
	r.done = true
	return io.EOF
}

// accept counts a frame as read.
func (r *Reader) accept(body []byte) {
	_, _ = r.sum.Write(r.head[:])
	_, _ = r.sum.Write(body)
	r.size += int64(len(r.head) + len(body))
}

// fill reads len(b) bytes; the end of the source before that is errCut.
func (r *Reader) fill(b []byte) error {
	_, err := io.ReadFull(r.r, b)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errCut
	}
	return err
}

var errCut = errors.New("the file ends here, before its footer")

func (r *Reader) failed(number int, err error) error {
	if err == errCut {
		return r.damaged(number, "%v", err)
	}
	return fmt.Errorf("read archive: %s at offset %d: %w", place(number), r.size, err)
}

func (r *Reader) damaged(number int, format string, args ...any) error {
	return fmt.Errorf("read archive: %w: %s at offset %d: %s", ErrDamaged, place(number), r.size, fmt.Sprintf(format, args...))
}

func place(number int) string {
	if number == 0 {
		return "header"
	}
	return fmt.Sprintf("frame %d", number)
}

func unmarshalStrict(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}
