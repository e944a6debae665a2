package web

import (
	"context"
	"net"
	"net/http"
	"strings"
)

// nobody is the name of who has not signed in.
const nobody = "anonymous"

// actor is who makes a request: a token's name, the name that a proxy or a provider gives, or "local"
// where nobody has to sign in.
type actor struct {
	name    string
	scope   Scope
	session bool // signed in by browser, and can sign out
}

type actorKey struct{}

// actorOf returns who makes the request; the guard has put it there.
func actorOf(r *http.Request) *actor { return r.Context().Value(actorKey{}).(*actor) }

// refusal is why a request is not let in.
type refusal struct {
	status int
	text   string
}

// identify finds out who makes the request: whom a trusted proxy names, whose token it bears, whose
// session it belongs to, in this order.
func (g *guard) identify(r *http.Request) (actor, *refusal) {
	if g.open {
		if reason := notLocal(r); reason != "" {
			return actor{}, &refusal{http.StatusForbidden, reason}
		}
		return actor{name: "local", scope: Operate}, nil
	}
	if who, no := g.proxies.identify(r); who != nil || no != nil {
		if no != nil {
			g.log.WarnContext(r.Context(), "console refused a proxy's header", "remote", r.RemoteAddr, "path", r.URL.Path, "reason", no.text)
			return actor{}, no
		}
		return *who, nil
	}
	if name, secret, given := credentials(r); given {
		found, no := g.try(r, name, secret)
		return actor{name: found.name, scope: found.scope}, no
	}
	return g.resume(r)
}

// try looks for the token with that secret and, unless it is "", that name. An address that
// guesses is slowed down.
func (g *guard) try(r *http.Request, name, secret string) (match token, no *refusal) {
	ok, limited := g.slow.try(g.proxies.client(r), func() (found bool) {
		match, found = matchToken(g.tokens, name, secret)
		return found
	})
	switch {
	case limited:
		return token{}, &refusal{http.StatusTooManyRequests, "Too many wrong tokens from your address: wait some seconds."}
	case !ok:
		g.log.WarnContext(r.Context(), "console sign-in refused", "remote", g.proxies.client(r), "path", r.URL.Path)
		return token{}, &refusal{http.StatusUnauthorized, "No such token."}
	}
	return match, nil
}

// resume finds the session that a browser's request belongs to. A session that began with a token
// ends with it, and has the scope that the token has now.
func (g *guard) resume(r *http.Request) (actor, *refusal) {
	anew := &refusal{http.StatusUnauthorized, "Sign in with a token's name and the token."}
	s, err := within(r.Context(), readLimit, func(ctx context.Context) (*session, error) { return g.sessions.find(ctx, r) })
	if err != nil {
		g.log.WarnContext(r.Context(), "console cannot read a session", "err", err)
		return actor{}, &refusal{http.StatusServiceUnavailable, "The queue Redis, which keeps who has signed in, does not answer. With a token: curl --user NAME:TOKEN."}
	}
	if s == nil {
		return actor{}, anew
	}
	who := actor{name: s.Name, scope: s.Scope, session: true}
	if s.Token == "" {
		return who, nil
	}
	for _, t := range g.tokens {
		if t.fingerprint() == s.Token {
			who.name, who.scope = t.name, t.scope
			return who, nil
		}
	}
	return actor{}, anew
}

// deny answers a request that is not let in: a browser that could sign in is asked to.
func (g *guard) deny(w http.ResponseWriter, r *http.Request, no *refusal) {
	switch no.status {
	case http.StatusTooManyRequests:
		w.Header().Set("Retry-After", "10")
	case http.StatusUnauthorized:
		if r.Method == http.MethodGet && !forAPI(r) && strings.Contains(r.Header.Get("Accept"), "text/html") {
			text := ""
			if r.Header.Get("Authorization") != "" {
				text = no.text
			}
			g.signIn(w, r, no.status, text)
			return
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="stoker", charset="UTF-8"`)
	}
	refuse(w, r, no.status, no.text)
}

// notLocal says why a request may not come from a user of this machine; "" when nothing
// speaks against it.
func notLocal(r *http.Request) string {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if !loopback(strings.Trim(host, "[]")) {
		return "This console answers to localhost only, not to the Host of this request. To serve it under a name, have people sign in (STOKER_WEB_TOKENS_FILE)."
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip"} {
		if r.Header.Get(name) != "" {
			return "A proxy forwarded this request. To serve the console through a proxy, have people sign in (STOKER_WEB_TOKENS_FILE, or STOKER_WEB_PROXY_USER where the proxy does it)."
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

// Name is for the pages.
func (a actor) Name() string { return a.name }

// Known reports whether it is known who asks.
func (a actor) Known() bool { return a.scope != "" }

// CanSignOut reports whether a session can be ended.
func (a actor) CanSignOut() bool { return a.session }
