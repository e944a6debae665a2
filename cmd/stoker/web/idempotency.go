package web

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

const (
	keepAnswer  = 24 * time.Hour
	claimLimit  = 4 * recordLimit // a claim outlives the request that made it, unless that died
	maxKeyBytes = 255
)

// idempotency remembers in the queue Redis what requests with an Idempotency-Key were answered.
// It is safe for concurrent use, by any number of processes.
type idempotency struct {
	queue redis.Cmdable
	keys  tasks.Keys
	log   *slog.Logger
}

// memo is what is kept of a request and its answer; the same key must come with the same body.
type memo struct {
	Body    string  `json:"body"`              // SHA-256, base64
	Claim   string  `json:"claim,omitempty"`   // who works on it; "" once it is answered
	Numbers []int64 `json:"numbers,omitempty"` // of invalidations: the answer follows from them and the body
	Reply   *reply  `json:"reply,omitempty"`   // of an operation
}

// once does what a request asks, unless one with the same key has been answered in the last 24 h:
// then it returns what was kept of that one. A failed request is not remembered. who keeps one token's
// keys apart from another's.
func (m *idempotency) once(ctx context.Context, who, key string, body []byte, do func() (memo, error)) (kept memo, replayed bool, err error) {
	if key == "" || len(key) > maxKeyBytes || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return memo{}, false, malformed("Idempotency-Key %.60q: use 1 to %d visible ASCII characters, such as a UUID.", key, maxKeyBytes)
	}
	sum := sha256.Sum256(body)
	mine := memo{Body: base64.RawStdEncoding.EncodeToString(sum[:]), Claim: rand.Text()}
	name := m.keys.Idempotency(who + ":" + key)
	before, err := m.claim(ctx, name, mine)
	switch {
	case err != nil:
		return memo{}, false, fmt.Errorf("claim idempotency key: %w", err)
	case before.Claim == mine.Claim:
	case before.Body != mine.Body:
		return memo{}, false, invalid("Idempotency-Key %q came with another body in the last 24 hours: take a new key for a new request.", key)
	case before.Claim != "":
		return memo{}, false, later(http.StatusConflict, time.Second, "The first request with Idempotency-Key %q is still under way: ask again in a second.", key)
	default:
		return before, true, nil
	}
	kept, err = do()
	kept.Body = mine.Body
	m.settle(ctx, name, kept, err == nil)
	return kept, false, err
}

// claim returns what holds the key from now on: mine, or what came before it. Where the reply of a
// first try was lost, what came before is mine.
func (m *idempotency) claim(ctx context.Context, name string, mine memo) (memo, error) {
	value, err := json.Marshal(mine)
	if err != nil {
		return memo{}, err
	}
	found, err := m.queue.SetArgs(ctx, name, value, redis.SetArgs{Mode: "NX", Get: true, TTL: claimLimit}).Result()
	if errors.Is(err, redis.Nil) {
		return mine, nil
	}
	if err != nil {
		return memo{}, err
	}
	var before memo
	return before, json.Unmarshal([]byte(found), &before)
}

// settle keeps the answer, or gives the key back. Where that fails the claim ends by itself, and
// the request may be recorded again: harmless.
func (m *idempotency) settle(ctx context.Context, name string, answer memo, ok bool) {
	value, err := json.Marshal(answer)
	switch {
	case err != nil:
	case ok:
		err = m.queue.Set(ctx, name, value, keepAnswer).Err()
	default:
		err = m.queue.Del(ctx, name).Err()
	}
	if err != nil {
		m.log.WarnContext(ctx, "idempotency key not kept", "error", err)
	}
}
