package web

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"
)

const maxBody = 1 << 20 // bytes of a request

// pagePolicy is the Content-Security-Policy of stoker's own answers: its own files and no more.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// guard decides who may do what. It is safe for concurrent use.
type guard struct {
	tokens   []token
	proxies  *proxies
	sessions *sessions
	open     bool // whoever reaches the server may operate
	slow     *slowdown
	cross    *http.CrossOriginProtection
	// signIn answers a browser that has to sign in first; text says why it is asked again.
	signIn func(w http.ResponseWriter, r *http.Request, status int, text string)
	trace  func(next http.Handler) http.Handler // around writes; nil: nothing is
	log    *slog.Logger
	now    func() time.Time
}

func newGuard(cfg Config, tokens []token, sessions *sessions, log *slog.Logger, now func() time.Time) (*guard, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	proxies, err := newProxies(cfg)
	if err != nil {
		return nil, err
	}
	g := &guard{
		tokens: tokens, proxies: proxies, sessions: sessions, open: !cfg.Guarded(),
		slow: newSlowdown(now), cross: http.NewCrossOriginProtection(), log: log, now: now,
	}
	g.cross.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refuse(w, r, http.StatusForbidden, "This request comes from a page of another origin. Send it from a program, or from the console itself.")
	}))
	return g, nil
}

// outer is what every request passes before its route: headers, audit, body limit, origin. The API
// has limits of its own, a stream none on its whole.
func (g *guard) outer(next http.Handler) http.Handler {
	next = g.cross.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secure(w.Header())
		who := &actor{name: nobody}
		r = r.WithContext(context.WithValue(r.Context(), actorKey{}, who))
		if !forAPI(r) {
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		}
		if safe(r.Method) {
			next.ServeHTTP(w, r)
			return
		}
		started, noted := g.now(), &statusWriter{ResponseWriter: w, status: http.StatusOK}
		defer func() { // a handler that panics has written as well
			g.log.InfoContext(r.Context(), "console write", "actor", who.name, "scope", who.scope, "method", r.Method,
				"path", r.URL.Path, "status", noted.status, "remote", g.proxies.client(r), "took", g.now().Sub(started))
		}()
		if !forAPI(r) && r.ContentLength > maxBody {
			refuse(noted, r, http.StatusRequestEntityTooLarge, "This is more than the console takes: 1 MiB at most.")
			return
		}
		next.ServeHTTP(noted, r)
	})
}

// need serves next to those who hold the scope that the request asks for.
func (g *guard) need(scope func(*http.Request) Scope, next http.Handler) http.Handler {
	writes := next
	if g.trace != nil {
		writes = g.trace(next)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, no := g.identify(r)
		if no != nil {
			g.deny(w, r, no)
			return
		}
		*actorOf(r) = who
		if want := scope(r); !who.scope.allows(want) {
			refuse(w, r, http.StatusForbidden, who.name+" has the scope "+string(who.scope)+"; this needs "+string(want)+".")
			return
		}
		if safe(r.Method) {
			next.ServeHTTP(w, r)
			return
		}
		writes.ServeHTTP(w, r)
	})
}

// refuse says no in the words of who asks: a person, or an app server.
func refuse(w http.ResponseWriter, r *http.Request, status int, text string) {
	if forAPI(r) {
		newProblem(status, "%s", text).write(w)
		return
	}
	http.Error(w, text, status)
}

// forAPI reports whether a request is an app server's.
func forAPI(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, apiRoot) }

// secure sets the headers that every answer carries.
func secure(h http.Header) {
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	h.Set("Cache-Control", "no-store")
}

// safe reports whether a method only reads (RFC 9110, section 9.2.1).
func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// statusWriter remembers the status for the audit line.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements [http.ResponseWriter].
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for [http.ResponseController].
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
