package web

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"
)

const maxBody = 1 << 20 // bytes of a request

// pagePolicy is the Content-Security-Policy of stoker's own answers: its own files and no more.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// actor is who makes a request: a token's name, "local" without a tokens file.
type actor struct {
	name  string
	scope Scope
}

type actorKey struct{}

// actorOf returns who makes the request; the guard has put it there.
func actorOf(r *http.Request) *actor { return r.Context().Value(actorKey{}).(*actor) }

// guard decides who may do what. It is safe for concurrent use.
type guard struct {
	tokens []token // empty: whoever reaches the server may operate
	slow   *slowdown
	cross  *http.CrossOriginProtection
	log    *slog.Logger
	now    func() time.Time
}

func newGuard(tokens []token, log *slog.Logger, now func() time.Time) *guard {
	g := &guard{tokens: tokens, slow: newSlowdown(now), cross: http.NewCrossOriginProtection(), log: log, now: now}
	g.cross.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refuse(w, r, http.StatusForbidden, "This request comes from a page of another origin. Send it from a program, or from the console itself.")
	}))
	return g
}

// outer is what every request passes before its route: headers, audit, body limit, origin. The API
// has limits of its own, a stream none on its whole.
func (g *guard) outer(next http.Handler) http.Handler {
	next = g.cross.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secure(w.Header())
		who := &actor{name: "anonymous"}
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
				"path", r.URL.Path, "status", noted.status, "remote", r.RemoteAddr, "took", g.now().Sub(started))
		}()
		next.ServeHTTP(noted, r)
	})
}

// need serves next to those who hold the scope that the request asks for.
func (g *guard) need(scope func(*http.Request) Scope, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !g.identify(w, r) {
			return
		}
		if want, who := scope(r), actorOf(r); !who.scope.allows(want) {
			refuse(w, r, http.StatusForbidden, "The token of "+who.name+" has the scope "+string(who.scope)+"; this needs "+string(want)+".")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// identify finds out who makes the request, or answers it and returns false.
func (g *guard) identify(w http.ResponseWriter, r *http.Request) bool {
	who := actorOf(r)
	if len(g.tokens) == 0 {
		if reason := notLocal(r); reason != "" {
			refuse(w, r, http.StatusForbidden, reason)
			return false
		}
		*who = actor{"local", Operate}
		return true
	}
	name, secret, given := credentials(r)
	if !given {
		unauthorized(w, r, "Sign in with a token's name and the token.")
		return false
	}
	var match token
	ok, limited := g.slow.try(r.RemoteAddr, func() (found bool) {
		match, found = matchToken(g.tokens, name, secret)
		return found
	})
	switch {
	case limited:
		w.Header().Set("Retry-After", "10")
		refuse(w, r, http.StatusTooManyRequests, "Too many wrong tokens from your address: wait some seconds.")
	case !ok:
		g.log.WarnContext(r.Context(), "console sign-in refused", "remote", r.RemoteAddr, "path", r.URL.Path)
		unauthorized(w, r, "No such token.")
	default:
		*who = actor{match.name, match.scope}
	}
	return ok
}

func unauthorized(w http.ResponseWriter, r *http.Request, text string) {
	w.Header().Set("WWW-Authenticate", `Basic realm="stoker", charset="UTF-8"`)
	refuse(w, r, http.StatusUnauthorized, text)
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

// notLocal says why a request may not come from a user of this machine; "" when nothing
// speaks against it.
func notLocal(r *http.Request) string {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if !loopback(strings.Trim(host, "[]")) {
		return "This console answers to localhost only, not to the Host of this request. To serve it under a name, set STOKER_WEB_TOKENS_FILE."
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip"} {
		if r.Header.Get(name) != "" {
			return "A proxy forwarded this request. To serve the console through a proxy, set STOKER_WEB_TOKENS_FILE."
		}
	}
	return ""
}

// credentials returns what the Authorization header holds: a name and a secret, or a secret
// alone. A Basic header without a name is none: the name is what the audit line shows.
func credentials(r *http.Request) (name, secret string, given bool) {
	if name, secret, given = r.BasicAuth(); given {
		return name, secret, name != ""
	}
	scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return "", strings.TrimSpace(secret), strings.EqualFold(scheme, "Bearer")
}

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
