// Package redistest gives tests a Redis: a real redis-server of their own, which they may stop,
// kill and start again, or an embedded one for quick logic tests. STOKER_TEST_REDIS_SERVER names the
// server's program, so that the same tests run on a newer Redis or on Valkey:
//
//	STOKER_TEST_REDIS_SERVER=/opt/valkey/bin/valkey-server go test ./worker/...
package redistest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// RedisServer is the variable that names the redis-server, or valkey-server, of all tests: a path.
// Without it, it is the redis-server on the PATH.
const RedisServer = "STOKER_TEST_REDIS_SERVER"

// WithoutRedis is the variable that, set to 1, skips tests which need a redis-server instead
// of failing them where there is none.
const WithoutRedis = "STOKER_TEST_WITHOUT_REDIS"

const (
	startLimit = 20 * time.Second // loading an AOF on a busy machine takes its time
	stopLimit  = 10 * time.Second
	pollEvery  = 5 * time.Millisecond
	portTries  = 5
)

// errPortTaken: another process took the port between the choice of it and the server's start.
var errPortTaken = errors.New("port taken")

// Server is a redis-server that belongs to one test. Its methods fail that test on errors, so
// they must be called from the test's own goroutine.
type Server struct {
	Addr   string        // host:port, the same after a Restart
	URL    string        // redis://host:port/0, with the password of --requirepass
	Client *redis.Client // connected to the server; outlives stops and restarts

	t    testing.TB
	bin  string
	dir  string
	conf string // of a Sentinel, which needs a file; "" for a server
	args []string
	cmd  *exec.Cmd
	done chan error // receives cmd.Wait's result; nil while the server is down
}

// Start starts a redis-server on a free loopback port, with its files in the test's temporary
// directory and without persistence, and returns when it answers. args are options of
// redis-server, such as "--appendonly", "yes"; they override the defaults. The server and its
// client are gone when the test ends; the server's log is shown when the test has failed.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s := launch(t, "", args)
	password := s.option("--requirepass")
	u := url.URL{Scheme: "redis", Host: s.Addr, Path: "/0"}
	if password != "" {
		u.User = url.UserPassword("", password)
	}
	s.URL = u.String()
	return s
}

// launch starts a server or, with the text of a configuration file, a Sentinel.
func launch(t testing.TB, conf string, args []string) *Server {
	t.Helper()
	bin, err := exec.LookPath(cmp.Or(os.Getenv(RedisServer), "redis-server"))
	if err != nil {
		if os.Getenv(RedisServer) != "" {
			t.Fatalf("%s: %v", RedisServer, err)
		}
		if os.Getenv(WithoutRedis) == "1" {
			t.Skipf("no redis-server on the PATH, and %s=1", WithoutRedis)
		}
		t.Fatalf("no redis-server on the PATH: install Redis 7.0 or later, or set %s=1 to skip the tests that need it", WithoutRedis)
	}
	s := &Server{t: t, bin: bin, dir: t.TempDir(), args: args}
	if conf != "" {
		s.conf = filepath.Join(s.dir, "sentinel.conf")
		if err := os.WriteFile(s.conf, []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range portTries {
		if s.Addr, err = freeAddr(); err != nil {
			break
		}
		if err = s.start(); !errors.Is(err, errPortTaken) {
			break
		}
	}
	if err != nil {
		t.Fatalf("start redis-server: %v\n%s", err, s.Log())
	}
	s.Client = redis.NewClient(&redis.Options{Addr: s.Addr, Password: s.option("--requirepass")})
	t.Cleanup(func() {
		_ = s.Client.Close()
		s.end(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("redis-server %s logged:\n%s", s.Addr, s.Log())
		}
	})
	return s
}

// Stop ends the server as an operator would (SIGTERM), saving what it is set to save. A
// server that is down already is left alone.
func (s *Server) Stop() {
	s.t.Helper()
	s.end(syscall.SIGTERM)
}

// Kill ends the server without warning (SIGKILL). A server that is down already is left alone.
func (s *Server) Kill() {
	s.t.Helper()
	s.end(syscall.SIGKILL)
}

// Freeze stops the server's process where it is, as a machine that hangs does; its connections stay open. Thaw lets
// it go on. Both leave one that is down alone.
func (s *Server) Freeze() { s.signal(syscall.SIGSTOP) }

// Thaw undoes Freeze.
func (s *Server) Thaw() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	if s.done != nil {
		_ = s.cmd.Process.Signal(sig)
	}
}

// Restart starts the server again on the same port and directory, stopping it first when it
// is up, and returns when it has loaded its data and answers.
func (s *Server) Restart() {
	s.t.Helper()
	s.end(syscall.SIGTERM)
	if err := s.start(); err != nil {
		s.t.Fatalf("restart redis-server %s: %v\n%s", s.Addr, err, s.Log())
	}
}

// Replace kills the server and starts an empty one in its place: its files are gone.
func (s *Server) Replace() {
	s.t.Helper()
	s.end(syscall.SIGKILL)
	for _, name := range []string{"appendonlydir", "dump.rdb"} {
		if err := os.RemoveAll(filepath.Join(s.dir, name)); err != nil {
			s.t.Fatal(err)
		}
	}
	s.Restart()
}

// Log returns what the server has logged so far.
func (s *Server) Log() string {
	raw, _ := os.ReadFile(s.logPath())
	return string(raw)
}

func (s *Server) logPath() string { return filepath.Join(s.dir, "redis.log") }

func (s *Server) start() error {
	logFile, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = logFile.Close() }()
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return err
	}
	args := append([]string{"--bind", host, "--port", port, "--dir", s.dir, "--save", "", "--appendonly", "no",
		"--repl-diskless-sync-delay", "0", // a first replica is not kept waiting for a second
	}, s.args...)
	if s.conf != "" {
		args = []string{s.conf, "--bind", host, "--port", port, "--dir", s.dir, "--sentinel"}
	}
	s.cmd = exec.Command(s.bin, args...)
	s.cmd.Stdout, s.cmd.Stderr = logFile, logFile
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.done = make(chan error, 1)
	go func(cmd *exec.Cmd, done chan<- error) { done <- cmd.Wait() }(s.cmd, s.done)
	if err := s.await(); err != nil {
		s.end(syscall.SIGKILL)
		return err
	}
	return nil
}

