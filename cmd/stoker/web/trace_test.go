package web

import (
	"net/http"
	"slices"
	"testing"
)

// TestTracedWrites: writes of those who may make them are traced, by their route; reading and what is
// refused is not.
func TestTracedWrites(t *testing.T) {
	var traced []string
	s := newSite(t, Config{WebTokensFile: tokensFile(t)}, nil, func(d *Deps) {
		d.Trace = func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				traced = append(traced, r.Pattern)
				next.ServeHTTP(w, r)
			})
		}
	})
	operator := basic("otto", operateSecret)
	s.ask("GET", "/invalidations", operator)
	s.ask("POST", "/v1/invalidations")
	s.ask("POST", "/v1/invalidations", basic("vera", viewSecret))
	s.ask("POST", "/v1/invalidations", operator, header("Content-Type", "application/json"))
	if want := []string{"POST /v1/invalidations"}; !slices.Equal(traced, want) {
		t.Errorf("traced %q, want %q", traced, want)
	}
}
