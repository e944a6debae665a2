package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// The kinds of Redis that [StartRedis] starts.
const (
	RealRedis     = "redis-server"
	EmbeddedRedis = "embedded"
)

const (
	startLimit = 10 * time.Second
	stopLimit  = 5 * time.Second
	// clockStep is how often the embedded Redis is told the time.
	clockStep = 100 * time.Millisecond
)

// StartRedis starts a Redis that belongs to this process alone: a redis-server on a socket in
// a temporary directory when there is one on the PATH, the embedded one otherwise. It keeps
// nothing on disk and never evicts. stop ends it and deletes what it left; call it last.
func StartRedis(ctx context.Context) (url, kind string, stop func(), err error) {
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		return startEmbedded()
	}
	dir, err := os.MkdirTemp("", "stoker-redis-")
	if err != nil {
		return "", "", nil, fmt.Errorf("start redis-server: %w", err)
	}
	url, end, err := startServer(ctx, bin, dir)
	if err != nil {
		return "", "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return url, RealRedis, func() {
		end()
		os.RemoveAll(dir)
	}, nil
}

func startServer(ctx context.Context, bin, dir string) (url string, stop func(), err error) {
	socket := filepath.Join(dir, "redis.sock")
	cmd := exec.Command(bin, "--port", "0", "--unixsocket", socket, "--unixsocketperm", "700",
		"--dir", dir, "--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	detach(cmd)
	if err := cmd.Start(); err != nil {
		return "", nil, fmt.Errorf("start redis-server: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(stopLimit):
			_ = cmd.Process.Kill()
			<-ended
		}
	}
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: socket, MaxRetries: -1})
	defer client.Close()
	deadline := time.Now().Add(startLimit)
	listens := func() bool { _, err := os.Stat(socket); return err == nil }
	for !listens() || client.Ping(ctx).Err() != nil {
		select {
		case err := <-ended:
			return "", nil, fmt.Errorf("start redis-server: it ended (%v): %s", err, bytes.TrimSpace(log.Bytes()))
		case <-ctx.Done():
			stop()
			return "", nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			stop()
			return "", nil, fmt.Errorf("start redis-server: no answer within %v", startLimit)
		}
	}
	return "unix://" + socket, stop, nil
}

// startEmbedded starts a miniredis. Its clock is set step by step, not left to run: an expiry
// reads back as exactly what was set only while the clock stands still between two commands,
// and a fill is known by its expiry.
func startEmbedded() (url, kind string, stop func(), err error) {
	server := miniredis.NewMiniRedis()
	server.SetTime(time.Now().Truncate(time.Millisecond))
	server.ClockTTL(true)
	if err := server.Start(); err != nil {
		return "", "", nil, fmt.Errorf("start the embedded Redis: %w", err)
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticks := time.NewTicker(clockStep)
		defer ticks.Stop()
		for {
			select {
			case now := <-ticks.C:
				server.SetTime(now.Truncate(time.Millisecond))
			case <-quit:
				return
			}
		}
	}()
	return "redis://" + server.Addr() + "/0", EmbeddedRedis, func() {
		close(quit)
		<-done
		server.Close()
	}, nil
}
