package main

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
)

// The pauses between two looks at a Redis that does not answer: the first, and the longest.
const (
	firstLook = 500 * time.Millisecond
	lastLook  = 5 * time.Second
)

// passing are the answers of a Redis that will answer otherwise before long, by itself.
var passing = []string{"LOADING", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "BUSY"}

// mayAnswer reports whether err is of a Redis that is not there yet, or for a while. Credentials, certificates and
// settings that are wrong stay wrong.
func mayAnswer(err error) bool {
	var unreachable *net.OpError
	var unknown *net.DNSError
	switch {
	case errors.As(err, &unreachable), errors.As(err, &unknown), errors.Is(err, io.EOF), errors.Is(err, context.DeadlineExceeded):
		return true
	}
	for _, word := range passing {
		if redis.HasErrorPrefix(err, word) {
			return true
		}
	}
	return false
}

// patiently repeats a look at a Redis for as long as it may answer yet. It says once that it waits, and why, and once
// that it is over. When ctx ends first, it returns ctx's error.
func (r *rooms) patiently(ctx context.Context, look func(context.Context) error) error {
	pause := firstLook
	for waits := false; ; waits = true {
		err := look(ctx)
		switch {
		case err == nil && waits:
			r.logger.Info("every Redis answers")
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil, !mayAnswer(err):
			return err
		case !waits:
			r.logger.Warn("waiting for a Redis", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, lastLook)
	}
}