// await returns when the server answers.
func (s *Server) await() error {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	probe := redis.NewClient(&redis.Options{Addr: s.Addr, Password: s.option("--requirepass"), MaxRetries: -1})
	defer func() { _ = probe.Close() }()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		info, err := probe.Info(ctx, "server").Result()
		if err == nil && probe.Ping(ctx).Err() == nil {
			// Another server may have taken the port before ours could.
			if !strings.Contains(info, "process_id:"+strconv.Itoa(s.cmd.Process.Pid)+"\r\n") {
				return errPortTaken
			}
			return nil
		}
		select {
		case exit := <-s.done:
			s.done = nil
			if strings.Contains(s.Log(), "Address already in use") {
				return errPortTaken
			}
			return fmt.Errorf("it ended at once: %v", exit)
		case <-ctx.Done():
			return fmt.Errorf("no answer within %v: %v", startLimit, err)
		case <-tick.C:
		}
	}
}

// option returns the value of one of the server's options, "" when it is not set.
func (s *Server) option(name string) string {
	for i := len(s.args) - 2; i >= 0; i-- {
		if s.args[i] == name {
			return s.args[i+1]
		}
	}
	return ""
}

// end signals the server and waits for it to be gone; one that ignores the signal is killed.
func (s *Server) end(sig syscall.Signal) {
	if s.done == nil {
		return
	}
	_ = s.cmd.Process.Signal(sig)
	limit := time.NewTimer(stopLimit)
	defer limit.Stop()
	select {
	case <-s.done:
	case <-limit.C:
		_ = s.cmd.Process.Kill()
		<-s.done
	}
	s.done = nil
}

// freeAddr returns a loopback address on which nobody listens at the moment.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String(), nil
}

// NeedFieldExpiries skips the test, saying so, where the server knows no expiries of a hash's
// fields: Redis before 7.4, Valkey before 9.
func NeedFieldExpiries(t testing.TB, client *redis.Client) {
	t.Helper()
	err := client.Do(context.Background(), "HPEXPIRETIME", "none", "FIELDS", 1, "f").Err()
	if redis.HasErrorPrefix(err, "unknown command") {
		t.Skipf("this server knows no expiries of a hash's fields: Redis from 7.4 or Valkey from 9 on does (%s names another)", RedisServer)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Mini returns a client of an embedded Redis (miniredis) that ends with the test. It is for
// quick logic tests: its clock for TTLs stands still, SCAN returns everything at once, DUMP
// knows only strings, and there is next to no INFO.
func Mini(t testing.TB) *redis.Client {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()})
	t.Cleanup(func() { _ = client.Close() })
	return client
}
