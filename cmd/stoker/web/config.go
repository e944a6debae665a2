package web

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/alphanode/stoker/tasks"
)

// Config says where the console listens and who may use it.
type Config struct {
	WebAddr       string `split_words:"true" default:"127.0.0.1:8080" desc:"address that the console listens on; anything but loopback needs a tokens file"`
	WebTokensFile string `split_words:"true" desc:"file of the console's tokens, one \"name scope sha256:hex\" a line, scopes view, operate, invalidate; read at the start"`
}

// Validate refuses an address that is none, and one that others can reach without a token.
func (c Config) Validate() error {
	host, _, err := net.SplitHostPort(c.WebAddr)
	if err != nil {
		return fmt.Errorf("%w: console address %q: use host:port, for example 127.0.0.1:8080 (STOKER_WEB_ADDR)", tasks.ErrInvalid, c.WebAddr)
	}
	if c.WebTokensFile == "" && !loopback(host) {
		return fmt.Errorf("%w: console address %q is not loopback, and without tokens anybody who reaches it could operate: "+
			"set STOKER_WEB_TOKENS_FILE, or listen on 127.0.0.1 (STOKER_WEB_ADDR)", tasks.ErrInvalid, c.WebAddr)
	}
	return nil
}

// loopback reports whether host, without a port, can only mean this machine.
func loopback(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") { // RFC 6761, section 6.3
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
