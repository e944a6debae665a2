package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestRedisClientsSayThingsOnce(t *testing.T) {
	var out bytes.Buffer
	l := &redisLog{logger: slog.New(slog.NewTextHandler(&out, nil))}
	for range 3 {
		l.Printf(context.Background(), "no answer from %s", "a")
		l.Printf(context.Background(), "no answer from %s", "b")
	}
	if n := strings.Count(out.String(), "no answer"); n != 2 {
		t.Errorf("said %d things, want 2:\n%s", n, out.String())
	}
	if !l.news("no answer from a", time.Now().Add(sayAgain)) {
		t.Error("it is not said again after a minute")
	}
	for i := range 10 * mostSaid {
		l.news(fmt.Sprint(i), time.Now())
	}
	if len(l.said) > mostSaid {
		t.Errorf("%d texts are remembered", len(l.said))
	}
}
