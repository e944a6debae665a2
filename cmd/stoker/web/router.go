package web

import "net/http"

// router is a mux that knows its patterns: a test goes through all of them with every role.
type router struct {
	mux      *http.ServeMux
	patterns []string
}

// Handle is [http.ServeMux.Handle].
func (r *router) Handle(pattern string, handler http.Handler) {
	r.patterns = append(r.patterns, pattern)
	r.mux.Handle(pattern, handler)
}

// HandleFunc is [http.ServeMux.HandleFunc].
func (r *router) HandleFunc(pattern string, handler http.HandlerFunc) { r.Handle(pattern, handler) }
