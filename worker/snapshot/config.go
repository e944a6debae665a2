package snapshot

import (
	"fmt"
	"net/url"
	"os"

	"github.com/alphanode/stoker/tasks"
)

// Config says where archives are kept, and who may read them.
type Config struct {
	SnapshotURL     string `split_words:"true" desc:"where snapshots are kept: file:///dir or s3://bucket/prefix?region=…&endpoint=…&path_style=true (credentials as for other S3 programs: AWS_ACCESS_KEY_ID, AWS_PROFILE, the machine's role); without it none are taken and no release is archived"`
	SnapshotKeyFile string `split_words:"true" desc:"file of age identities (made by age-keygen), one a line: snapshots are encrypted for the first and read with any; lines with recipients (age1…) may read new ones too; without it snapshots are not encrypted"`
}

// Validate reports a URL that no store serves, and a key file that cannot be used.
func (c Config) Validate() error {
	_, err := c.Store()
	return err
}

// Store returns the store that the settings name, without touching it.
func (c Config) Store() (Store, error) {
	s, err := Open(c.SnapshotURL)
	if err != nil || c.SnapshotURL == "" {
		return s, err
	}
	keys, err := LoadKeys(c.SnapshotKeyFile)
	if err != nil {
		return nil, err
	}
	return Seal(s, keys), nil
}

// Open returns the store at a URL without touching it: file:///dir, s3://bucket/prefix, or "" for
// the store that refuses everything because none is configured.
func Open(rawURL string) (Store, error) {
	if rawURL == "" {
		return none{}, nil
	}
	u, err := url.Parse(rawURL)
	if err != nil || u.Scheme == "" {
		// The parser's message may quote the URL, and with it a secret.
		return nil, fmt.Errorf("%w: snapshot URL: not a URL: use file:///dir or s3://bucket/prefix (STOKER_SNAPSHOT_URL)", tasks.ErrInvalid)
	}
	switch u.Scheme {
	case "file":
		if u.Host != "" || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" || len(u.Path) < 2 || u.Path[0] != '/' {
			return nil, fmt.Errorf("%w: snapshot URL %q: name a directory by its full path: file:///dir (STOKER_SNAPSHOT_URL)", tasks.ErrInvalid, u.Redacted())
		}
		return NewFileStore(u.Path), nil
	case "s3":
		p, err := parsePlace3(u, os.Getenv)
		if err != nil {
			return nil, err
		}
		return newS3Store(p)
	}
	return nil, fmt.Errorf("%w: snapshot URL %q: no store for %s://: use file:///dir or s3://bucket/prefix (STOKER_SNAPSHOT_URL)", tasks.ErrInvalid, u.Redacted(), u.Scheme)
}
