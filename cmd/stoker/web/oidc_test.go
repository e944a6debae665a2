package web

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

// identityProvider is an OpenID Connect provider where everybody who comes is the same person at once.
type identityProvider struct {
	*httptest.Server
	t   *testing.T
	key *ecdsa.PrivateKey

	mu     sync.Mutex
	claims map[string]any        // of the next ID token, over what is right
	forge  *ecdsa.PrivateKey     // signs the next ID token instead; nil: key
	asked  map[string]url.Values // code → the request it was given for
}

func newIdentityProvider(t *testing.T) *identityProvider {
	t.Helper()
	p := &identityProvider{t: t, key: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), claims: map[string]any{}, asked: map[string]url.Values{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, "application/json", 200, map[string]any{
			"issuer": p.URL, "authorization_endpoint": p.URL + "/auth", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
			"id_token_signing_alg_values_supported": []string{"ES256"},
		})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, "application/json", 200, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &p.key.PublicKey, KeyID: "k1", Algorithm: "ES256", Use: "sig"}}})
	})
	mux.HandleFunc("GET /auth", func(w http.ResponseWriter, r *http.Request) {
		code, q := rand.Text(), r.URL.Query()
		p.mu.Lock()
		p.asked[code] = q
		p.mu.Unlock()
		back := must(url.Parse(q.Get("redirect_uri")))
		back.RawQuery = url.Values{"code": {code}, "state": {q.Get("state")}}.Encode()
		http.Redirect(w, r, back.String(), http.StatusSeeOther)
	})
	mux.HandleFunc("POST /token", p.token)
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

// token exchanges a code, once, for who knows the verifier and the client's secret.
func (p *identityProvider) token(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	asked, ok := p.asked[r.FormValue("code")]
	delete(p.asked, r.FormValue("code"))
	sum := sha256.Sum256([]byte(r.FormValue("code_verifier")))
	_, secret, _ := r.BasicAuth()
	if !ok || base64.RawURLEncoding.EncodeToString(sum[:]) != asked.Get("code_challenge") || secret != "client-secret" {
		http.Error(w, `{"error": "invalid_grant"}`, http.StatusBadRequest)
		return
	}
	claims := map[string]any{"iss": p.URL, "aud": "stoker", "sub": "u-17", "nonce": asked.Get("nonce"), "exp": time.Now().Add(time.Minute).Unix(), "iat": time.Now().Unix()}
	for name, value := range p.claims {
		claims[name] = value
	}
	key := p.key
	if p.forge != nil {
		key = p.forge
	}
	signer := must(jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{}).WithHeader("kid", "k1")))
	answer(w, "application/json", 200, map[string]any{
		"access_token": "a", "token_type": "Bearer", "id_token": must(jwt.Signed(signer).Claims(claims).Serialize()),
	})
}

// withProvider is a console where people sign in at the provider, and a browser before it.
func withProvider(t *testing.T, p *identityProvider) (*site, *visitor) {
	t.Helper()
	path := writeFile(t, "client-secret\n")
	console := httptest.NewUnstartedServer(nil)
	s := newSite(t, Config{
		WebURL: "http://" + console.Listener.Addr().String(), WebOIDCIssuer: p.URL, WebOIDCClient: "stoker", WebOIDCSecretFile: path,
		WebOIDCScopes: []string{"openid", "email", "groups"}, WebOIDCGroups: "groups", WebOperators: []string{"ops", "ann@example.org"},
	}, redistest.Mini(t))
	s.oidc.http.Transport = p.Client().Transport
	console.Config.Handler = s.Handler()
	console.Start()
	t.Cleanup(console.Close)
	return s, newVisitor(t, console.URL)
}

