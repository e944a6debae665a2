package web

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/redis/go-redis/v9"
	"golang.org/x/oauth2"
)

const (
	stateCookie   = "stoker_signin"
	stateLife     = 10 * time.Minute // to sign in at the provider
	providerLimit = 10 * time.Second // for one request to the provider
)

// provider signs people in by OpenID Connect: the authorisation code flow with PKCE, and a state and a
// nonce that are good once. What a sign-in needs until it returns is kept in the queue Redis, so
// any console process can finish what another began.
type provider struct {
	issuer, groups string
	operators      []string
	oauth          oauth2.Config // without the endpoint, until the provider has been asked
	sessions       *sessions
	http           *http.Client

	mu    sync.Mutex
	asked *oidc.Provider // nil until it has answered
}

// newProvider reads the client's secret, from a file that others may not read.
func newProvider(cfg Config, sessions *sessions) (*provider, error) {
	if cfg.WebOIDCIssuer == "" {
		return nil, nil
	}
	secret, err := readSecret("STOKER_WEB_OIDC_SECRET_FILE", cfg.WebOIDCSecretFile)
	if err != nil {
		return nil, err
	}
	return &provider{
		issuer: cfg.WebOIDCIssuer, groups: cfg.WebOIDCGroups, operators: operatorsOf(cfg), sessions: sessions,
		oauth: oauth2.Config{
			ClientID: cfg.WebOIDCClient, ClientSecret: strings.TrimSpace(string(secret)),
			RedirectURL: strings.TrimSuffix(cfg.WebURL, "/") + signInRoot + "/callback",
			Scopes:      cfg.WebOIDCScopes,
		},
		http: &http.Client{Timeout: providerLimit},
	}, nil
}

// connect asks the provider for its endpoints and keys, once; one that is away is asked again.
func (p *provider) connect(ctx context.Context) (*oidc.Provider, oauth2.Config, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked == nil {
		// The provider keeps the context for fetching keys later on.
		asked, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), p.http), p.issuer)
		if err != nil {
			return nil, oauth2.Config{}, fmt.Errorf("ask OpenID Connect provider: %w", err)
		}
		p.asked = asked
	}
	oauth := p.oauth
	oauth.Endpoint = p.asked.Endpoint()
	return p.asked, oauth, nil
}

// pending is what a sign-in needs when it returns from the provider.
type pending struct {
	Nonce    string `json:"nonce"`
	Verifier string `json:"verifier"`
	Next     string `json:"next"`
}

// start keeps what the sign-in will need and returns the provider's address to send the browser to.
func (p *provider) start(ctx context.Context, w http.ResponseWriter, next string) (string, error) {
	_, oauth, err := p.connect(ctx)
	if err != nil {
		return "", err
	}
	state, will := rand.Text(), pending{Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), Next: next}
	raw, err := json.Marshal(will)
	if err != nil {
		return "", err
	}
	if err := p.sessions.queue.Set(ctx, p.sessions.keys.SignIn(digest(state)), raw, stateLife).Err(); err != nil {
		return "", fmt.Errorf("keep sign-in: %w", err)
	}
	p.sessions.setCookie(w, stateCookie, signInRoot, state, stateLife)
	return oauth.AuthCodeURL(state, oidc.Nonce(will.Nonce), oauth2.S256ChallengeOption(will.Verifier)), nil
}

// errStrayReturn is a return from the provider that this browser did not ask for.
var errStrayReturn = errors.New("this sign-in was not begun here, or too long ago: begin again")

