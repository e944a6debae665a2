package crawl

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/alphanode/stoker/worker/warm/source"
)

var _ source.Prober = (*Source)(nil)

// errFound ends the listing of a source that lists something.
var errFound = errors.New("found")

// Probe implements [source.Prober]: the base must answer a HEAD, whatever it answers, and sitemap and file
// must list at least one address. Its errors are [source.Problem]s of the plan's source.
func (s *Source) Probe(ctx context.Context) error {
	if err := s.probeBase(ctx); err != nil {
		return &source.Problem{Path: ".crawl.base", Text: err.Error()}
	}
	if s.spec.Sitemap == "" && s.spec.URLsFile == "" {
		return nil
	}
	field := ".crawl.sitemap"
	if s.spec.Sitemap == "" {
		field = ".crawl.urls_file"
	}
	err := s.list(ctx, func(string) error { return errFound })
	switch {
	case errors.Is(err, errFound):
		return nil
	case err == nil:
		return &source.Problem{Path: field, Text: "it lists no address"}
	}
	return &source.Problem{Path: field, Text: err.Error()}
}

func (s *Source) probeBase(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, s.base.String()+"/", nil)
	if err != nil {
		return err
	}
	req.Header, req.Host = s.headers, s.headers.Get("Host")
	resp, err := s.client.transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("the base does not answer: %w", err)
	}
	return resp.Body.Close()
}
