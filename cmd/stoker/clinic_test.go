package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/health"
	"github.com/alphanode/stoker/worker/redistest"
)

// clinic is a whole installation of which the doctor has nothing to say, with a way to make each thing
// wrong. Its servers are of this machine, and can be reached by an address that the doctor does not know as such.
type clinic struct {
	*shop
	store             *redistest.Server // the cache Redis
	worker, scheduler *process
	broken            map[string]bool // checks that were seen to warn or fail
}

const doctorPassword = "a-password-of-stoker"

func newClinic(t *testing.T) *clinic {
	t.Helper()
	c := &clinic{shop: newShopOf(t, 200), store: redistest.Start(t), broken: map[string]bool{}}
	c.useCache(c.store)
	ctx := context.Background()
	rules, err := os.ReadFile("../../deploy/users.acl")
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range []*redistest.Server{c.redis, c.store} {
		_, line, _ := strings.Cut(string(rules), "\nuser stoker ")
		line, _, _ = strings.Cut(line, "\n")
		for name, more := range map[string]string{"stoker": "", "wide": "+@all", "narrow": "-eval"} {
			words := []any{"ACL", "SETUSER", name}
			for word := range strings.FieldsSeq(line + " " + more) {
				if !strings.HasPrefix(word, "#") {
					words = append(words, word)
				}
			}
			if err := server.Client.Do(ctx, append(words, ">"+doctorPassword)...).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.redis.Client.ConfigSet(ctx, "appendonly", "yes").Err(); err != nil {
		t.Fatal(err)
	}
	c.env = append(c.env, "STOKER_SCHEDULE="+c.file("schedule.yaml", "entries:\n  - {name: health, cron: \"* * * * *\", task: health:check}\n"))
	c.worker, c.scheduler = c.start("worker"), c.start("scheduler")
	c.env = append(c.env, "STOKER_WEB_ADDR="+c.listens(c.start("web")))
	for _, id := range []string{"r1", "r2"} {
		c.must("release", "create", id)
		c.must("warm", id, "--wait")
		c.must("release", "activate", id, "--wait")
	}
	c.must("snapshot", "r1", "--wait")
	c.must("drill", "r1", "--wait")
	c.tick(time.Now())
	return c
}

// listens waits until the console does, and returns its address.
func (in *install) listens(web *process) (addr string) {
	in.Helper()
	redistest.Eventually(in.T, "the console", func() bool {
		m := listensAt.FindStringSubmatch(web.text())
		if m != nil {
			addr = m[1]
		}
		return m != nil
	})
	return addr
}

// tick records when the scheduler has enqueued the entry of the schedule last.
func (c *clinic) tick(at time.Time) {
	c.Helper()
	if err := c.redis.Client.HSet(context.Background(), tasks.KeysOf(c.app).Ticks(), "health", at.Truncate(time.Minute).Unix()).Err(); err != nil {
		c.Fatal(err)
	}
}

// file writes a file that only its owner may read, and returns its path.
func (in *install) file(name, text string) string {
	in.Helper()
	path := filepath.Join(in.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		in.Fatal(err)
	}
	return path
}

// as makes a server's URL for one of its users, "" for none, with an address that is not known as this machine's.
func as(user string) func(*redistest.Server) string {
	return func(s *redistest.Server) string {
		u, _ := url.Parse(s.URL)
		u.Host = "0.0.0.0:" + u.Port()
		if user != "" {
			u.User = url.UserPassword(user, doctorPassword)
		}
		return u.String()
	}
}

// doctor runs the doctor with more settings and returns its checks, by name.
func (c *clinic) doctor(env ...string) (map[string]health.Check, int) {
	c.Helper()
	out, msg, code := c.with(env...).run("doctor", "--json")
	var checks []health.Check
	if err := json.Unmarshal([]byte(out), &checks); err != nil {
		c.Fatalf("doctor with %q: exit code %d: %v: %s%s", env, code, err, out, msg)
	}
	all := map[string]health.Check{}
	for _, check := range checks {
		all[check.Name] = check
	}
	return all, code
}

// symptom is what the doctor says of something that is wrong.
type symptom struct {
	status health.Status
	remedy string // a pattern
}

// wrong asserts what the doctor says of things that are wrong, and that the exit code follows.
func (c *clinic) wrong(want map[string]symptom, env ...string) {
	c.Helper()
	checks, code := c.doctor(env...)
	for name, want := range want {
		got := checks[name]
		if got.Status != want.status || !regexp.MustCompile(want.remedy).MatchString(got.Remedy) {
			c.Errorf("%s with %q: %s: %s → %s\nwant %s with a remedy like %q", name, env, got.Status, got.Detail, got.Remedy, want.status, want.remedy)
		}
		c.broken[name] = true
	}
	failed := exitDone
	for _, check := range checks {
		if check.Status == health.Fail {
			failed = exitFailed
		}
	}
	if code != failed {
		c.Errorf("with %q: exit code %d, want %d", env, code, failed)
	}
}

// config changes settings of a Redis until the returned function is called.
func (c *clinic) config(s *redistest.Server, settings map[string]string) (back func()) {
	c.Helper()
	ctx, before := context.Background(), map[string]string{}
	set := func(name, value string) {
		c.Helper()
		if err := s.Client.ConfigSet(ctx, name, value).Err(); err != nil {
			c.Fatal(err)
		}
	}
	for name, value := range settings {
		before[name] = s.Client.ConfigGet(ctx, name).Val()[name]
		set(name, value)
	}
	return func() {
		for name, value := range before {
			set(name, value)
		}
	}
}

// lying stands before a server and changes its answers; it returns the URL.
func (c *clinic) lying(s *redistest.Server, change func([]byte) []byte) string {
	c.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", s.Addr)
			if err != nil {
				_ = near.Close()
				continue
			}
			go func() { _, _ = io.Copy(far, near); _ = far.Close() }()
			go func() {
				defer near.Close()
				for buf := make([]byte, 1<<16); ; {
					n, err := far.Read(buf)
					if err != nil {
						return
					}
					if _, err := near.Write(change(buf[:n])); err != nil {
						return
					}
				}
			}()
		}
	}()
	return "redis://" + l.Addr().String() + "/0"
}

