package remote

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/alphanode/stoker/tasks"
)

// Config says which API the command line talks to, and as whom.
type Config struct {
	ApiURL string `split_words:"true" desc:"address of a stoker web that commands are carried out by, such as https://stoker.example: operators then need no Redis; for the command line only"`
	// The token is read where it is needed and is no setting's value: it cannot be printed.
	ApiTokenFile string `split_words:"true" desc:"file that holds the token that commands show to it; its scope is what they may do"`
	ApiCAFile    string `split_words:"true" desc:"file of the authorities in PEM that it is trusted by, beside the system's"`
}

// Enabled reports whether commands go by the API.
func (c Config) Enabled() bool { return c.ApiURL != "" }

// Validate refuses an address that is none.
func (c Config) Validate() error {
	if !c.Enabled() {
		return nil
	}
	_, err := c.base()
	return err
}

// Complete refuses what is of no use without an address.
func (c Config) Complete() error {
	if c.Enabled() {
		return nil
	}
	for _, s := range []struct{ name, value string }{{"STOKER_API_TOKEN_FILE", c.ApiTokenFile}, {"STOKER_API_CA_FILE", c.ApiCAFile}} {
		if s.value != "" {
			return fmt.Errorf("%w: %s is set and STOKER_API_URL is not: name the stoker web that it is for, or unset it", tasks.ErrInvalid, s.name)
		}
	}
	return nil
}

// base is the address below which the API is.
func (c Config) base() (*url.URL, error) {
	u, err := url.Parse(c.ApiURL)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: STOKER_API_URL is not a URL: use https://host", tasks.ErrInvalid) // it may hold a secret
	case u.User != nil:
		return nil, fmt.Errorf("%w: STOKER_API_URL holds a name or password: put the token into a file and name it with STOKER_API_TOKEN_FILE", tasks.ErrInvalid)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("%w: address %q: use https://host, or http://127.0.0.1:8080 on the machine itself (STOKER_API_URL)", tasks.ErrInvalid, c.ApiURL)
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	return u, nil
}

// token reads the token, "" where none is needed.
func (c Config) token() (string, error) {
	if c.ApiTokenFile == "" {
		return "", nil
	}
	info, err := os.Stat(c.ApiTokenFile)
	if err != nil {
		return "", fmt.Errorf("%w: %v (STOKER_API_TOKEN_FILE)", tasks.ErrInvalid, err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return "", fmt.Errorf("%w: %q has mode %04o, open to every user of the machine: chmod 600 it (STOKER_API_TOKEN_FILE)", tasks.ErrInvalid, c.ApiTokenFile, info.Mode().Perm())
	}
	raw, err := os.ReadFile(c.ApiTokenFile)
	if err != nil {
		return "", fmt.Errorf("%w: %v (STOKER_API_TOKEN_FILE)", tasks.ErrInvalid, err)
	}
	token := strings.TrimSpace(string(raw))
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("%w: %q holds no token: put the token there and nothing else, not its hash's line (STOKER_API_TOKEN_FILE)", tasks.ErrInvalid, c.ApiTokenFile)
	}
	return token, nil
}

// authorities are the system's and those of the file; nil means the system's.
func (c Config) authorities() (*x509.CertPool, error) {
	if c.ApiCAFile == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(c.ApiCAFile)
	if err != nil {
		return nil, fmt.Errorf("%w: %v (STOKER_API_CA_FILE)", tasks.ErrInvalid, err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("%w: %q holds no certificate in PEM (STOKER_API_CA_FILE)", tasks.ErrInvalid, c.ApiCAFile)
	}
	return pool, nil
}
