package web

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/alphanode/stoker/tasks"
)

// Config says where the console listens and who may use it.
type Config struct {
	WebAddr        string        `split_words:"true" default:"127.0.0.1:8080" desc:"address that the console listens on; anything but loopback needs a way to sign in"`
	WebTokensFile  string        `split_words:"true" desc:"file of the console's tokens, one \"name scope sha256:hex\" a line, scopes view, operate, invalidate; read at the start"`
	WebURL         string        `split_words:"true" desc:"address at which browsers reach the console, such as https://stoker.example; https keeps the session cookie off plain connections"`
	WebSession     time.Duration `split_words:"true" default:"12h" desc:"how long a sign-in by browser lasts, 1m to 720h"`
	WebProxies     []string      `split_words:"true" desc:"addresses or networks of the proxies before the console, separated by commas: their X-Forwarded-For says who asks"`
	WebProxyUser   string        `split_words:"true" desc:"header in which those proxies name who has signed in there, such as X-Forwarded-User; refused from anybody else"`
	WebProxyGroups string        `split_words:"true" desc:"header in which those proxies name that person's groups, separated by commas, such as X-Forwarded-Groups"`
	WebOIDCIssuer  string        `split_words:"true" desc:"address of an OpenID Connect provider that people sign in with; needs STOKER_WEB_URL, whose /signin/callback is the redirect address"`
	WebOIDCClient  string        `split_words:"true" default:"stoker" desc:"client ID at that provider"`
	// The secret is read where it is needed and is no setting's value: it cannot be printed.
	WebOIDCSecretFile string   `split_words:"true" desc:"file that holds the client's secret at that provider"`
	WebOIDCScopes     []string `split_words:"true" default:"openid,email" desc:"scopes to ask for there; some providers tell groups only when groups is among them"`
	WebOIDCGroups     string   `split_words:"true" default:"groups" desc:"claim of the ID token that lists a person's groups"`
	WebOperators      []string `split_words:"true" desc:"who may operate of those whom a proxy or the provider signs in, separated by commas: user names of the proxy, subjects and verified addresses of the provider, groups of either; others may view"`
	PrometheusURL     string   `split_words:"true" desc:"address of the Prometheus that scrapes this console, such as http://127.0.0.1:9090: with it the asynq UI has a page of metrics"`
}

// The span of [Config.WebSession].
const (
	shortestSession = time.Minute
	longestSession  = 720 * time.Hour
)

// Validate refuses values that are of the wrong form, and an address that others can reach
// without signing in. What settings need of one another [New] checks.
func (c Config) Validate() error {
	var errs []error
	host, _, err := net.SplitHostPort(c.WebAddr)
	switch {
	case err != nil:
		errs = append(errs, fmt.Errorf("%w: console address %q: use host:port, for example 127.0.0.1:8080 (STOKER_WEB_ADDR)", tasks.ErrInvalid, c.WebAddr))
	case !c.Guarded() && !loopback(host):
		errs = append(errs, fmt.Errorf("%w: console address %q is not loopback, and nobody has to sign in, so anybody who reaches it could operate: "+
			"set STOKER_WEB_TOKENS_FILE, or listen on 127.0.0.1 (STOKER_WEB_ADDR)", tasks.ErrInvalid, c.WebAddr))
	}
	if c.WebSession < shortestSession || c.WebSession > longestSession {
		errs = append(errs, fmt.Errorf("%w: session of %v: use 1m to 720h (STOKER_WEB_SESSION)", tasks.ErrInvalid, c.WebSession))
	}
	if _, err := c.proxies(); err != nil {
		errs = append(errs, err)
	}
	for setting, address := range map[string]string{"STOKER_WEB_URL": c.WebURL, "STOKER_WEB_OIDC_ISSUER": c.WebOIDCIssuer, "STOKER_PROMETHEUS_URL": c.PrometheusURL} {
		switch u, err := url.Parse(address); {
		case address == "":
		case err != nil: // it is not shown: a character in a password is the usual reason
			errs = append(errs, fmt.Errorf("%w: %s is no address: use http://host or https://host, without a name or password", tasks.ErrInvalid, setting))
		case u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil:
			errs = append(errs, fmt.Errorf("%w: address %q: use http://host or https://host, without a name or password (%s)", tasks.ErrInvalid, u.Redacted(), setting))
		}
	}
	return errors.Join(errs...)
}

// complete refuses settings that lack those they need.
func (c Config) complete() error {
	switch {
	case c.WebProxyUser != "" && len(c.WebProxies) == 0:
		return fmt.Errorf("%w: STOKER_WEB_PROXY_USER is set and STOKER_WEB_PROXIES is not: anybody could send the header %s; name the proxies that may", tasks.ErrInvalid, c.WebProxyUser)
	case c.WebProxyGroups != "" && c.WebProxyUser == "":
		return fmt.Errorf("%w: STOKER_WEB_PROXY_GROUPS is set and STOKER_WEB_PROXY_USER is not: name the header that says who it is", tasks.ErrInvalid)
	case c.WebOIDCIssuer != "" && (c.WebURL == "" || c.WebOIDCSecretFile == ""):
		return fmt.Errorf("%w: STOKER_WEB_OIDC_ISSUER needs STOKER_WEB_URL and STOKER_WEB_OIDC_SECRET_FILE as well", tasks.ErrInvalid)
	case len(c.WebOperators) > 0 && c.WebProxyUser == "" && c.WebOIDCIssuer == "":
		return fmt.Errorf("%w: STOKER_WEB_OPERATORS is for those whom a proxy or a provider signs in, and there is neither: set STOKER_WEB_PROXY_USER or STOKER_WEB_OIDC_ISSUER; a token's scope stands in the tokens file", tasks.ErrInvalid)
	}
	return nil
}

// Guarded reports whether people have to sign in.
func (c Config) Guarded() bool {
	return c.WebTokensFile != "" || c.WebProxyUser != "" || c.WebOIDCIssuer != ""
}

// secure reports whether browsers reach the console by TLS.
func (c Config) secure() bool { return strings.HasPrefix(c.WebURL, "https:") }

// proxies returns the networks of the trusted proxies.
func (c Config) proxies() ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, text := range c.WebProxies {
		text = strings.TrimSpace(text)
		network, err := netip.ParsePrefix(text)
		if err != nil {
			var addr netip.Addr
			if addr, err = netip.ParseAddr(text); err == nil {
				network = netip.PrefixFrom(addr, addr.BitLen())
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%w: proxy %q: use an address such as 10.0.0.7 or a network such as 10.0.0.0/28 (STOKER_WEB_PROXIES)", tasks.ErrInvalid, text)
		}
		if network.Bits() == 0 {
			return nil, fmt.Errorf("%w: proxies %q: that is everybody, who could then name themselves; name the proxies alone (STOKER_WEB_PROXIES)", tasks.ErrInvalid, text)
		}
		all = append(all, network.Masked())
	}
	return all, nil
}

// headerName returns a header's name as it arrives.
func headerName(name string) string { return http.CanonicalHeaderKey(strings.TrimSpace(name)) }

// loopback reports whether host, without a port, can only mean this machine.
func loopback(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") { // RFC 6761, section 6.3
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
