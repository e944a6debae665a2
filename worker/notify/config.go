package notify

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/alphanode/stoker/tasks"
)

// Config says where messages go.
type Config struct {
	WebhookURL     string        `split_words:"true" desc:"address that is told when a release is worse, rolled back by itself or badly warmed, and when health fails or recovers; a secret with most chat systems"`
	WebhookSecret  string        `split_words:"true" desc:"secret that signs the messages as Standard Webhooks says: whsec_ and base64, or at least 24 characters; without it they are not signed"`
	WebhookFormat  Format        `split_words:"true" default:"json" desc:"form of the messages: json, slack, mattermost, rocketchat, teams or discord"`
	WebhookTimeout time.Duration `split_words:"true" default:"10s" desc:"how long the receiver may take to answer, 1s to 50s"`
}

// Limits of the settings.
const (
	minSecret  = 24 // bytes, as the specification asks
	minTimeout = time.Second
	maxTimeout = 50 * time.Second // below the task's own
)

// Enabled reports whether there is anybody to tell.
func (c Config) Enabled() bool { return c.WebhookURL != "" }

// Validate reports every setting that cannot work, without showing a secret.
func (c Config) Validate() error {
	var errs []error
	if c.WebhookURL != "" {
		if u, err := url.Parse(c.WebhookURL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			errs = append(errs, fmt.Errorf("%w: STOKER_WEBHOOK_URL is not an address: use https://host/path", tasks.ErrInvalid))
		}
	}
	if c.WebhookSecret != "" {
		if _, err := c.signer(); err != nil {
			errs = append(errs, err)
		}
	}
	if !slices.Contains(Formats(), c.WebhookFormat) {
		errs = append(errs, fmt.Errorf("%w: STOKER_WEBHOOK_FORMAT %q: use one of %v", tasks.ErrInvalid, c.WebhookFormat, Formats()))
	}
	if c.WebhookTimeout < minTimeout || c.WebhookTimeout > maxTimeout {
		errs = append(errs, fmt.Errorf("%w: STOKER_WEBHOOK_TIMEOUT %v: use %v to %v", tasks.ErrInvalid, c.WebhookTimeout, minTimeout, maxTimeout))
	}
	return errors.Join(errs...)
}

// signer returns what signs messages. The specification's own form of a secret is decoded, any other
// is taken as it is.
func (c Config) signer() (*webhooks.Webhook, error) {
	if !strings.HasPrefix(c.WebhookSecret, "whsec_") {
		if len(c.WebhookSecret) < minSecret {
			return nil, fmt.Errorf("%w: STOKER_WEBHOOK_SECRET has %d characters: use at least %d (openssl rand -base64 32)", tasks.ErrInvalid, len(c.WebhookSecret), minSecret)
		}
		return webhooks.NewWebhookRaw([]byte(c.WebhookSecret))
	}
	signer, err := webhooks.NewWebhook(c.WebhookSecret)
	if err != nil { // its error shows a part of the secret
		return nil, fmt.Errorf("%w: STOKER_WEBHOOK_SECRET begins with whsec_, but what follows is not base64", tasks.ErrInvalid)
	}
	return signer, nil
}
