package demo

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/alphanode/stoker/tasks"
)

// maxLine bounds one line of a corpus file, in bytes.
const maxLine = 16 << 20

// Load reads a corpus from two files of JSON lines, gzipped or not. Unknown fields are
// ignored. What is wrong in a file is reported with its line and wraps [tasks.ErrInvalid].
//
//	articles: {"slug", "title", "body_markdown", "tags": [], "authors": [], "updated"}
//	events:   {"changes": [{"op": "A|M|D|R", "slug", "from"}]}
//
// A rename from or to null came from, or left to, outside the site: it adds or deletes.
func Load(articles, events string) (Corpus, error) {
	var c Corpus
	seen := map[string]int{}
	err := readLines(articles, func(line int, raw []byte) error {
		a, err := parseArticle(raw)
		if err != nil {
			return err
		}
		if first, dup := seen[a.Slug]; dup {
			return fmt.Errorf("%w: slug %q stands in line %d already", tasks.ErrInvalid, a.Slug, first)
		}
		seen[a.Slug] = line
		c.Articles = append(c.Articles, a)
		return nil
	})
	if err != nil {
		return Corpus{}, fmt.Errorf("read articles: %w", err)
	}
	err = readLines(events, func(_ int, raw []byte) error {
		e, err := parseEvent(raw)
		c.Events = append(c.Events, e)
		return err
	})
	if err != nil {
		return Corpus{}, fmt.Errorf("read events: %w", err)
	}
	if len(c.Events) == 0 {
		return Corpus{}, fmt.Errorf("read events: %w: %s holds none", tasks.ErrInvalid, events)
	}
	if len(c.Articles) == 0 {
		return Corpus{}, fmt.Errorf("read articles: %w: %s holds none", tasks.ErrInvalid, articles)
	}
	return c, nil
}

func parseArticle(raw []byte) (Article, error) {
	var in struct {
		Slug    string   `json:"slug"`
		Title   string   `json:"title"`
		Body    string   `json:"body_markdown"`
		Tags    []string `json:"tags"`
		Authors []string `json:"authors"`
		Updated string   `json:"updated"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return Article{}, fmt.Errorf("%w: %v", tasks.ErrInvalid, err)
	}
	a := Article(in)
	return a, a.Validate()
}

func parseEvent(raw []byte) (Event, error) {
	var in struct {
		Changes []struct {
			Op   Op      `json:"op"`
			Slug *string `json:"slug"`
			From *string `json:"from"`
		} `json:"changes"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return Event{}, fmt.Errorf("%w: %v", tasks.ErrInvalid, err)
	}
	var e Event
	for _, c := range in.Changes {
		switch {
		case c.Op == Rename && c.Slug == nil && c.From != nil:
			e.Changes = append(e.Changes, Change{Op: Delete, Slug: *c.From})
		case c.Slug == nil:
			return Event{}, fmt.Errorf("%w: a change without a slug", tasks.ErrInvalid)
		case c.Op == Rename && c.From == nil:
			e.Changes = append(e.Changes, Change{Op: Add, Slug: *c.Slug})
		case c.Op == Rename:
			e.Changes = append(e.Changes, Change{Op: Rename, Slug: *c.Slug, From: *c.From})
		default:
			e.Changes = append(e.Changes, Change{Op: c.Op, Slug: *c.Slug})
		}
	}
	return e, e.Validate()
}

// readLines calls fn with every line that is not blank; an error gets the file and line.
func readLines(path string, fn func(line int, raw []byte) error) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("%w: %v", tasks.ErrInvalid, err)
	}
	defer f.Close()
	in, err := plainText(f)
	if err != nil {
		return fmt.Errorf("%w: %s: %v", tasks.ErrInvalid, path, err)
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	n := 0
	for lines.Scan() {
		n++
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		if err := fn(n, lines.Bytes()); err != nil {
			return fmt.Errorf("%s line %d: %w", path, n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s line %d: %w: %v", path, n+1, tasks.ErrInvalid, err)
	}
	return nil
}

// plainText unpacks r if it is gzipped.
func plainText(r io.Reader) (io.Reader, error) {
	buffered := bufio.NewReader(r)
	if magic, _ := buffered.Peek(2); !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return buffered, nil
	}
	return gzip.NewReader(buffered)
}
