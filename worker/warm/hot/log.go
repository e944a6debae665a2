package hot

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/gzip"

	"github.com/alphanode/stoker/tasks"
)

const (
	maxLine    = 64 << 10 // bytes of a line; a longer one is not of the format
	spare      = 100_000  // places beyond twice the list's size
	checkEvery = 10_000   // lines between two looks at the context
)

// ReadLog counts the requests of an access log, of all files that the pattern names, and returns the n
// paths that were asked for most. A file that is gone by the time of its turn was rotated away and is
// passed over. It refuses, with [tasks.ErrInvalid], a pattern that names no file, and a log most of whose lines
// are of neither format.
func ReadLog(ctx context.Context, pattern string, n int) (List, error) {
	files, err := files(pattern)
	if err != nil {
		return List{}, err
	}
	r := reader{counter: newCounter(2*n + spare)}
	for _, file := range files {
		if err := r.file(ctx, file); err != nil {
			return List{}, fmt.Errorf("read access log %s: %w", file, err)
		}
	}
	if err := r.refuse(pattern); err != nil {
		return List{}, err
	}
	return List{Items: canonical(r.counter.top(n)), Total: float64(r.wanted), Paths: true, Counted: true}, nil
}

// probeLines is how many lines of the first file a probe reads.
const probeLines = 1000

// errEnough ends a probe.
var errEnough = errors.New("enough")

// ProbeLog reports what [ReadLog] would refuse, by the first lines of the first file.
func ProbeLog(ctx context.Context, pattern string) error {
	files, err := files(pattern)
	if err != nil {
		return err
	}
	r := reader{counter: newCounter(1), most: probeLines}
	if err := r.file(ctx, files[0]); err != nil && !errors.Is(err, errEnough) {
		return fmt.Errorf("read access log %s: %w", files[0], err)
	}
	return r.refuse(pattern)
}

// files returns what a pattern names.
func files(pattern string) ([]string, error) {
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("%w: access log %q: there is no such file on this machine", tasks.ErrInvalid, pattern)
	}
	return files, nil
}

// canonical writes paths as a crawl does, and adds up those that are written alike then.
func canonical(items []Item) []Item {
	weights := make(map[string]float64, len(items))
	for _, it := range items {
		if u, err := url.ParseRequestURI(it.Name); err == nil {
			weights[u.RequestURI()] += it.Weight
		}
	}
	var all []Item
	for name, weight := range weights {
		all = append(all, Item{name, weight})
	}
	return sorted(all)
}

// reader counts what files tell.
type reader struct {
	counter *counter
	lines   int64
	wanted  int64
	strange int64 // lines of another format
	example string
	most    int64 // lines to read; 0 means all
}

// refuse reports a log that is of another format.
func (r *reader) refuse(pattern string) error {
	if r.strange <= r.lines/2 {
		return nil
	}
	return fmt.Errorf("%w: access log %q: %d of %d lines are in neither common nor combined format, such as %.200q", tasks.ErrInvalid, pattern, r.strange, r.lines, r.example)
}

func (r *reader) file(ctx context.Context, name string) error {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", tasks.ErrInvalid, err)
	}
	defer f.Close()
	plain, err := unzipped(f)
	if err != nil {
		return err
	}
	return r.read(ctx, plain)
}

// unzipped returns the text of a file that may be compressed with gzip, whatever its name.
func unzipped(f io.Reader) (io.Reader, error) {
	buffered := bufio.NewReaderSize(f, maxLine)
	magic, err := buffered.Peek(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return buffered, nil
	}
	return gzip.NewReader(buffered)
}

func (r *reader) read(ctx context.Context, text io.Reader) error {
	lines := bufio.NewReaderSize(text, maxLine)
	for {
		line, err := lines.ReadSlice('\n')
		long := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = lines.ReadSlice('\n')
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if line = bytes.TrimRight(line, "\r\n"); long || len(line) > 0 {
			r.line(line, long)
		}
		if err != nil {
			return nil
		}
		if r.lines == r.most {
			return errEnough
		}
		if r.lines%checkEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func (r *reader) line(line []byte, long bool) {
	r.lines++
	asked, ok := request{}, false
	if !long {
		asked, ok = parseLine(line)
	}
	if !ok {
		if r.strange++; r.example == "" {
			r.example = string(line[:min(len(line), 200)])
		}
		return
	}
	if asked.wanted() {
		r.wanted++
		r.counter.add(asked.path)
	}
}
