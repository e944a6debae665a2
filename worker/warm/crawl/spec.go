// Package crawl is the source that visits pages of the new build's own instance, so that the
// instance fills its own cache with its own code. The crawl itself writes nothing.
//
// A page counts as warm when it answered with the expected status and headers, and, where the
// plan names the entry that it should leave behind, when the runner finds that entry.
package crawl

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/net/http/httpguts"

	"github.com/alphanode/stoker/worker/warm/source"
)

// Spec says which pages to visit, and how: the plan's `crawl`. The addresses are those of the
// sitemap, the list and the file together, each once; of each only path and query count, and what is
// asked is always the base.
type Spec struct {
	Base        string            `yaml:"base"`                  // the instance: scheme and host; may hold {{.Release}}
	Sitemap     string            `yaml:"sitemap,omitempty"`     // path of a sitemap or sitemap index, plain or gzip
	URLs        []string          `yaml:"urls,omitempty"`        // paths or addresses
	URLsFile    string            `yaml:"urls_file,omitempty"`   // a file of them on the worker's machine, one a line
	Hot         bool              `yaml:"hot,omitempty"`         // the paths of the plan's hot list as well: the runner lists them
	Hosts       []string          `yaml:"hosts,omitempty"`       // of the site: other hosts' addresses fail, redirects to these are followed on the base; none means that addresses' hosts do not matter
	Concurrency int               `yaml:"concurrency,omitempty"` // requests at a time and batch, at most, 1 to 64; 0 means as many as the origin bears
	Timeout     source.Duration   `yaml:"timeout,omitempty"`     // of one request; "" means 30s
	Headers     map[string]string `yaml:"headers,omitempty"`     // templates with {{.Release}}
	Variants    []Variant         `yaml:"variants,omitempty"`    // ways in which every page is asked for; none means one
	Bypass      *Bypass           `yaml:"bypass,omitempty"`      // sent where the entry is there before the visit
	Redirects   int               `yaml:"redirects,omitempty"`   // that are followed, within the base and the hosts, 0 to 10
}

// Expect says what a visit must show: the plan's `expect`. Templates see Path, Query, Release and
// Variant.
type Expect struct {
	Key    string            `yaml:"key,omitempty"`    // template of the logical key that the visit leaves behind
	Header map[string]string `yaml:"header,omitempty"` // templates of header values, compared exactly
	Status int               `yaml:"status,omitempty"` // 200 to 299; 0 means 200
	// MaxSize is the largest page that counts, such as 2MiB; "" means 64MiB.
	MaxSize string `yaml:"max_size,omitempty"`
	// Accept are answers that count although they would not: set_cookie, no_store, empty. They are for
	// sites that cache parts of pages and answer each visitor by himself.
	Accept []source.Kind `yaml:"accept,omitempty"`
}

// Defaults of a [Spec].
const (
	maxConcurrency = 64
	defaultTimeout = 30 * time.Second
	maxTimeout     = 10 * time.Minute
	defaultMaxSize = 64 << 20 // bytes
	maxMaxSize     = 1 << 30  // bytes
	maxRedirects   = 10
)

// acceptable are the kinds of answers that a plan may accept.
var acceptable = []source.Kind{source.SetsCookie, source.NoStore, source.Empty}

// pageNames are the names of a page's fields.
var pageNames = []string{"Path", "Query", "Release", "Variant"}

// page is what templates see of a page.
type page struct {
	Path    string // decoded, with its leading slash
	Query   string // raw, without the question mark
	Release string
	Variant string // its name; "" without variants
}

// Check adds what is wrong with the spec, which stands at path in the plan.
func (s Spec) Check(path string, ps *source.Problems) {
	if _, err := parseBase(s.Base, "r1"); err != nil {
		ps.Check(path+".base", err)
	}
	if s.Sitemap == "" && len(s.URLs) == 0 && s.URLsFile == "" && !s.Hot {
		ps.Add(path, "no addresses: give a sitemap, urls or urls_file, or hot: true for those of the hot list")
	}
	for _, u := range append([]string{s.Sitemap}, s.URLs...) {
		if _, err := pathOf(u); u != "" && err != nil {
			ps.Add(path+".urls", "address %q: use a path such as /about or a whole http address", u)
		}
	}
	if s.Concurrency < 0 || s.Concurrency > maxConcurrency {
		ps.Add(path+".concurrency", "%d requests at a time: use 1 to %d", s.Concurrency, maxConcurrency)
	}
	if d, err := s.Timeout.Parse(); err != nil || d > maxTimeout {
		ps.Add(path+".timeout", "timeout %q: use more than 0 and up to %v", string(s.Timeout), maxTimeout)
	}
	for i, h := range s.Hosts {
		if u, err := url.Parse("//" + h); err != nil || h == "" || u.Host != h {
			ps.Add(fmt.Sprintf("%s.hosts[%d]", path, i), "host %q: use a name such as www.example.com, with its port where it has one", h)
		}
	}
	if s.Redirects < 0 || s.Redirects > maxRedirects {
		ps.Add(path+".redirects", "%d redirects: use 0 to %d", s.Redirects, maxRedirects)
	}
	checkHeaders(path+".headers", s.Headers, ps)
	s.checkVariants(path+".variants", ps)
	if s.Bypass != nil {
		s.Bypass.check(path+".bypass", ps)
	}
}

