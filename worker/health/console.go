package health

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Console is how the console answers somebody who has not signed in, at the address that browsers
// use: with whatever stands before it.
type Console struct {
	URL    string
	Status int
	Header http.Header
}

// askConsole asks for what only those may see who have signed in.
func askConsole(ctx context.Context, base string) (Console, error) {
	c := Console{URL: base}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(base, "/")+"/metrics", nil)
	if err != nil {
		return c, err
	}
	resp, err := asStranger(r)
	if err != nil {
		return c, err
	}
	c.Status, c.Header = resp.StatusCode, resp.Header
	return c, nil
}

// asStranger sends a request, and returns the answer without its body.
func asStranger(r *http.Request) (*http.Response, error) {
	// A connection of its own, and no redirects: a proxy that sends people elsewhere to sign in has answered.
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment, ExpectContinueTimeout: time.Second},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)) // so that the server can end in peace
	return resp, resp.Body.Close()
}

// tooMuch is twice what the console takes in one request, in bytes.
const tooMuch = 2 << 20

// offerTooMuch sends a body that is too large to where anybody may send one, and returns the status.
func offerTooMuch(ctx context.Context, base string) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(base, "/")+"/signin", strings.NewReader(strings.Repeat("0", tooMuch)))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	// The body waits until it may come, so that a server which refuses it can say so.
	r.Header.Set("Expect", "100-continue")
	resp, err := asStranger(r)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, nil
}

// judgeBodyLimit: what takes bodies of any size from anybody can be filled up by anybody.
func judgeBodyLimit(a Answer[int]) Check {
	c := Check{Name: "web.limits", Status: OK}
	switch {
	case !a.Asked || a.Err != nil:
		c.Status, c.Detail = Unknown, "stoker web did not answer a request that is too large"
	case a.Value == http.StatusRequestEntityTooLarge:
		c.Detail = "a body of 2 MiB is refused"
	case redirects(a.Value), a.Value == http.StatusUnauthorized, a.Value == http.StatusForbidden:
		c.Detail = fmt.Sprintf("what stands before it refuses strangers (status %d)", a.Value)
	default:
		c.Status, c.Detail = Warn, fmt.Sprintf("a body of 2 MiB was not refused but answered with status %d: stoker web takes 1 MiB at most", a.Value)
		c.Remedy = "something else answers there: correct STOKER_WEB_URL, or have the proxy pass requests on and limit bodies to 1 MiB"
	}
	return c
}

// consoleURL is where browsers reach the console: the address that is configured, else where it
// listens, "" when that is not known.
func consoleURL(configured, listens string) string {
	if configured != "" {
		return configured
	}
	host, port, err := net.SplitHostPort(listens)
	if err != nil || port == "0" {
		return ""
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// judgeConsole: the headers must reach the browser, and strangers nothing.
func judgeConsole(a Answer[Console], guarded bool) Check {
	c := Check{Name: "web.answers", Status: OK}
	switch {
	case !a.Asked:
		c.Status, c.Detail = Unknown, "the address of stoker web is not known here"
		return c
	case a.Err != nil:
		c.Status, c.Detail = Unknown, fmt.Sprintf("stoker web does not answer at %s: %v", a.Value.URL, a.Err)
		return c
	}
	got := a.Value
	lost := lostHeaders(got.Header)
	u, err := url.Parse(got.URL)
	switch {
	case guarded && got.Status == http.StatusOK:
		c.Status, c.Detail = Fail, got.URL+"/metrics answers somebody who has not signed in"
		c.Remedy = "something else answers there, or a proxy signs everybody in: correct it, or STOKER_WEB_URL"
	case len(lost) > 0 && !redirects(got.Status):
		c.Status, c.Detail = Warn, fmt.Sprintf("%s answers without the headers that stoker sets: %s", got.URL, strings.Join(lost, ", "))
		c.Remedy = "have the proxy before it pass them on"
	case err == nil && u.Scheme == "http" && !loopback(u.Hostname()):
		c.Status, c.Detail = Warn, got.URL+" is not encrypted: tokens and sessions cross the network in the clear"
		c.Remedy = "put a proxy with a certificate before it, and its https:// address into STOKER_WEB_URL"
	default:
		c.Detail = fmt.Sprintf("%s answers strangers with status %d", got.URL, got.Status)
		if !guarded {
			c.Detail = got.URL + " answers, for this machine's users"
		}
	}
	return c
}

// redirects reports a status with which a proxy sends people to where they sign in.
func redirects(status int) bool { return status >= 300 && status < 400 }

// lostHeaders names those of the console's headers that did not arrive.
func lostHeaders(got http.Header) []string {
	var lost []string
	for _, want := range []struct{ name, part string }{
		{"Content-Security-Policy", "default-src 'none'"}, {"X-Content-Type-Options", "nosniff"}, {"X-Frame-Options", "DENY"},
	} {
		if !strings.Contains(got.Get(want.name), want.part) {
			lost = append(lost, want.name)
		}
	}
	return lost
}
