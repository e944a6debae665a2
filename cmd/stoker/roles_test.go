package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/cmd/stoker/web"
	"github.com/alphanode/stoker/worker/redistest"
)

// roles are whom the API knows: nobody, and a token of each scope, which bears its name.
var roles = []web.Scope{"", web.Invalidate, web.View, web.Operate}

// tokens writes a file with a token of each scope, and each token's own.
func (in *install) tokens() {
	in.Helper()
	var lines strings.Builder
	for _, scope := range roles[1:] {
		secret := "token-of-" + string(scope)
		in.write("token."+string(scope), secret+"\n")
		fmt.Fprintf(&lines, "%s-user %s sha256:%x\n", scope, scope, sha256.Sum256([]byte(secret)))
	}
	in.write("tokens", lines.String())
}

// serveAPI serves the API of an installation from this process and returns its address. Other
// settings than the installation's are gone from the environment until the test ends.
func (in *install) serveAPI() string {
	in.Helper()
	in.tokens()
	bareEnvironment(in.T)
	for _, pair := range in.env {
		if name, value, _ := strings.Cut(pair, "="); strings.HasPrefix(name, envPrefix+"_") && name != asStoker {
			in.Setenv(name, value)
		}
	}
	in.Setenv("STOKER_WEB_TOKENS_FILE", filepath.Join(in.dir, "tokens"))
	set, err := loadSettings()
	if err != nil {
		in.Fatal(err)
	}
	r, err := wire(set, slog.New(slog.NewTextHandler(io.Discard, nil)), nil)
	if err != nil {
		in.Fatal(err)
	}
	s, err := r.web()
	if err != nil {
		in.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		in.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	in.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			in.Error(err)
		}
		if err := r.close(); err != nil {
			in.Error(err)
		}
	})
	return "http://" + l.Addr().String()
}

// byAPI leaves in the environment nothing but the way to the API, as somebody.
func byAPI(t *testing.T, url string, as web.Scope, dir string) {
	t.Helper()
	bareEnvironment(t)
	t.Setenv("STOKER_API_URL", url)
	if as != "" {
		t.Setenv("STOKER_API_TOKEN_FILE", filepath.Join(dir, "token."+string(as)))
	}
}

// How a command stands to the API, where it is not an operation's scope.
const (
	local     web.Scope = "works on files and settings alone"
	processes web.Scope = "needs the Redises"
)

// commandScopes says of every command what it needs by the API.
var commandScopes = []struct {
	args  string
	needs web.Scope
}{
	{"demo", local}, // which brings its own Redis
	{"dev", processes},
	{"worker", processes},
	{"scheduler", processes},
	{"web", processes},
	{"release create r99 --no-git", web.Operate},
	{"release list", web.View},
	{"release show r1", web.View},
	{"release activate r1", web.Operate},
	{"release pin kept", web.Operate},
	{"release unpin kept", web.Operate},
	{"release compare r1 r10", web.Operate},
	{"release note r1", web.View},
	{"plan check plan.yaml", web.Operate},
	{"plan run new --plan plan.yaml", web.Operate},
	{"plan schema", local},
	{"warm new --plan plan.yaml", web.Operate},
	{"warm new --plan plan.yaml --dry-run", web.Operate},
	{"invalidate --key post:1", web.Invalidate},
	{"invalidate --key post:1 --dry-run", web.Operate},
	{"invalidations", web.View},
	{"snapshot kept", web.Operate},
	{"snapshot list", web.View},
	{"snapshot verify kept", web.Operate},
	{"snapshot inspect kept", web.Operate},
	{"drill", web.Operate},
	{"expire --dry-run", web.Operate},
	{"expire", web.Operate},
	{"rollback", web.Operate},
	{"baseline r1", web.Operate},
	{"compare r1 r10", web.View},
	{"status", web.View},
	{"health", web.Operate},
	{"freshness", web.View},
	{"freshness --now", web.Operate},
	{"doctor", web.Operate},
	{"config", local},
	{"pause warm", web.Operate},
	{"resume warm", web.Operate},
	{"notify --test", web.Operate},
	{"fill-scripts scripts", local},
	{"man .", local},
}

