package crawl

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/alphanode/stoker/worker/warm/source"
)

// visit is one page in one variant.
type visit struct {
	item    string
	dress   *dress
	key     string // of the entry that it should leave behind; "" when nobody named it
	first   string // likewise, of the page itself where a redirect was followed
	existed bool   // the page's own entry was there before
	renew   bool   // the site is asked to load the page anew
	err     error  // a *refusal, or what ends the walk
}

// name is the item, with its variant where it has one.
func (v *visit) name() string {
	if v.dress.name == "" {
		return v.item
	}
	return v.item + " (" + v.dress.name + ")"
}

// refusal says why a page does not count as warm.
type refusal struct {
	kind source.Kind
	text string
	code int // the unexpected status that it answered; 0 for none
}

func (r *refusal) Error() string { return r.text }

// gone reports whether the page is not there any more.
func (r *refusal) gone() bool { return r.code == http.StatusNotFound || r.code == http.StatusGone }

func refuse(kind source.Kind, format string, args ...any) *refusal {
	return &refusal{kind: kind, text: fmt.Sprintf(format, args...)}
}

// visits returns the visits of some items, with what is known before the first.
func (s *Source) visits(ctx context.Context, items []string) ([]*visit, error) {
	var all []*visit
	for _, item := range items {
		for i := range s.dress {
			v := &visit{item: item, dress: &s.dress[i]}
			v.key, v.err = s.keyOf(item, v.dress.name)
			v.first = v.key
			all = append(all, v)
		}
	}
	return all, s.peek(ctx, all)
}

// keyOf returns the key of the entry that a visit of the item leaves behind. Its error is a *refusal.
func (s *Source) keyOf(item, variant string) (string, error) {
	if strings.HasPrefix(item, notAddress) {
		return "", refuse(source.Unreadable, "use a path such as /about or a whole http address of up to %d bytes", maxAddress)
	}
	if !strings.HasPrefix(item, "/") {
		return "", refuse(source.Foreign, "its host is not among the crawl's hosts %q", s.spec.Hosts)
	}
	u, err := s.address(item)
	if err != nil {
		return "", refuse(source.Unreadable, "%v", err)
	}
	key, err := s.expected(page{Path: u.Path, Query: u.RawQuery, Release: s.release, Variant: variant})
	if err != nil {
		return "", refuse(source.Unreadable, "%v", err)
	}
	return key, nil
}

// peek looks which entries are there before the visits. The site is asked to load those anew.
func (s *Source) peek(ctx context.Context, all []*visit) error {
	if s.exist == nil || s.expect.Key == "" {
		return nil
	}
	var named []*visit
	var keys []string
	for _, v := range all {
		if v.err == nil {
			named, keys = append(named, v), append(keys, v.key)
		}
	}
	found, err := s.exist(ctx, keys)
	if err != nil {
		return err
	}
	for i, v := range named {
		v.existed, v.renew = found[i], found[i] && s.spec.Bypass != nil
	}
	return nil
}

// do visits the page. It sets what the visit should have left behind, or why it does not count.
func (a *asker) do(v *visit) {
	s := a.source
	if v.err != nil {
		return
	}
	headers := v.dress.headers
	if v.renew {
		headers = v.dress.renewal
	}
	path := v.item
	for hop := 0; ; hop++ {
		next, err := a.ask(path, headers, v.dress.name)
		if v.err = err; next == "" {
			return
		}
		if hop == s.spec.Redirects {
			if hop > 0 {
				v.err = refuse(source.Redirected, "%v, after %d redirects", err, hop)
			}
			return
		}
		to, ok := s.redirected(path, next)
		if !ok {
			v.err = refuse(source.Redirected, "redirects to %q: its host is neither the base's nor among the crawl's hosts", next)
			return
		}
		path = to
		if v.key, v.err = s.keyOf(path, v.dress.name); v.err != nil {
			return
		}
	}
}

// ask asks for one page and judges what it answers. Where it is a redirect that nobody expects, next
// is where it leads.
func (a *asker) ask(path string, headers http.Header, variant string) (next string, err error) {
	s := a.source
	got, err := a.get(path, headers)
	if ends(err) {
		return "", err
	}
	if err != nil {
		return "", failed(err)
	}
	u, err := s.address(path)
	if err != nil {
		return "", refuse(source.Unreadable, "%v", err)
	}
	if r := s.judge(got, page{Path: u.Path, Query: u.RawQuery, Release: s.release, Variant: variant}); r != nil {
		if r.kind == source.Redirected {
			next = got.header.Get("Location")
		}
		return next, r
	}
	return "", nil
}

// judge says why an answer does not count; nil when it does.
func (s *Source) judge(a *answer, about page) *refusal {
	if a.code != s.status {
		kind := source.WrongStatus
		if a.code >= 300 && a.code < 400 && a.header.Get("Location") != "" {
			kind = source.Redirected
		}
		return &refusal{kind, fmt.Sprintf("answered %s, not %d", a.status, s.status), a.code}
	}
	want, err := render(s.header, about)
	if err != nil {
		return refuse(source.Unreadable, "%v", err)
	}
	for name := range want {
		if got := a.header.Get(name); got != want.Get(name) {
			return refuse(source.WrongRelease, "answered with %s %q, not %q: is this the new build's instance?", name, got, want.Get(name))
		}
	}
	switch {
	case s.refuses(source.SetsCookie) && len(a.header["Set-Cookie"]) > 0:
		return refuse(source.SetsCookie, "sets a cookie: a page for one visitor is not for all")
	case s.refuses(source.NoStore) && private(a.header):
		return refuse(source.NoStore, "answered with Cache-Control %q", strings.Join(a.header["Cache-Control"], ", "))
	case a.torn:
		return refuse(source.TooLarge, "page is larger than %d bytes", s.most)
	case s.refuses(source.Empty) && a.size == 0:
		return refuse(source.Empty, "answered an empty page")
	}
	return nil
}

// refuses reports whether answers of that kind do not count. A status without a body may be empty.
func (s *Source) refuses(kind source.Kind) bool {
	if kind == source.Empty && (s.status < 200 || s.status >= 300 || s.status == http.StatusNoContent) {
		return false
	}
	return !slices.Contains(s.expect.Accept, kind)
}

// private reports whether an answer says that it must not be stored for others.
func private(h http.Header) bool {
	for _, line := range h["Cache-Control"] {
		for directive := range strings.SplitSeq(line, ",") {
			name, _, _ := strings.Cut(strings.TrimSpace(directive), "=")
			if strings.EqualFold(name, "no-store") || strings.EqualFold(name, "private") {
				return true
			}
		}
	}
	return false
}

// unfit reports whether the page's own entry must not be served: an answer that does not count
// has left it behind. What was there before is left alone, unless the site was asked to replace it
// and has answered for this page; an overloaded site, or another release's, has not.
func (v *visit) unfit(r *refusal) bool {
	switch r.kind {
	case source.NoAnswer, source.Away, source.Foreign, source.Missing, source.Unreadable:
		return false
	}
	overloaded := r.code >= 500 || r.code == http.StatusTooManyRequests
	return !v.existed || v.renew && r.kind != source.WrongRelease && !overloaded
}

// endsWalk returns the error of a visit that is about more than its page.
func (v *visit) endsWalk() error {
	var r *refusal
	if v.err == nil || errors.As(v.err, &r) {
		return nil
	}
	return fmt.Errorf("visit %q: %w", v.item, v.err)
}
