package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/alphanode/stoker/tasks"
)

// Salvaged says what a damaged archive still holds, and what not.
type Salvaged struct {
	Blocks  int    `json:"blocks"`  // read whole
	Entries int64  `json:"entries"` // in them
	Tags    int64  `json:"tags"`    // of those, tag indexes
	Lost    []Lost `json:"lost"`    // the first damaged places
}

// Lost is a place of an archive that cannot be read.
type Lost struct {
	Block   int         `json:"block,omitempty"` // 0 where no block's number is known
	Offset  int64       `json:"offset"`
	Entries int64       `json:"entries,omitempty"` // that were in the block, where the index tells
	First   tasks.Bytes `json:"first,omitempty"`   // the first bytes of its first key, where the index tells
}

// shownLost is how many damaged places a Salvaged lists at most.
const shownLost = 20

// Salvage hands out the blocks of an archive that are whole, in order, and says what is not. Only
// frames whose checksum holds are believed; what is between them is lost. Errors are those of
// the source and of visit. Header, index and footer may be damaged as well: whose archive it is, and
// what it held, is then for the caller to know.
func Salvage(ctx context.Context, src Source, visit func(Block) error) (Salvaged, error) {
	zip, err := newDecoder()
	if err != nil {
		return Salvaged{}, err
	}
	s := salvage{src: holes{src}, size: src.Size(), zip: zip, visit: visit, seen: map[int]bool{}}
	at := int64(len(magic) + 1)
	for at < s.size {
		if err := ctx.Err(); err != nil {
			return Salvaged{}, err
		}
		next, ok, err := s.frame(at)
		if err == nil && !ok {
			s.out.lose(Lost{Offset: at})
			next, err = s.search(ctx, at+1)
		}
		if err != nil {
			return Salvaged{}, err
		}
		at = next
	}
	s.name()
	return s.out, nil
}

func newDecoder() (*zstd.Decoder, error) {
	zip, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(MaxEntry), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, fmt.Errorf("read archive: %w", err)
	}
	return zip, nil
}

// salvage is one pass over a damaged archive.
type salvage struct {
	src    holes
	size   int64
	zip    *zstd.Decoder
	visit  func(Block) error
	last   int // number of the last frame that was whole
	seen   map[int]bool
	places []Place // from the index, when it is whole
	out    Salvaged
}

// frame reads the frame at an offset; ok is false when none that is whole begins there.
func (s *salvage) frame(at int64) (next int64, ok bool, err error) {
	var raw [headSize]byte
	if s.size-at < headSize {
		return 0, false, nil
	}
	if err := s.src.read(raw[:], at); err != nil {
		return 0, false, err
	}
	h := parseHead(raw[:])
	next = at + headSize + int64(h.stored)
	if h.check() != nil || next > s.size || h.kind != kindHeader && int64(h.number) <= int64(s.last) {
		return 0, false, nil
	}
	body := make([]byte, h.stored) // no longer than the file
	if err := s.src.read(body, at+headSize); err != nil {
		return 0, false, err
	}
	if frameSum(raw[:], body) != h.sum {
		return 0, false, nil
	}
	ok, err = s.take(h, body, at)
	return next, ok, err
}

// take makes use of a whole frame.
func (s *salvage) take(h head, body []byte, at int64) (ok bool, err error) {
	s.last = int(h.number)
	switch h.kind {
	case kindIndex:
		s.places, err = parseIndex(body, int(h.entries))
		return err == nil, nil
	case kindBlock:
		in := Reader{zip: s.zip}
		b := Block{Number: int(h.number), Offset: at}
		if b.Entries, err = in.decode(h, body); err != nil {
			return false, nil
		}
		s.seen[b.Number] = true
		s.out.Blocks++
		s.out.Entries += int64(len(b.Entries))
		for _, e := range b.Entries {
			s.out.Tags += isTag(e)
		}
		return true, s.visit(b)
	}
	return true, nil
}

// search returns where the next whole frame begins, or the end of the archive.
func (s *salvage) search(ctx context.Context, at int64) (int64, error) {
	const step = 1 << 20
	window := make([]byte, step+headSize)
	for ; at < s.size; at += step {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		part := window[:min(int64(len(window)), s.size-at)]
		if err := s.src.read(part, at); err != nil {
			return 0, err
		}
		for i := 0; i < step && i+headSize <= len(part); i++ {
			if !s.plausible(part[i:], at+int64(i)) {
				continue
			}
			found, err := s.whole(at + int64(i))
			if err != nil || found {
				return at + int64(i), err
			}
		}
	}
	return s.size, nil
}

// plausible reports whether a frame may begin with these bytes, before its body is read.
func (s *salvage) plausible(b []byte, at int64) bool {
	switch kind(b[0]) {
	case kindBlock, kindIndex, kindFooter:
	default:
		return false
	}
	h := parseHead(b)
	// Every frame takes a head at least, so the number cannot be far ahead.
	return h.check() == nil && at+headSize+int64(h.stored) <= s.size &&
		int64(h.number) > int64(s.last) && int64(h.number)-int64(s.last) <= s.size/headSize
}

// whole reports whether the frame at an offset has its checksum.
func (s *salvage) whole(at int64) (bool, error) {
	var raw [headSize]byte
	if err := s.src.read(raw[:], at); err != nil {
		return false, err
	}
	h := parseHead(raw[:])
	body := make([]byte, h.stored)
	if err := s.src.read(body, at+headSize); err != nil {
		return false, err
	}
	return frameSum(raw[:], body) == h.sum, nil
}

// name replaces what is lost by what the index knows of it.
func (s *salvage) name() {
	if s.places == nil {
		return
	}
	s.out.Lost = nil
	for _, p := range s.places {
		if !s.seen[p.Number] {
			s.out.lose(Lost{p.Number, p.Offset, p.Entries, p.First})
		}
	}
}

func (s *Salvaged) lose(l Lost) {
	if len(s.Lost) < shownLost {
		s.Lost = append(s.Lost, l)
	}
}

// holes reads a source and puts zeros, which no checksum takes for data, where the encryption of
// a part does not match.
type holes struct{ src Source }

// holeSize is the part that encryption loses with one wrong bit.
const holeSize = 64 << 10

func (h holes) read(b []byte, off int64) error {
	err := h.full(b, off)
	if !errors.Is(err, ErrDamaged) {
		return err
	}
	for len(b) > 0 {
		n := min(int64(len(b)), holeSize-off%holeSize)
		switch err := h.full(b[:n], off); {
		case errors.Is(err, ErrDamaged):
			clear(b[:n])
		case err != nil:
			return err
		}
		b, off = b[n:], off+n
	}
	return nil
}

func (h holes) full(b []byte, off int64) error {
	n, err := h.src.ReadAt(b, off)
	if n == len(b) && err == io.EOF {
		return nil
	}
	return err
}