// CheckWith adds what is wrong with the spec, which stands at path in the plan, beside its expectation.
func (s Spec) CheckWith(e Expect, path string, ps *source.Problems) {
	if s.Bypass != nil && e.Key == "" {
		ps.Add(path+".bypass", "nobody can tell which entries are there to be loaded anew: give the source an expect with a key")
	}
	if len(s.Variants) < 2 || e.Key == "" {
		return
	}
	key, err := source.ParseTemplate(e.Key)
	if err != nil {
		return // said already
	}
	one, err1 := key.Render(page{Path: "/a", Query: "b", Release: "r1", Variant: s.Variants[0].Name})
	two, err2 := key.Render(page{Path: "/a", Query: "b", Release: "r1", Variant: s.Variants[1].Name})
	if err1 == nil && err2 == nil && one == two {
		ps.Add(path+".variants", "the expected key %q does not tell variants apart: use {{.Variant}} in it", e.Key)
	}
}

// Check adds what is wrong with the expectation, which stands at path in the plan.
func (e Expect) Check(path string, ps *source.Problems) {
	if strings.HasPrefix(e.Key, "#") {
		ps.Add(path+".key", "key %q: logical keys that begin with # are reserved", e.Key)
	}
	checkTemplate(path+".key", e.Key, ps)
	if e.Status != 0 && (e.Status < 200 || e.Status > 299) {
		ps.Add(path+".status", "status %d: use 200 to 299, redirects and errors are never warm", e.Status)
	}
	if _, err := e.maxSize(); err != nil {
		ps.Add(path+".max_size", "%v", err)
	}
	for i, kind := range e.Accept {
		if !slices.Contains(acceptable, kind) {
			ps.Add(fmt.Sprintf("%s.accept[%d]", path, i), "%q: use some of %q", kind, acceptable)
		}
	}
	checkHeaders(path+".header", e.Header, ps)
}

// maxSize returns the largest page in bytes.
func (e Expect) maxSize() (int64, error) {
	if e.MaxSize == "" {
		return defaultMaxSize, nil
	}
	n, err := humanize.ParseBytes(e.MaxSize)
	if err != nil || n == 0 || n > maxMaxSize {
		return 0, fmt.Errorf("size %q: use more than 0 and up to 1GiB, such as 2MiB", e.MaxSize)
	}
	return int64(n), nil
}

func checkHeaders(path string, headers map[string]string, ps *source.Problems) {
	for name, value := range headers {
		if !httpguts.ValidHeaderFieldName(name) {
			ps.Add(path, "%q is not a header's name", name)
		}
		checkTemplate(path+"."+name, value, ps)
	}
}

// checkTemplate adds what is wrong with a template that is rendered for each page.
func checkTemplate(path, text string, ps *source.Problems) {
	t, err := source.ParseTemplate(text)
	if err != nil {
		ps.Check(path, err)
		return
	}
	for _, name := range t.Names() {
		if !slices.Contains(pageNames, name) {
			ps.Add(path, "template %q: a page has no %s: it has %s", text, name, strings.Join(pageNames, ", "))
		}
	}
}

// parseBase renders the base address for a release.
func parseBase(text, release string) (*url.URL, error) {
	t, err := source.ParseTemplate(text)
	if err != nil {
		return nil, err
	}
	rendered, err := t.Render(page{Release: release})
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(rendered)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return nil, errBase(text)
	}
	u.Path = ""
	return u, nil
}

// pathOf reduces an address of the public site to path and query: what is visited is always
// the base, never another host that a sitemap may name.
func pathOf(addr string) (string, error) {
	u, err := url.Parse(strings.TrimSpace(addr))
	if err != nil {
		return "", err
	}
	if !strings.HasPrefix(u.Path, "/") && (u.Path != "" || u.Host == "") {
		return "", errAddress(addr)
	}
	short := url.URL{Path: u.Path, RawPath: u.RawPath, RawQuery: u.RawQuery}
	if short.Path == "" {
		short.Path = "/"
	}
	return short.RequestURI(), nil
}

// render renders the values of headers.
func render(headers map[string]source.Template, data page) (http.Header, error) {
	h := http.Header{}
	for name, t := range headers {
		value, err := t.Render(data)
		if err != nil {
			return nil, err
		}
		h.Set(name, value)
	}
	return h, nil
}

func compile(headers map[string]string) (map[string]source.Template, error) {
	all := map[string]source.Template{}
	for name, value := range headers {
		t, err := source.ParseTemplate(value)
		if err != nil {
			return nil, err
		}
		all[name] = t
	}
	return all, nil
}
