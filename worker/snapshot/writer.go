package snapshot

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"

	"github.com/alphanode/stoker/tasks"
)

// Writer writes one archive. It is not safe for concurrent use, and after an error it is of no
// further use: drop what it wrote.
type Writer struct {
	w      io.Writer
	zip    *zstd.Encoder
	sum    *xxhash.Digest // of everything written so far
	header Header
	footer Footer
	needs  *Needs // of everything written so far; nil where that is not known
	size   int64

	raw    []byte // the block being filled
	place  Place  // of it
	index  []byte // of the blocks before it
	frame  []byte // scratch: the frame being written
	stored []byte // scratch: the block compressed
}

// NewWriter begins an archive on w, which the caller buffers if small writes cost it.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	zip, err := newEncoder()
	if err != nil {
		return nil, err
	}
	out := &Writer{w: w, zip: zip, sum: xxhash.New(), header: h, needs: new(Needs)}
	body, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("write archive: header: %w", err)
	}
	if err := out.put(append([]byte(magic), h.version())); err != nil {
		return nil, err
	}
	return out, out.putFrame(head{kind: kindHeader, raw: uint32(len(body))}, body)
}

func newEncoder() (*zstd.Encoder, error) {
	zip, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, fmt.Errorf("write archive: %w", err)
	}
	return zip, nil
}

// Write adds entries, in order. An entry that no server could have held, or of more than
// [MaxEntry] bytes, is refused with tasks.ErrInvalid. A hash whose fields expire is an error unless
// the header has announced such.
func (w *Writer) Write(entries ...tasks.Entry) error {
	for _, e := range entries {
		if err := e.Validate(); err != nil {
			return fmt.Errorf("write archive: %w", err)
		}
		if len(e.FieldsExpireAt) > 0 && !w.header.Fields {
			return fmt.Errorf("write archive: entry %s has fields that expire, which the server did not know when the archive was begun: take the snapshot again", tasks.Bytes(e.Key))
		}
		size := entrySize(e)
		if size > MaxEntry {
			return fmt.Errorf("write archive: %w: entry %s has %d bytes: an archive takes at most %d; remove it, or expire the release without a snapshot", tasks.ErrInvalid, tasks.Bytes(e.Key), e.Size(), MaxEntry)
		}
		if len(w.raw)+size > blockTarget {
			if err := w.Flush(); err != nil {
				return err
			}
		}
		if w.place.Entries == 0 {
			w.place = Place{Offset: w.size, First: firstOf(e.Key)}
		}
		w.raw = appendEntry(w.raw, e)
		w.place.Entries++
		w.place.Tags += isTag(e)
		w.footer.count(e)
		if w.needs != nil {
			w.needs.Add(e, len(w.header.Prefix))
		}
	}
	return nil
}

// Close writes what is left, the index and the footer. It does not close what the Writer writes to.
func (w *Writer) Close() (Summary, error) {
	if err := w.Flush(); err != nil {
		return Summary{}, err
	}
	h := head{kind: kindIndex, number: uint32(w.footer.Blocks + 1), raw: uint32(len(w.index)), entries: uint32(w.footer.Blocks)}
	if err := w.putFrame(h, w.index); err != nil {
		return Summary{}, err
	}
	w.footer.Checksum = fmt.Sprintf("%016x", w.sum.Sum64())
	body, err := json.Marshal(w.footer)
	if err != nil {
		return Summary{}, fmt.Errorf("write archive: footer: %w", err)
	}
	h = head{kind: kindFooter, number: uint32(w.footer.Blocks + 2), raw: uint32(len(body))}
	if err := w.putFrame(h, body); err != nil {
		return Summary{}, err
	}
	s := Summary{Header: w.header, Footer: w.footer, Size: w.size}
	if w.needs != nil {
		s.Needs = *w.needs
	}
	return s, nil
}

// Flush ends the block that is being filled, if it holds anything.
func (w *Writer) Flush() error {
	if w.place.Entries == 0 {
		return nil
	}
	w.footer.Blocks++
	w.stored = w.zip.EncodeAll(w.raw, w.stored[:0])
	h := head{kind: kindBlock, number: uint32(w.footer.Blocks), raw: uint32(len(w.raw)), entries: uint32(w.place.Entries)}
	w.index = appendPlace(w.index, w.place)
	w.raw, w.place = w.raw[:0], Place{}
	return w.putFrame(h, w.stored)
}

// putFrame completes the head with the body's length and the checksum, and writes both.
func (w *Writer) putFrame(h head, body []byte) error {
	h.stored = uint32(len(body))
	if err := h.check(); err != nil {
		return fmt.Errorf("write archive: frame %d: %w: %v", h.number, tasks.ErrInvalid, err)
	}
	w.frame = h.append(w.frame[:0])
	h.sum = frameSum(w.frame, body)
	w.frame = append(h.append(w.frame[:0]), body...)
	return w.put(w.frame)
}

func (w *Writer) put(b []byte) error {
	n, err := w.w.Write(b)
	w.size += int64(n)
	if err != nil {
		return fmt.Errorf("write archive: at offset %d: %w", w.size, err)
	}
	_, _ = w.sum.Write(b)
	return nil
}

// writerState is a Writer between two blocks, but for its header.
type writerState struct {
	Size   int64  `json:"size"`
	Sum    []byte `json:"sum"` // of everything written so far, as its digest marshals itself
	Footer Footer `json:"footer"`
	Needs  *Needs `json:"needs,omitempty"` // nil in a state that was written before they were counted
	Index  []byte `json:"index"`
}

// state ends the block that is being filled and returns what resumeWriter needs to go on behind it.
func (w *Writer) state() (writerState, error) {
	if err := w.Flush(); err != nil {
		return writerState{}, err
	}
	sum, err := w.sum.MarshalBinary()
	if err != nil {
		return writerState{}, fmt.Errorf("write archive: checksum: %w", err)
	}
	return writerState{Size: w.size, Sum: sum, Footer: w.footer, Needs: w.needs, Index: w.index}, nil
}

// resumeWriter goes on with an archive on w, which stands behind what the state tells of.
func resumeWriter(w io.Writer, h Header, s writerState) (*Writer, error) {
	zip, err := newEncoder()
	if err != nil {
		return nil, err
	}
	out := &Writer{w: w, zip: zip, sum: xxhash.New(), header: h, size: s.Size, footer: s.Footer, needs: s.Needs, index: s.Index}
	if err := out.sum.UnmarshalBinary(s.Sum); err != nil {
		return nil, fmt.Errorf("write archive: checksum: %w", err)
	}
	return out, nil
}