// older makes the server one of Redis 6.
func older(answer []byte) []byte {
	return bytes.Replace(answer, []byte("redis_version:7"), []byte("redis_version:6"), 1)
}

// earlier turns the answer of TIME an hour back.
func earlier(answer []byte) []byte {
	return timeAnswer.ReplaceAllFunc(answer, func(seconds []byte) []byte {
		var s int64
		_, _ = fmt.Sscanf(string(seconds[9:]), "%d", &s)
		return fmt.Appendf(nil, "*2\r\n$10\r\n%d", s-3600)
	})
}

var timeAnswer = regexp.MustCompile("\\*2\r\n\\$10\r\n[0-9]{10}")

// consoles puts before the console what spoils its answers.
func (c *clinic) consoles() {
	c.Helper()
	ann := c.file("tokens", "ann operate sha256:"+strings.Repeat("0", 64)+"\n")
	guarded := c.listens(c.with("STOKER_WEB_TOKENS_FILE="+ann, "STOKER_WEB_ADDR=127.0.0.1:0").start("web"))
	target := &url.URL{Scheme: "http", Host: guarded}
	before := func(handler http.HandlerFunc) string {
		s := httptest.NewServer(handler)
		c.Cleanup(s.Close)
		return "STOKER_WEB_URL=" + s.URL
	}
	pass := httputil.NewSingleHostReverseProxy(target)
	c.wrong(map[string]symptom{"web.answers": {health.Warn, "pass them on"}}, "STOKER_WEB_TOKENS_FILE="+ann, before(func(w http.ResponseWriter, r *http.Request) {
		pass.ServeHTTP(headless{w}, r)
	}))
	c.wrong(map[string]symptom{"web.answers": {health.Fail, "STOKER_WEB_URL"}}, "STOKER_WEB_TOKENS_FILE="+ann, before(func(http.ResponseWriter, *http.Request) {}))
	c.wrong(map[string]symptom{"web.limits": {health.Warn, "STOKER_WEB_URL"}}, before(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	checks, _ := c.doctor("STOKER_WEB_TOKENS_FILE="+ann, before(pass.ServeHTTP))
	for _, name := range []string{"web.answers", "web.limits"} {
		if got := checks[name]; got.Status != health.OK {
			c.Errorf("%s behind a proxy: %s: %s", name, got.Status, got.Detail)
		}
	}
}

// headless loses the headers that protect a browser.
type headless struct{ http.ResponseWriter }

func (h headless) WriteHeader(status int) {
	h.Header().Del("Content-Security-Policy")
	h.ResponseWriter.WriteHeader(status)
}

// running starts, ends and confuses processes.
func (c *clinic) running() {
	c.Helper()
	newer := c.with(asVersion+"=v99", "STOKER_WEB_ADDR=127.0.0.1:0").start("web")
	c.listens(newer)
	redistest.Eventually(c.T, "two versions", func() bool {
		checks, _ := c.doctor()
		return checks["stoker.versions"].Status == health.Warn
	})
	c.wrong(map[string]symptom{"stoker.versions": {health.Warn, "restart those of the older version"}})
	newer.end(syscall.SIGTERM)

	c.worker.end(syscall.SIGTERM)
	c.wrong(map[string]symptom{"processes": {health.Warn, "stoker worker"}})
	c.worker = c.start("worker")

	c.scheduler.end(syscall.SIGTERM)
	c.tick(time.Now().Add(-time.Hour))
	redistest.Eventually(c.T, "the worker", func() bool {
		checks, _ := c.doctor()
		return strings.Contains(checks["processes"].Detail, "worker 1")
	})
	c.wrong(map[string]symptom{"processes": {health.Warn, "stoker scheduler"}})
	c.wrong(map[string]symptom{"schedule.ticks": {health.Fail, "stoker scheduler"}})
	c.scheduler = c.start("scheduler")
	redistest.Eventually(c.T, "the scheduler's making up for what was missed", func() bool {
		checks, _ := c.doctor()
		return checks["schedule.ticks"].Status == health.OK && checks["processes"].Status == health.OK
	})
	c.nobody()
}

// nobody runs the doctor as a user that the machine knows no name of, as in a container.
func (c *clinic) nobody() {
	c.Helper()
	c.broken["audit.actor"] = true
	if os.Getuid() != 0 {
		c.Log("another user cannot be tried: these tests do not run as root")
		return
	}
	program, err := os.Open(os.Args[0])
	if err != nil {
		c.Fatal(err)
	}
	defer program.Close()
	for env, want := range map[string]string{"USER=": "unknown@", "USER=ann": "ann@"} {
		// By its descriptor: the folder is closed to that user.
		cmd := exec.Command("/proc/self/fd/3", "doctor")
		cmd.Env, cmd.Dir, cmd.ExtraFiles = append(slices.Clone(c.env), env), "/", []*os.File{program}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
		out, _ := cmd.CombinedOutput()
		if !strings.Contains(string(out), "noted as done by "+want) || strings.Contains(string(out), "set USER") != (want == "unknown@") {
			c.Errorf("as a nobody with %s:\n%s", env, out)
		}
	}
}
