package web

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const longestName = 200 // bytes of a name that a proxy or a provider gives

// proxies are the servers that stand before the console and may say who asks.
type proxies struct {
	networks     []netip.Prefix
	user, groups string // headers; "" without sign-in by proxy
	operators    []string
}

func newProxies(cfg Config) (*proxies, error) {
	networks, err := cfg.proxies()
	if err != nil {
		return nil, err
	}
	return &proxies{networks, headerName(cfg.WebProxyUser), headerName(cfg.WebProxyGroups), operatorsOf(cfg)}, nil
}

func operatorsOf(cfg Config) []string {
	var all []string
	for _, name := range cfg.WebOperators {
		if name = strings.TrimSpace(name); name != "" {
			all = append(all, name)
		}
	}
	return all
}

// identify returns whom a trusted proxy names; neither result without the header. The header from
// anywhere else is an attempt to be somebody, or a proxy that nobody told us of: both are refused.
func (p *proxies) identify(r *http.Request) (*actor, *refusal) {
	if p.user == "" || len(r.Header.Values(p.user)) == 0 {
		return nil, nil
	}
	if !p.trusts(r.RemoteAddr) {
		return nil, &refusal{http.StatusForbidden, "The header " + p.user + " is for the console's proxies (STOKER_WEB_PROXIES), and this request comes from elsewhere."}
	}
	names := r.Header.Values(p.user)
	if len(names) != 1 || !validName(names[0]) {
		return nil, &refusal{http.StatusForbidden, "The header " + p.user + " must hold one name."}
	}
	var groups []string
	if p.groups != "" {
		for _, line := range r.Header.Values(p.groups) {
			for _, group := range strings.Split(line, ",") {
				groups = append(groups, strings.TrimSpace(group))
			}
		}
	}
	return &actor{name: names[0], scope: scopeOf(p.operators, append(groups, names[0]))}, nil
}

// scopeOf is the scope of somebody whom others signed in: any of their names and groups may make
// them an operator.
func scopeOf(operators, names []string) Scope {
	if slices.ContainsFunc(names, func(name string) bool { return name != "" && slices.Contains(operators, name) }) {
		return Operate
	}
	return View
}

// validName accepts what can stand in an audit line.
func validName(name string) bool {
	return name != "" && len(name) <= longestName && name == strings.TrimSpace(name) && utf8.ValidString(name) &&
		!strings.ContainsFunc(name, func(c rune) bool { return !unicode.IsPrint(c) })
}

func (p *proxies) trusts(remote string) bool {
	addr, err := netip.ParseAddr(hostOf(remote))
	return err == nil && slices.ContainsFunc(p.networks, func(n netip.Prefix) bool { return n.Contains(addr.Unmap().WithZone("")) })
}

// client returns the address that a request comes from: what the trusted proxies say they were
// asked by, else who is connected. An address that a client wrote into the header itself stands
// left of the first untrusted one, and is not looked at.
func (p *proxies) client(r *http.Request) string {
	if !p.trusts(r.RemoteAddr) {
		return r.RemoteAddr
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		hop = strings.TrimSpace(hop)
		if _, err := netip.ParseAddr(hostOf(hop)); err != nil {
			break
		}
		if !p.trusts(hop) {
			return hop
		}
	}
	return r.RemoteAddr
}

// hostOf is an address without its port, when it has one.
func hostOf(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return strings.Trim(address, "[]")
}
