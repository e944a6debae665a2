package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// redisLog is where the Redis clients say what befell a connection; who called learns of it by
// an error. While a server is away they say the same for every try: that is logged once a minute. It is safe for
// concurrent use.
type redisLog struct {
	logger *slog.Logger

	mu   sync.Mutex
	said map[string]time.Time // guarded by mu
}

const (
	sayAgain = time.Minute
	mostSaid = 100 // texts that are remembered
)

// Printf implements go-redis's logger.
func (l *redisLog) Printf(ctx context.Context, format string, args ...any) {
	if text := fmt.Sprintf(format, args...); l.news(text, time.Now()) {
		l.logger.WarnContext(ctx, "redis client", "message", text)
	}
}

// news reports whether a text was not logged of late.
func (l *redisLog) news(text string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, ok := l.said[text]; ok && now.Sub(at) < sayAgain {
		return false
	}
	if l.said == nil || len(l.said) >= mostSaid {
		l.said = map[string]time.Time{}
	}
	l.said[text] = now
	return true
}