// Every command, by the API, is refused to each role that must not and to no other, with exit code 3 and
// the scope that it needs. A command that is new must be put into the table.
func TestEveryCommandByRole(t *testing.T) {
	in := newInstall(t)
	in.town()
	in.write("plan.yaml", onePost)
	url := in.serveAPI()
	t.Chdir(in.dir)

	var missing []string
	everyCommand(func(cmd *cobra.Command) {
		name := strings.TrimPrefix(cmd.CommandPath(), "stoker ")
		leaf := !cmd.HasSubCommands() || cmd.Name() == "snapshot"
		in := func(c struct {
			args  string
			needs web.Scope
		}) bool {
			return c.args == name || strings.HasPrefix(c.args, name+" ")
		}
		if leaf && !slices.ContainsFunc(commandScopes, in) {
			missing = append(missing, name)
		}
	})
	if len(missing) > 0 {
		t.Errorf("not in the table: %q", missing)
	}
	for _, c := range commandScopes {
		for _, as := range roles {
			if c.args == "demo" || c.args == "freshness --now" && as == web.Operate { // they run on
				continue
			}
			t.Run(fmt.Sprintf("%s as %q", c.args, as), func(t *testing.T) {
				byAPI(t, url, as, in.dir)
				var out, msg bytes.Buffer
				code := run(t.Context(), strings.Fields(c.args), nil, &out, &msg)
				says := out.String() + msg.String()
				guarded := strings.Contains(says, "by the API at") || strings.Contains(says, "does not know who asks")
				switch {
				case c.needs == processes:
					if code != exitBadInput || !strings.Contains(says, "unset STOKER_API_URL") {
						t.Errorf("exit code %d, %s", code, says)
					}
				case c.needs == local:
					if code != exitDone {
						t.Errorf("exit code %d, %s", code, says)
					}
				case as == c.needs || as == web.Operate:
					if guarded || strings.Contains(says, "does not answer") {
						t.Errorf("refused: exit code %d, %s", code, says)
					}
				case as == "":
					if code != exitRefused || !strings.Contains(says, "STOKER_API_TOKEN_FILE") {
						t.Errorf("without a token: exit code %d, %s", code, says)
					}
				default:
					if code != exitRefused || !strings.Contains(says, "this needs "+string(c.needs)) {
						t.Errorf("exit code %d, %s", code, says)
					}
				}
			})
		}
	}
}

// Every route of the API is refused to each role that must not, and to no other.
func TestEveryOperationByRole(t *testing.T) {
	in := newInstall(t)
	in.town()
	url := in.serveAPI()
	names := regexp.MustCompile(`\{[a-z]+\}`)
	seen := map[string]bool{}
	for _, e := range endpoints() {
		at := e.route()
		op, _ := e.serve(nil)
		if seen[at.Method+" "+at.Path] {
			t.Errorf("%s %s stands for two operations", at.Method, at.Path)
		}
		seen[at.Method+" "+at.Path] = true
		for _, as := range roles {
			req, err := http.NewRequestWithContext(t.Context(), at.Method, url+names.ReplaceAllString(at.Path, "7"), strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			if as != "" {
				req.Header.Set("Authorization", "Bearer token-of-"+string(as))
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			want := 0
			switch {
			case as == "":
				want = http.StatusUnauthorized
			case as != web.Operate && as != op.Scope && op.Scope != "":
				want = http.StatusForbidden
			}
			got := resp.StatusCode
			if refused := got == http.StatusUnauthorized || got == http.StatusForbidden; refused && got != want || !refused && want != 0 {
				t.Errorf("%s %s as %q: status %d, %s", at.Method, at.Path, as, got, body)
			}
			if kind := resp.Header.Get("Content-Type"); got >= 400 && kind != "application/problem+json" {
				t.Errorf("%s %s as %q: status %d of type %q", at.Method, at.Path, as, got, kind)
			}
		}
	}
}

// What differs between two installations that did the same.
var (
	anyTime   = regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?Z?)?( UTC)?`)
	anyNumber = regexp.MustCompile(`\b\d{5,16}\b|\d+ (seconds?|minutes?) (ago|from now)|\d+(\.\d+)? [KMG]?i?B\b|\bnow\b|namespace is [a-z0-9]+`)
	anyID     = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}|\b[A-Z2-7]{26}\b|_\d{16}-[0-9a-f]{8}\.stoker|"[0-9a-f]{16}"|\b[0-9a-f]{40}\b`)
	anyTook   = regexp.MustCompile(`\d+(\.\d+)?(e-\d+)? ?(ns|µs|ms|s)\b|"[a-z0-9_]*(_ns|seconds|_ms|_at|^at|floor|now|epoch|bytes|bytes_estimated|size|value)": [^,\n]+`)
	// A worker may be slow enough to be waited for, or be slowed down.
	anyProgress = regexp.MustCompile(`(?m)^([a-z][A-Za-z0-9: ]*: \d+( of \d+)?|still queued: .*|work at .*)( \(.*\))?\n`)
	onlyThat    = regexp.MustCompile(`(?m)^~+\n|^~+$`) // lines of it, and what an API's answer lacks of them
	anySpace    = regexp.MustCompile(`[ \t]+`)
)

