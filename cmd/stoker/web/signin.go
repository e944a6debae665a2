package web

import (
	"net/http"
	"strings"
)

const signInRoot = "/signin"

// signInPage is what the page for signing in shows.
type signInPage struct {
	Problem  string
	Next     string // where to go afterwards
	Tokens   bool   // tokens are taken
	Provider bool   // an OpenID Connect provider is there
}

// signInRoutes adds the addresses at which people sign in and out. They are for anybody.
func (s *Server) signInRoutes(mux *router) {
	mux.HandleFunc("GET "+signInRoot, func(w http.ResponseWriter, r *http.Request) {
		if s.guard.open {
			http.Redirect(w, r, "/", http.StatusSeeOther)
			return
		}
		s.askToSignIn(w, r, http.StatusOK, "")
	})
	mux.HandleFunc("POST "+signInRoot, s.signIn)
	mux.HandleFunc("POST /signout", s.signOut)
	if s.oidc != nil {
		mux.HandleFunc("GET "+signInRoot+"/provider", s.startOIDC)
		mux.HandleFunc("GET "+signInRoot+"/callback", s.finishOIDC)
	}
}

// askToSignIn shows the page for signing in, which leads back to where the browser wanted to go.
func (s *Server) askToSignIn(w http.ResponseWriter, r *http.Request, status int, problem string) {
	next := r.URL.RequestURI()
	if strings.HasPrefix(r.URL.Path, signInRoot) {
		next = r.FormValue("next")
	}
	s.render(w, r, status, s.pages.signIn, "Sign in", signInPage{
		Problem: problem, Next: localPath(next), Tokens: len(s.guard.tokens) > 0, Provider: s.oidc != nil,
	})
}

// signIn answers the form: it begins a session with a token.
func (s *Server) signIn(w http.ResponseWriter, r *http.Request) {
	secret := strings.TrimSpace(r.FormValue("token"))
	if secret == "" {
		s.askToSignIn(w, r, http.StatusUnprocessableEntity, "Paste the token itself.")
		return
	}
	match, no := s.guard.try(r, "", secret)
	if no != nil {
		s.askToSignIn(w, r, no.status, no.text)
		return
	}
	*actorOf(r) = actor{name: match.name, scope: match.scope, session: true}
	s.begin(w, r, session{Name: match.name, Scope: match.scope, Token: match.fingerprint()}, r.FormValue("next"))
}

// begin begins a session and sends the browser on.
func (s *Server) begin(w http.ResponseWriter, r *http.Request, who session, next string) {
	if err := s.guard.sessions.begin(r.Context(), w, who); err != nil {
		s.deps.Log.WarnContext(r.Context(), "console cannot begin a session", "err", err)
		s.askToSignIn(w, r, http.StatusServiceUnavailable, "The queue Redis, which keeps who has signed in, does not answer.")
		return
	}
	s.deps.Log.InfoContext(r.Context(), "console sign-in", "actor", who.Name, "scope", who.Scope, "remote", s.guard.proxies.client(r))
	http.Redirect(w, r, localPath(next), http.StatusSeeOther)
}

// signOut ends the browser's session.
func (s *Server) signOut(w http.ResponseWriter, r *http.Request) {
	if who, no := s.guard.identify(r); no == nil {
		*actorOf(r) = who
	}
	if err := s.guard.sessions.end(r.Context(), w, r); err != nil {
		s.deps.Log.WarnContext(r.Context(), "console cannot end a session", "err", err)
		s.render(w, r, http.StatusServiceUnavailable, s.pages.message, "You are still signed in", "The queue Redis, which keeps who has signed in, does not answer.")
		return
	}
	http.Redirect(w, r, signInRoot, http.StatusSeeOther)
}

// localPath returns an address of this console: the path given, or the first page where the path would
// lead a browser elsewhere.
func localPath(path string) string {
	if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || strings.ContainsAny(path, "\\\r\n\t") || strings.HasPrefix(path, signInRoot) {
		return "/"
	}
	return path
}
