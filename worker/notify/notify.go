package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/alphanode/stoker/tasks"
)

// Sender sends messages to the receiver of its settings. It is safe for concurrent use.
type Sender struct {
	cfg    Config
	signer *webhooks.Webhook // nil: messages are not signed
	http   *http.Client
	now    func() time.Time
}

// New returns a sender; cfg must be valid. One without an address refuses every message.
func New(cfg Config) (*Sender, error) {
	s := &Sender{cfg: cfg, now: time.Now, http: &http.Client{
		Transport:     http.DefaultTransport.(*http.Transport).Clone(),
		Timeout:       cfg.WebhookTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if cfg.WebhookSecret != "" {
		var err error
		if s.signer, err = cfg.signer(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Close ends idle connections.
func (s *Sender) Close() { s.http.CloseIdleConnections() }

// Sent says how a message was taken.
type Sent struct {
	ID     string `json:"id"`
	Status int    `json:"status"` // of the answer
}

// Send sends one message under the task's ID. An error that wraps [tasks.ErrRefused] is for good: the
// receiver will not take it, or there is none.
func (s *Sender) Send(ctx context.Context, job tasks.Job, p tasks.Notify) (Sent, error) {
	sent, err := s.send(ctx, job.ID(), p)
	if err != nil {
		return sent, fmt.Errorf("tell of %s: %w", p.Event, err)
	}
	return sent, nil
}

func (s *Sender) send(ctx context.Context, id string, p tasks.Notify) (Sent, error) {
	sent := Sent{ID: id}
	if !s.cfg.Enabled() {
		return sent, fmt.Errorf("%w: nobody to tell: STOKER_WEBHOOK_URL is not set where the worker runs", tasks.ErrRefused)
	}
	req, err := s.request(ctx, id, p)
	if err != nil {
		return sent, err
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return sent, withoutURL(err)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
	sent.Status = resp.StatusCode
	switch code := resp.StatusCode; {
	case code >= 200 && code < 300:
		return sent, nil
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests, code >= 500:
		return sent, fmt.Errorf("the receiver answered %s", resp.Status)
	case code < 400:
		return sent, fmt.Errorf("%w: the receiver answered %s: redirects are not followed; set STOKER_WEBHOOK_URL to where it leads", tasks.ErrRefused, resp.Status)
	}
	return sent, fmt.Errorf("%w: the receiver answered %s: check STOKER_WEBHOOK_URL and STOKER_WEBHOOK_FORMAT", tasks.ErrRefused, resp.Status)
}

func (s *Sender) request(ctx context.Context, id string, p tasks.Notify) (*http.Request, error) {
	raw, err := body(s.cfg.WebhookFormat, p)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.cfg.WebhookURL, bytes.NewReader(raw))
	if err != nil {
		return nil, withoutURL(err)
	}
	at := s.now()
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "stoker/1")
	req.Header.Set(webhooks.HeaderWebhookID, id)
	req.Header.Set(webhooks.HeaderWebhookTimestamp, strconv.FormatInt(at.Unix(), 10))
	if s.signer != nil {
		signature, err := s.signer.Sign(id, at, raw)
		if err != nil {
			return nil, err
		}
		req.Header.Set(webhooks.HeaderWebhookSignature, signature)
	}
	return req, nil
}

// withoutURL returns what befell a request, without its address.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return fmt.Errorf("the receiver cannot be reached: %w", u.Err)
	}
	return errors.New("the receiver cannot be reached")
}
