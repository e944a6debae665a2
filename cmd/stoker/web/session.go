package web

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

const sessionCookie = "stoker_session"

// session is who signed in by browser.
type session struct {
	Name  string `json:"name"`
	Scope Scope  `json:"scope"`
	Token string `json:"token,omitempty"` // fingerprint of the token that it began with
}

// sessions are kept in the queue Redis, so that any console process knows them, under the hash of
// what the browser's cookie holds: whoever reads the Redis cannot take one over. They end after
// their life, whatever is done in them.
type sessions struct {
	queue  redis.UniversalClient
	keys   tasks.Keys
	life   time.Duration
	secure bool // browsers come by TLS
}

// begin keeps a session and gives the browser its cookie.
func (s *sessions) begin(ctx context.Context, w http.ResponseWriter, who session) error {
	raw, err := json.Marshal(who)
	if err != nil {
		return fmt.Errorf("begin session: %w", err)
	}
	secret := rand.Text()
	if err := s.queue.Set(ctx, s.key(secret), raw, s.life).Err(); err != nil {
		return fmt.Errorf("begin session: %w", err)
	}
	s.setCookie(w, sessionCookie, "/", secret, s.life)
	return nil
}

// find returns the session that a request belongs to, nil without one.
func (s *sessions) find(ctx context.Context, r *http.Request) (*session, error) {
	cookie, err := r.Cookie(sessionCookie)
	if err != nil || cookie.Value == "" {
		return nil, nil
	}
	raw, err := s.queue.Get(ctx, s.key(cookie.Value)).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find session: %w", err)
	}
	var found session
	if err := json.Unmarshal(raw, &found); err != nil {
		return nil, fmt.Errorf("find session: %w", err)
	}
	return &found, nil
}

// end forgets the session that a request belongs to.
func (s *sessions) end(ctx context.Context, w http.ResponseWriter, r *http.Request) error {
	cookie, err := r.Cookie(sessionCookie)
	if err != nil {
		return nil
	}
	s.setCookie(w, sessionCookie, "/", "", -1)
	if err := s.queue.Del(ctx, s.key(cookie.Value)).Err(); err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	return nil
}

func (s *sessions) key(secret string) string { return s.keys.Session(digest(secret)) }

// setCookie gives the browser a cookie that scripts and other sites' writes do not get at. A negative
// life takes it away.
func (s *sessions) setCookie(w http.ResponseWriter, name, path, value string, life time.Duration) {
	http.SetCookie(w, &http.Cookie{
		Name: name, Value: value, Path: path, MaxAge: seconds(life), HttpOnly: true, Secure: s.secure, SameSite: http.SameSiteLaxMode,
	})
}

func digest(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// seconds is a cookie's MaxAge: 0 would mean that it has none.
func seconds(life time.Duration) int {
	if life < 0 {
		return -1
	}
	return int(life.Seconds())
}