// finish checks what the browser brings back from the provider and says who has signed in.
func (p *provider) finish(ctx context.Context, w http.ResponseWriter, r *http.Request) (session, string, error) {
	state := r.FormValue("state")
	cookie, err := r.Cookie(stateCookie)
	if err != nil || state == "" || cookie.Value != state {
		return session{}, "", errStrayReturn
	}
	p.sessions.setCookie(w, stateCookie, signInRoot, "", -1)
	raw, err := p.sessions.queue.GetDel(ctx, p.sessions.keys.SignIn(digest(state))).Bytes()
	if errors.Is(err, redis.Nil) {
		return session{}, "", errStrayReturn
	}
	var began pending
	if err == nil {
		err = json.Unmarshal(raw, &began)
	}
	if err != nil {
		return session{}, "", fmt.Errorf("read sign-in: %w", err)
	}
	if code := r.FormValue("error"); code != "" {
		return session{}, "", fmt.Errorf("the provider says %q", cut(code, longestName))
	}
	claims, err := p.exchange(ctx, r.FormValue("code"), began)
	if err != nil {
		return session{}, "", err
	}
	who, err := p.sessionOf(claims)
	return who, began.Next, err
}

// exchange gets the ID token for the code, verifies it and returns its claims.
func (p *provider) exchange(ctx context.Context, code string, began pending) (map[string]any, error) {
	asked, oauth, err := p.connect(ctx)
	if err != nil {
		return nil, err
	}
	got, err := oauth.Exchange(oidc.ClientContext(ctx, p.http), code, oauth2.VerifierOption(began.Verifier))
	if err != nil {
		return nil, fmt.Errorf("exchange code: %w", err)
	}
	raw, _ := got.Extra("id_token").(string)
	verified, err := asked.Verifier(&oidc.Config{ClientID: oauth.ClientID}).Verify(ctx, raw)
	if err != nil {
		return nil, fmt.Errorf("verify ID token: %w", err)
	}
	if verified.Nonce != began.Nonce {
		return nil, errors.New("verify ID token: it was issued for another sign-in")
	}
	var claims map[string]any
	if err := verified.Claims(&claims); err != nil {
		return nil, fmt.Errorf("read ID token: %w", err)
	}
	return claims, nil
}

// sessionOf makes a session of an ID token's claims. Only what its bearer cannot choose freely
// (subject, verified address, groups) may make an operator.
func (p *provider) sessionOf(claims map[string]any) (session, error) {
	text := func(claim string) string { v, _ := claims[claim].(string); return v }
	name := text("sub")
	firm := []string{name}
	if sure, _ := claims["email_verified"].(bool); sure && text("email") != "" {
		name = text("email")
		firm = append(firm, name)
	}
	switch groups := claims[p.groups].(type) {
	case []any:
		for _, g := range groups {
			group, _ := g.(string)
			firm = append(firm, group)
		}
	case string:
		firm = append(firm, groups)
	}
	if !validName(name) {
		return session{}, fmt.Errorf("the ID token names %q, which cannot stand in a log", cut(name, longestName))
	}
	return session{Name: name, Scope: scopeOf(p.operators, firm)}, nil
}

// startOIDC sends the browser to the provider.
func (s *Server) startOIDC(w http.ResponseWriter, r *http.Request) {
	to, err := s.oidc.start(r.Context(), w, localPath(r.FormValue("next")))
	if err != nil {
		s.deps.Log.WarnContext(r.Context(), "console cannot sign in by provider", "err", err)
		s.askToSignIn(w, r, http.StatusServiceUnavailable, "The provider does not answer; the log says more.")
		return
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// finishOIDC answers the browser's return from the provider.
func (s *Server) finishOIDC(w http.ResponseWriter, r *http.Request) {
	who, next, err := s.oidc.finish(r.Context(), w, r)
	if err != nil {
		s.deps.Log.WarnContext(r.Context(), "console sign-in refused", "remote", s.guard.proxies.client(r), "path", r.URL.Path, "err", err)
		text := "The provider's answer could not be verified; the log says more."
		if errors.Is(err, errStrayReturn) {
			text = "This sign-in was not begun here, or too long ago: begin again."
		}
		s.askToSignIn(w, r, http.StatusUnauthorized, text)
		return
	}
	s.begin(w, r, who, next)
}
