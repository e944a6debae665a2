package crawl

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/source"
)

// Limits of a sitemap: the protocol's own 50 MiB a file, and a depth and number of nested
// files that no site needs but a broken index may reach.
const (
	maxSitemapBytes = 50 << 20
	maxSitemapDepth = 3
	maxSitemaps     = 5_000
	maxLine         = 64 << 10
	maxAddress      = 8 << 10          // bytes of an address that can be visited
	shownAddress    = 200              // bytes of one that cannot
	maxElements     = 16               // levels of XML elements; a sitemap has three
	sitemapLimit    = 10 * time.Minute // for reading one
)

// notAddress begins an item that is no address.
const notAddress = "not an address: "

func errBase(text string) error {
	return fmt.Errorf("base %q: use scheme and host of the new build's instance, such as http://canary:8080", text)
}

func errAddress(addr string) error {
	return fmt.Errorf("%w: address %q: use a path such as /about or a whole http address", tasks.ErrInvalid, addr)
}

// lister walks the addresses of a spec, each once.
type lister struct {
	s        *Source
	fn       func(path string) error
	seen     map[uint64]struct{} // ranks of paths: eight bytes for each of perhaps millions
	sitemaps map[string]struct{}
}

// list calls fn with every path of the source, as sitemap, list and file hold them.
func (s *Source) list(ctx context.Context, fn func(path string) error) error {
	l := &lister{s: s, fn: fn, seen: map[uint64]struct{}{}, sitemaps: map[string]struct{}{}}
	if s.spec.Sitemap != "" {
		if err := l.sitemap(ctx, s.spec.Sitemap, 0); err != nil {
			return err
		}
	}
	for _, u := range s.spec.URLs {
		if err := l.add(u); err != nil {
			return err
		}
	}
	if s.spec.URLsFile == "" {
		return nil
	}
	f, err := os.Open(s.spec.URLsFile)
	if err != nil {
		return fmt.Errorf("%w: urls_file: %v", tasks.ErrInvalid, err)
	}
	defer f.Close()
	return l.lines(f)
}

func (l *lister) lines(r io.Reader) error {
	scan := bufio.NewScanner(r)
	scan.Buffer(nil, maxLine)
	for scan.Scan() {
		if line := strings.TrimSpace(scan.Text()); line != "" {
			if err := l.add(line); err != nil {
				return err
			}
		}
	}
	if err := scan.Err(); err != nil {
		return fmt.Errorf("%w: urls_file %q: %v", tasks.ErrInvalid, l.s.spec.URLsFile, err)
	}
	return nil
}

// add lists an address. One that is none is listed as it is, and fails when it is visited.
func (l *lister) add(addr string) error {
	path, err := l.s.pathIn(addr)
	if err != nil || len(path) > maxAddress {
		path = notAddress + strings.ToValidUTF8(addr[:min(len(addr), shownAddress)], "")
	}
	rank := source.Rank(path)
	if _, ok := l.seen[rank]; ok {
		return nil
	}
	l.seen[rank] = struct{}{}
	return l.fn(path)
}

// sitemap reads a sitemap, or an index and the sitemaps it names.
func (l *lister) sitemap(ctx context.Context, addr string, depth int) error {
	path, err := l.s.pathIn(addr)
	if err != nil {
		return errAddress(addr)
	}
	if !strings.HasPrefix(path, "/") {
		return fmt.Errorf("%w: sitemap %q is on another host: add that to the crawl's hosts if it is the site's", tasks.ErrInvalid, path)
	}
	if _, ok := l.sitemaps[path]; ok {
		return nil
	}
	l.sitemaps[path] = struct{}{}
	if depth > maxSitemapDepth || len(l.sitemaps) > maxSitemaps {
		return fmt.Errorf("%w: sitemap %q: more than %d levels or %d files", tasks.ErrInvalid, path, maxSitemapDepth, maxSitemaps)
	}
	nested, err := l.read(ctx, path)
	if err != nil {
		return fmt.Errorf("sitemap %q: %w", path, err)
	}
	for _, addr := range nested {
		if err := l.sitemap(ctx, addr, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// read streams one sitemap's addresses; it returns the sitemaps that an index names.
func (l *lister) read(ctx context.Context, path string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, sitemapLimit)
	defer cancel()
	headers := l.s.headers.Clone()
	headers.Set("Accept-Encoding", "gzip") // whatever the plan has pages come in
	a, err := l.s.open(ctx, path, headers)
	if err != nil {
		return nil, err
	}
	if a.body == nil {
		return nil, fmt.Errorf("answered %s", a.status)
	}
	defer a.body.Close()
	body, err := inflate(a.body)
	if err != nil {
		return nil, err
	}
	limited := &io.LimitedReader{R: body, N: maxSitemapBytes + 1}
	nested, err := parseSitemap(limited, l.add)
	if limited.N <= 0 {
		return nil, fmt.Errorf("%w: larger than %d bytes: split it and name the parts in an index", tasks.ErrInvalid, maxSitemapBytes)
	}
	return nested, err
}

// inflate returns the body, unpacked where it is gzip: a .gz file is served with or without gzip
// around it, and with or without a header that says so.
func inflate(body io.Reader) (io.Reader, error) {
	for range 2 {
		r := bufio.NewReader(body)
		body = r
		if head, _ := r.Peek(2); !bytes.Equal(head, []byte{0x1f, 0x8b}) {
			break
		}
		unzipped, err := gzip.NewReader(r)
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		body = unzipped
	}
	return body, nil
}

// parseSitemap calls page with each address of a urlset and returns those of a sitemapindex.
func parseSitemap(r io.Reader, page func(addr string) error) (nested []string, err error) {
	var root string
	var inside []string
	dec := xml.NewDecoder(r)
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) && root != "" {
			return nested, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read: %w", err)
		}
		switch t := token.(type) {
		case xml.StartElement:
			if inside = append(inside, t.Name.Local); len(inside) > maxElements {
				return nil, fmt.Errorf("%w: more than %d elements in one another", tasks.ErrInvalid, maxElements)
			}
			if len(inside) == 1 {
				root = t.Name.Local
			}
			if root != "urlset" && root != "sitemapindex" {
				return nil, fmt.Errorf("%w: its root is <%s>, not <urlset> or <sitemapindex>", tasks.ErrInvalid, root)
			}
		case xml.EndElement:
			inside = inside[:len(inside)-1]
		case xml.CharData:
			addr := strings.TrimSpace(string(t))
			switch {
			case addr == "" || len(inside) != 3 || inside[2] != "loc":
			case inside[1] == "url":
				if err := page(addr); err != nil {
					return nil, err
				}
			case inside[1] == "sitemap":
				nested = append(nested, addr)
			}
		}
	}
}
