// Package s3test gives tests a real S3 server: Versity's gateway over a directory of the test's own.
package s3test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/alphanode/stoker/worker/redistest"
)

// WithoutS3 is the variable that, set to 1, skips the tests which need the server instead of
// building it: that takes the Go module proxy, and some minutes the first time.
const WithoutS3 = "STOKER_TEST_WITHOUT_S3"

const module, tool = "github.com/versity/versitygw", "v1.8.0"

// Region is the server's.
const Region = "eu-test-1"

// The server's one user.
const (
	AccessKey = "stoker-test"
	SecretKey = "only-for-tests"
)

// Server is an S3 server that belongs to one test.
type Server struct {
	Endpoint string // http://host:port
	Dir      string // a bucket is a directory in it
}

// Start starts a server and returns when it answers; it is gone when the test ends. Its
// credentials are put into the test's environment, so the test must not be parallel.
func Start(t testing.TB) *Server {
	t.Helper()
	bin := build(t)
	s := &Server{Dir: t.TempDir()}
	var log bytes.Buffer
	for range 5 { // another process may take the port between its choice and the start
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().String()
		_ = l.Close()
		cmd := exec.Command(bin, "--port", addr, "--access", AccessKey, "--secret", SecretKey, "--region", Region, "--quiet", "posix", s.Dir)
		cmd.Stdout, cmd.Stderr = &log, &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		if s.Endpoint = "http://" + addr; answers(t, addr, ended) {
			t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
			t.Setenv("AWS_ACCESS_KEY_ID", AccessKey)
			t.Setenv("AWS_SECRET_ACCESS_KEY", SecretKey)
			t.Setenv("AWS_REGION", Region)
			return s
		}
	}
	t.Fatalf("the S3 server does not start:\n%s", log.String())
	return nil
}

// Bucket makes a new bucket and returns its URL.
func (s *Server) Bucket(t testing.TB, name string) string {
	t.Helper()
	if err := os.Mkdir(filepath.Join(s.Dir, name), 0o700); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("s3://%s/archives?endpoint=%s", name, s.Endpoint)
}

// answers waits for the server, and reports false when it has ended.
func answers(t testing.TB, addr string, ended <-chan struct{}) (up bool) {
	t.Helper()
	redistest.Eventually(t, "the S3 server at "+addr, func() bool {
		select {
		case <-ended:
			return true
		default:
		}
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			up = true
			_ = conn.Close()
		}
		return up
	})
	return up
}

// build returns the server's binary, built once for all tests of a user.
func build(t testing.TB) string {
	t.Helper()
	if os.Getenv(WithoutS3) == "1" {
		t.Skipf("%s=1", WithoutS3)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "stoker-test")
	bin := filepath.Join(dir, "versitygw@"+tool)
	if _, err := os.Stat(bin); err == nil {
		return bin
	}
	fresh := t.TempDir()
	cmd := exec.Command("go", "install", module+"/cmd/versitygw@"+tool)
	cmd.Env = append(os.Environ(), "GOBIN="+fresh, "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v (%s=1 skips the tests that need it)\n%s", module, err, WithoutS3, out)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := move(filepath.Join(fresh, "versitygw"), bin); err != nil {
		t.Fatal(err)
	}
	return bin
}

// move puts a file in place in one step, also across file systems.
func move(from, to string) error {
	raw, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	part := fmt.Sprintf("%s.%d", to, os.Getpid())
	if err := os.WriteFile(part, raw, 0o700); err != nil {
		return err
	}
	return os.Rename(part, to)
}
