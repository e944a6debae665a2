package remote

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/retrypolicy"

	"github.com/alphanode/stoker/tasks"
)

const (
	tries     = 3       // after the first
	maxAnswer = 1 << 30 // bytes; the largest is a listing of an archive
	maxDetail = 4 << 10 // bytes of an answer that is no problem and is shown all the same
)

// Route is where an operation is: a method and a path with {names} of members of its input.
type Route struct{ Method, Path string }

// Client has operations carried out by a `stoker web`. It is safe for concurrent use.
type Client struct {
	base  *url.URL
	token string
	agent string
	http  *http.Client
	again retrypolicy.RetryPolicy[*answer]
}

// answer is a response that was read to its end.
type answer struct {
	*http.Response
	body []byte
}

// New reads the token and the authorities; it does not connect yet. version is the caller's.
func New(cfg Config, version string) (*Client, error) {
	base, err := cfg.base()
	if err != nil {
		return nil, err
	}
	token, err := cfg.token()
	if err != nil {
		return nil, err
	}
	roots, err := cfg.authorities()
	if err != nil {
		return nil, err
	}
	own := http.DefaultTransport.(*http.Transport).Clone()
	own.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	return &Client{
		base: base, token: token, agent: "stoker/" + version,
		http: &http.Client{Transport: own, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		again: retrypolicy.NewBuilder[*answer]().HandleIf(passing).WithBackoff(100*time.Millisecond, time.Second).
			WithMaxRetries(tries).ReturnLastFailure().Build(),
	}, nil
}

// Close ends the connections that are kept open.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// passing reports whether the same request may succeed in a moment.
func passing(a *answer, err error) bool {
	if err != nil {
		var untrusted *tls.CertificateVerificationError
		return !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) && !errors.As(err, &untrusted)
	}
	switch a.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// Call has an operation carried out and decodes its answer into out. in is a JSON object; reason is kept
// with whatever is changed.
func (c *Client) Call(ctx context.Context, at Route, in any, reason string, out any) error {
	req, err := c.request(ctx, at, in, reason)
	if err != nil {
		return err
	}
	a, err := failsafe.With(c.again).WithContext(ctx).Get(func() (*answer, error) { return c.send(req) })
	if err != nil {
		return c.unreached(ctx, err)
	}
	if a.StatusCode/100 != 2 {
		return c.refused(a)
	}
	if err := json.Unmarshal(a.body, out); err != nil {
		return fmt.Errorf("read the answer of the API at %s: %w (is it another version's?)", c.base, err)
	}
	return nil
}

// send sends a request, once more if need be, and reads the answer.
func (c *Client) send(req *http.Request) (_ *answer, err error) {
	if req.GetBody != nil {
		if req.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return &answer{resp, body}, err
}

// request makes a request: members of in that the path names go there, those of a GET into the query, the
// others into the body.
func (c *Client) request(ctx context.Context, at Route, in any, reason string) (*http.Request, error) {
	raw, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return nil, err
	}
	path, err := fill(at.Path, members)
	if err != nil {
		return nil, err
	}
	to := *c.base
	to.RawPath = to.EscapedPath() + path
	if to.Path, err = url.PathUnescape(to.RawPath); err != nil {
		return nil, err
	}
	var body io.Reader
	if at.Method == http.MethodGet {
		query := url.Values{}
		for name, value := range members {
			text, err := text(value)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			query.Set(name, text)
		}
		to.RawQuery = query.Encode()
	} else {
		if reason != "" {
			if members["reason"], err = json.Marshal(reason); err != nil {
				return nil, err
			}
		}
		raw, err := json.Marshal(members)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, at.Method, to.String(), body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.agent)
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", rand.Text())
	}
	return req, nil
}

// fill puts members into the {names} of a path, and takes them out of the others.
func fill(path string, members map[string]json.RawMessage) (string, error) {
	parts := strings.Split(path, "/")
	for i, part := range parts {
		name, ok := strings.CutPrefix(part, "{")
		if !ok {
			continue
		}
		name = strings.TrimSuffix(name, "}")
		value, err := text(members[name])
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		if value == "" || value == "." || value == ".." {
			return "", fmt.Errorf("%w: %s %q cannot be asked for", tasks.ErrInvalid, name, value)
		}
		parts[i] = url.PathEscape(value)
		delete(members, name)
	}
	return strings.Join(parts, "/"), nil
}

// text is the string that a member holds.
func text(raw json.RawMessage) (s string, err error) {
	return s, json.Unmarshal(raw, &s)
}

// unreached says that there is no answer.
func (c *Client) unreached(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err // its own words would name the whole address once more
	}
	hint := "does `stoker web` run, and is STOKER_API_URL right?"
	if errors.As(err, new(*tls.CertificateVerificationError)) || errors.As(err, new(x509.UnknownAuthorityError)) {
		hint = "STOKER_API_CA_FILE names an authority of your own"
	}
	return fmt.Errorf("the API at %s does not answer: %w (%s)", c.base, err, hint)
}

// refused is the error of an answer that says no.
func (c *Client) refused(a *answer) error {
	var problem struct{ Detail, Cause string }
	kind, _, _ := mime.ParseMediaType(a.Header.Get("Content-Type"))
	known := kind == "application/problem+json" && json.Unmarshal(a.body, &problem) == nil
	switch {
	case !known && a.StatusCode/100 == 3:
		return fmt.Errorf("%w: the API at %s sends elsewhere, to %q: name the right address (STOKER_API_URL)", tasks.ErrInvalid, c.base, a.Header.Get("Location"))
	case !known:
		return fmt.Errorf("the API at %s answers %s, and not as an API does: %.*q (is STOKER_API_URL a stoker web, and no proxy's sign-in before it?)", c.base, a.Status, maxDetail, a.body)
	case a.StatusCode == http.StatusUnauthorized:
		return fmt.Errorf("%w: the API at %s does not know who asks: %s (STOKER_API_TOKEN_FILE)", tasks.ErrRefused, c.base, problem.Detail)
	case a.StatusCode == http.StatusForbidden:
		return fmt.Errorf("%w by the API at %s: %s", tasks.ErrRefused, c.base, problem.Detail)
	}
	raw, err := json.Marshal(tasks.Failure{Error: problem.Detail, Cause: problem.Cause})
	if err != nil {
		return err
	}
	return tasks.Failed(problem.Detail, raw)
}
