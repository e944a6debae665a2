package crawl

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/alphanode/stoker/worker/warm/source"
)

// Variant is one of several ways to ask for every page: one of the plan's `variants`.
type Variant struct {
	Name    string            `yaml:"name"`              // templates of keys and expected headers see it as Variant
	Headers map[string]string `yaml:"headers,omitempty"` // templates with {{.Release}}, over those of the crawl
	Cookies map[string]string `yaml:"cookies,omitempty"` // likewise
}

// Bypass is what tells the site to load a page anew although it has it: the plan's `bypass`.
type Bypass struct {
	Headers map[string]string `yaml:"headers,omitempty"` // templates with {{.Release}}
	Cookies map[string]string `yaml:"cookies,omitempty"` // likewise
}

// maxVariants bounds how often a page is asked for.
const maxVariants = 50

func (s Spec) checkVariants(path string, ps *source.Problems) {
	if len(s.Variants) > maxVariants {
		ps.Add(path, "%d variants: use up to %d", len(s.Variants), maxVariants)
	}
	names := map[string]bool{}
	for i, v := range s.Variants {
		at := fmt.Sprintf("%s[%d]", path, i)
		if v.Name == "" || names[v.Name] {
			ps.Add(at+".name", "variant %q: give each a name of its own", v.Name)
		}
		names[v.Name] = true
		checkHeaders(at+".headers", v.Headers, ps)
		checkCookies(at+".cookies", v.Cookies, ps)
	}
}

func (b Bypass) check(path string, ps *source.Problems) {
	if len(b.Headers)+len(b.Cookies) == 0 {
		ps.Add(path, "empty: name the headers or cookies that make the site load a page anew")
	}
	checkHeaders(path+".headers", b.Headers, ps)
	checkCookies(path+".cookies", b.Cookies, ps)
}

func checkCookies(path string, cookies map[string]string, ps *source.Problems) {
	for name, value := range cookies {
		if !httpguts.ValidHeaderFieldName(name) {
			ps.Add(path, "%q is not a cookie's name", name)
		}
		if strings.ContainsAny(value, ";\r\n") {
			ps.Add(path+"."+name, "cookie value %q: leave out ; and line ends, or escape them as the site does", value)
		}
		ps.Check(path+"."+name, source.CheckTemplate(value))
	}
}

// dress is how a variant asks: its headers, and those that bypass the site's cache as well. Both are
// shared by all requests and never changed.
type dress struct {
	name             string
	headers, renewal http.Header
}

// dresses returns how each variant asks; one without a name where there are none.
func (s *Source) dresses() ([]dress, error) {
	variants := s.spec.Variants
	if len(variants) == 0 {
		variants = []Variant{{}}
	}
	var all []dress
	for _, v := range variants {
		d := dress{name: v.Name, headers: s.headers.Clone()}
		if err := s.put(d.headers, v.Headers, v.Cookies); err != nil {
			return nil, fmt.Errorf("variant %q: %w", v.Name, err)
		}
		d.renewal = d.headers
		if b := s.spec.Bypass; b != nil {
			d.renewal = d.headers.Clone()
			if err := s.put(d.renewal, b.Headers, b.Cookies); err != nil {
				return nil, fmt.Errorf("bypass: %w", err)
			}
		}
		all = append(all, d)
	}
	return all, nil
}

// put adds headers and cookies, as rendered for the release.
func (s *Source) put(to http.Header, headers, cookies map[string]string) error {
	add, err := s.rendered(headers)
	if err != nil {
		return err
	}
	maps.Copy(to, add)
	for _, name := range slices.Sorted(maps.Keys(cookies)) {
		value, err := s.rendered(map[string]string{"Cookie": name + "=" + cookies[name]})
		if err != nil {
			return err
		}
		pair := value.Get("Cookie")
		if have := to.Get("Cookie"); have != "" {
			pair = have + "; " + pair
		}
		to.Set("Cookie", pair)
	}
	return nil
}

// rendered renders headers for the release.
func (s *Source) rendered(headers map[string]string) (http.Header, error) {
	compiled, err := compile(headers)
	if err != nil {
		return nil, err
	}
	return render(compiled, page{Release: s.release})
}

// ours reports whether an address is of the base, or of a host that the plan allows.
func (s *Source) ours(u *url.URL) bool {
	return u.Host == "" || strings.EqualFold(u.Host, s.base.Host) || slices.ContainsFunc(s.spec.Hosts, func(h string) bool { return strings.EqualFold(h, u.Host) })
}

// pathIn reduces an address to path and query. One of a host that a plan with hosts does not allow
// stays whole: it is visited nowhere.
func (s *Source) pathIn(addr string) (string, error) {
	path, err := pathOf(addr)
	if err != nil || len(s.spec.Hosts) == 0 {
		return path, err
	}
	if u, err := url.Parse(strings.TrimSpace(addr)); err != nil || !s.ours(u) {
		return strings.TrimSpace(addr), err
	}
	return path, nil
}

// redirected returns the path of the base that a redirect leads to; false where it leads elsewhere.
func (s *Source) redirected(from, location string) (string, bool) {
	at, err := s.address(from)
	if err != nil || location == "" {
		return "", false
	}
	to, err := at.Parse(location)
	if err != nil || (to.Scheme != "http" && to.Scheme != "https") || !s.ours(to) {
		return "", false
	}
	path, err := pathOf(to.String())
	return path, err == nil
}