// steady is a text without what differs between two installations that did the same.
func (in *install) steady(text string) string {
	text = strings.NewReplacer("operate-user", "ACTOR", (&cli{}).by().Actor, "ACTOR", in.dir, "DIR", in.redis.URL, "REDIS").Replace(text)
	for _, r := range []*regexp.Regexp{anyProgress, anyTime, anyNumber, anyID, anyTook} {
		text = r.ReplaceAllString(text, "~")
	}
	return onlyThat.ReplaceAllString(anySpace.ReplaceAllString(text, " "), "")
}

// Commands say and do the same by the API as beside the Redises: two installations live through the same
// script, one each way.
func TestSameByAPI(t *testing.T) {
	t.Parallel()
	near, far := newInstall(t), newInstall(t)
	for _, in := range []*install{near, far} {
		in.town()
		in.tokens()
		in.write("plan.yaml", onePost)
		in.start("worker")
	}
	for _, in := range []*install{near, far} {
		in.env = append(in.env, "STOKER_WEB_TOKENS_FILE="+filepath.Join(in.dir, "tokens"))
	}
	url := far.startWeb()
	asked := *far
	asked.env = []string{asStoker + "=1", "HOME=" + far.dir, "PATH=" + os.Getenv("PATH"), "STOKER_API_URL=" + url, "STOKER_API_TOKEN_FILE=" + filepath.Join(far.dir, "token.operate")}

	for _, line := range []string{
		"status --json", "status", "release list --json", "release list", "release show r1 --json", "release show r1", "release show r77", "release note r1", "release note r1 --html --json",
		"release create r2 --no-git --owner ann --why because --json", "release create r2 --no-git", "release create r3 --adopt", "release create r3 --active", "release create bad*id",
		"release pin r2", "release unpin r2 --json", "release pin r77", "release activate r2 --wait", "release activate r10 --wait --force --reason odd",
		"rollback --wait --json", "rollback --to r10 --wait", "rollback --to gone --wait", "rollback --to r77", "rollback --to=",
		"snapshot kept --wait", "snapshot kept --wait --json", "snapshot list --json", "snapshot list", "snapshot verify kept --json", "snapshot verify r1", "snapshot inspect kept --json", "snapshot inspect kept --key post:1",
		"snapshot inspect kept --key none", "snapshot gone", "drill --wait", "drill kept --wait --json", "drill r77",
		"expire --dry-run --json", "expire --dry-run", "expire --release r10 --wait", "expire --release kept --wait --json", "expire --no-snapshot", "rollback --to kept --wait",
		"invalidate --key post:1 --tag a --wait --reason edited", "invalidate --prefix post: --wait --json", "invalidate --prefix post: --dry-run --json", "invalidate --key post:1 --dry-run --refresh", "invalidate", "invalidations --json", "invalidations -n 0",
		"baseline r1", "compare r1 r10", "release compare r1 r10", "freshness", "freshness --now --json",
		"pause warm --json", "status", "resume warm", "pause nothing", "notify --test", "notify --test --wait", "notify",
		"plan check plan.yaml", "plan check none.yaml", "warm new --plan plan.yaml --dry-run", "warm new", "warm gone --plan plan.yaml", "warm new --plan plan.yaml --source none", "warm new --plan plan.yaml --sample 0%", "warm new --plan plan.yaml --wait", "status",
	} {
		args := strings.Fields(line)
		out, msg, code := near.run(args...)
		farOut, farMsg, farCode := asked.run(args...)
		want := fmt.Sprintf("exit code %d\n%s%s", code, near.steady(out), near.steady(msg))
		got := fmt.Sprintf("exit code %d\n%s%s", farCode, far.steady(farOut), far.steady(farMsg))
		if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); diff != "" {
			t.Errorf("stoker %s (-beside the Redises +by the API):\n%s", line, diff)
		}
	}
}

// startWeb starts `stoker web` and returns its address.
func (in *install) startWeb() (url string) {
	in.Helper()
	p := in.start("web")
	redistest.Eventually(in.T, "the console", func() bool {
		m := listensAt.FindStringSubmatch(p.text())
		if m != nil {
			url = "http://" + m[1]
		}
		return m != nil
	})
	return url
}
