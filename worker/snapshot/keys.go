package snapshot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"filippo.io/age"

	"github.com/alphanode/stoker/tasks"
)

// Keys are what archives are encrypted for and read with. The zero value encrypts nothing.
type Keys struct {
	file       string // where they came from, for messages
	recipients []age.Recipient
	identities []age.Identity
}

// LoadKeys reads a file of age identities and recipients, one a line; # begins a comment. New
// archives are encrypted for the first identity and for every recipient, and archives are read
// with whichever identity fits: to change the key, put the new one on top and keep the old one
// below it until the archives made with it are gone. "" means no encryption.
func LoadKeys(file string) (Keys, error) {
	if file == "" {
		return Keys{}, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return Keys{}, fmt.Errorf("%w: snapshot keys: %v (STOKER_SNAPSHOT_KEY_FILE)", tasks.ErrInvalid, err)
	}
	k := Keys{file: file}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := k.add(line); err != nil { // which may quote the secret
			return Keys{}, fmt.Errorf("%w: snapshot keys %q: line %d is neither an age identity (AGE-SECRET-KEY-…) nor a recipient (age1…) (STOKER_SNAPSHOT_KEY_FILE)", tasks.ErrInvalid, file, n)
		}
	}
	if len(k.identities) == 0 {
		return Keys{}, fmt.Errorf("%w: snapshot keys %q: no identity: every snapshot is read back and checked, so put in one made by `age-keygen` (STOKER_SNAPSHOT_KEY_FILE)", tasks.ErrInvalid, file)
	}
	if _, err := age.Encrypt(io.Discard, k.recipients...); err != nil {
		return Keys{}, fmt.Errorf("%w: snapshot keys %q: %v (STOKER_SNAPSHOT_KEY_FILE)", tasks.ErrInvalid, file, err)
	}
	return k, nil
}

func (k *Keys) add(line string) error {
	if strings.HasPrefix(line, "age1") {
		r, err := age.ParseRecipients(strings.NewReader(line))
		k.recipients = append(k.recipients, r...)
		return err
	}
	parsed, err := age.ParseIdentities(strings.NewReader(line))
	if err != nil {
		return err
	}
	for _, id := range parsed {
		if len(k.identities) == 0 {
			r, err := recipientOf(id)
			if err != nil {
				return err
			}
			k.recipients = append(k.recipients, r)
		}
		k.identities = append(k.identities, id)
	}
	return nil
}

func recipientOf(id age.Identity) (age.Recipient, error) {
	switch id := id.(type) {
	case *age.X25519Identity:
		return id.Recipient(), nil
	case *age.HybridIdentity:
		return id.Recipient(), nil
	}
	return nil, fmt.Errorf("identity of type %T", id)
}

// refuse says why an archive cannot be read with these keys.
func (k Keys) refuse(name string, err error) error {
	var none *age.NoIdentityMatchError
	switch {
	case len(k.identities) == 0:
		return fmt.Errorf("open archive %q: %w: it is encrypted: name the file with its key in STOKER_SNAPSHOT_KEY_FILE", name, tasks.ErrRefused)
	case errors.As(err, &none):
		return fmt.Errorf("open archive %q: %w: it is encrypted, and none of the %d keys in %q opens it: add the one it was made with", name, tasks.ErrRefused, len(k.identities), k.file)
	}
	return fmt.Errorf("open archive %q: %w: header of the encryption at offset 0: %v", name, ErrDamaged, err)
}