func TestSignedInByProvider(t *testing.T) {
	tests := []struct {
		name   string
		claims map[string]any
		who    string
		pause  int // status of a write
	}{
		{"a viewer", nil, "u-17", 403},
		{"an operator by verified address", map[string]any{"email": "ann@example.org", "email_verified": true}, "ann@example.org", 204},
		{"an address that is not verified", map[string]any{"email": "ann@example.org", "email_verified": false}, "u-17", 403},
		{"an address that anybody may claim", map[string]any{"email": "ann@example.org"}, "u-17", 403},
		{"a name that anybody may choose", map[string]any{"preferred_username": "ops", "name": "ann@example.org"}, "u-17", 403},
		{"an operator by group", map[string]any{"groups": []string{"staff", "ops"}}, "u-17", 204},
		{"groups of an odd form", map[string]any{"groups": map[string]any{"ops": true}}, "u-17", 403},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newIdentityProvider(t)
			for name, value := range tt.claims {
				p.claims[name] = value
			}
			s, v := withProvider(t, p)
			if status, _, text := v.page("/releases/r42", nil); status != 401 || !strings.Contains(text, `href="/signin/provider?next=%2freleases%2fr42"`) {
				t.Fatalf("before: status %d\n%s", status, text)
			}
			status, at, text := v.page("/signin/provider?next=/releases/r42", nil)
			if status != 200 || at != "/releases/r42" || !strings.Contains(text, "<span>"+tt.who+"</span>") {
				t.Fatalf("signed in: status %d at %s\n%s\n%s", status, at, text, s.logged)
			}
			// asynqmon pauses any queue, known or not.
			if got, _, _ := v.page("/queues/api/queues/none:pause", url.Values{}); got != tt.pause {
				t.Errorf("a write: status %d, want %d", got, tt.pause)
			}
		})
	}
}

func TestProviderIsNotBelieved(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(*identityProvider)
	}{
		{"signed by another", func(p *identityProvider) { p.forge = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }},
		{"issued to another client", func(p *identityProvider) { p.claims["aud"] = "shop" }},
		{"issued by another", func(p *identityProvider) { p.claims["iss"] = "https://evil.example" }},
		{"expired", func(p *identityProvider) { p.claims["exp"] = time.Now().Add(-time.Hour).Unix() }},
		{"of another sign-in", func(p *identityProvider) { p.claims["nonce"] = "another" }},
		{"for nobody", func(p *identityProvider) { p.claims["sub"] = "" }},
		{"for a name that breaks the log's line", func(p *identityProvider) { p.claims["sub"] = "u\n17" }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newIdentityProvider(t)
			tt.spoil(p)
			_, v := withProvider(t, p)
			if status, _, text := v.page("/signin/provider", nil); status != 401 || !strings.Contains(text, "could not be verified") {
				t.Errorf("status %d\n%s", status, text)
			}
			if status, _, _ := v.page("/", nil); status != 401 {
				t.Errorf("afterwards: status %d", status)
			}
		})
	}
}

// TestStrayReturn: a return that this browser did not begin signs nobody in (a sign-in of somebody
// else's, planted by a link), nor does one that is repeated.
func TestStrayReturn(t *testing.T) {
	p := newIdentityProvider(t)
	s, v := withProvider(t, p)
	other := newVisitor(t, v.base)
	other.http.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if r.URL.Path == "/signin/callback" {
			return http.ErrUseLastResponse
		}
		return nil
	}
	resp := must(other.http.Get(v.base + "/signin/provider"))
	_ = resp.Body.Close()
	back := resp.Header.Get("Location")[len(v.base):]
	for _, path := range []string{back, "/signin/callback?code=x", "/signin/callback"} {
		if status, _, text := v.page(path, nil); status != 401 || !strings.Contains(text, "not begun here") {
			t.Errorf("%s: status %d\n%s", path, status, text)
		}
	}
	other.http.CheckRedirect = nil
	if status, _, _ := other.page(back, nil); status != 200 {
		t.Errorf("the browser that began: status %d\n%s", status, s.logged)
	}
	if status, _, _ := other.page(back, nil); status != 401 {
		t.Errorf("the same return again: status %d, want 401", status)
	}
	if left := s.deps.Queue.Keys(context.Background(), "stoker:{alpha}:signin:*").Val(); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}

func TestProviderAway(t *testing.T) {
	p := newIdentityProvider(t)
	s, v := withProvider(t, p)
	p.Close()
	if status, _, text := v.page("/signin/provider", nil); status != 503 || !strings.Contains(text, "does not answer") {
		t.Errorf("status %d\n%s", status, text)
	}
	if strings.Contains(s.logged.String(), "client-secret") {
		t.Error("the log holds the client's secret")
	}
}

func TestProviderSecretOpenToAll(t *testing.T) {
	path := writeFile(t, "client-secret")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	cfg := Config{WebAddr: "127.0.0.1:0", WebSession: time.Hour, WebURL: "https://stoker.example", WebOIDCIssuer: "https://id.example", WebOIDCSecretFile: path}
	if _, err := New(Deps{}, cfg); !errors.Is(err, tasks.ErrInvalid) || strings.Contains(err.Error(), "client-secret") {
		t.Errorf("error %v, want one that names the mode", err)
	}
}
