package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// export takes lines of a document that set variables, and sets them.
func (g *guide) export(lines ...string) {
	g.Helper()
	for _, line := range lines {
		g.take(line)
		for written, own := range g.words {
			line = strings.ReplaceAll(line, written, own)
		}
		out, code := g.sh(line + " && env")
		if code != 0 {
			g.Fatalf("%s: exit code %d\n%s", line, code, out)
		}
		for _, name := range regexp.MustCompile(`STOKER_[A-Z_]+`).FindAllString(line, -1) {
			g.env = append(g.env, regexp.MustCompile(`(?m)^`+name+`=.*$`).FindString(out))
		}
	}
}

var yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")

// TestReadmeInFiveMinutes does what the README's reader does, with a site that has a cache already.
func TestReadmeInFiveMinutes(t *testing.T) {
	t.Parallel()
	s := newShopOf(t, 200)
	s.env = append(s.env, "STOKER_PLAN=", "STOKER_WATCH_FOR=0s", "TOKEN=a-token",
		"STOKER_WEB_TOKENS_FILE="+s.file("tokens", tokenLine("cms", "invalidate", "a-token")+tokenLine("ann", "operate", "b-token")))
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, r.URL.Path) }))
	t.Cleanup(site.Close)

	ctx := context.Background()
	for _, key := range []string{"post:41", "post:42", "post:43"} { // the cache that is there
		s.cache.ZAdd(ctx, "blog:r41:#tag:"+key, redis.Z{Score: float64(time.Now().Add(time.Hour).UnixMilli()), Member: key})
		s.cache.Set(ctx, "blog:r41:"+key, "page", time.Hour)
	}

	words := map[string]string{"redis://127.0.0.1:6379/0": s.redis.URL, "file:///var/lib/stoker": "file://" + filepath.Join(s.dir, "archives")}
	g := s.follow(readme, "Five minutes to your own site", words)
	g.export("export STOKER_APP=blog STOKER_REDIS_URL=redis://127.0.0.1:6379/0", "export STOKER_KEY_TEMPLATE='blog:<release>:<key>'", "export STOKER_SNAPSHOT_URL=file:///var/lib/stoker STOKER_PLAN=$PWD/stoker.yaml")
	text, err := os.ReadFile(s.plan)
	if err != nil {
		t.Fatal(err)
	}
	plan := string(text) + fmt.Sprintf(`  - name: pages
    crawl: {base: %q, sitemap: /sitemap.xml, headers: {X-Release: "{{.Release}}"}}
    expect: {key: "page:{{.Path}}", header: {X-Release: "{{.Release}}"}}
probes: {base: %q, paths: ["/", "/about"], count: 40}
`, s.canary(), site.URL)
	g.take("stoker dev")
	dev := s.start("dev")
	words["127.0.0.1:8080"] = s.listens(dev)

	g.run("stoker release create r41 --adopt --active")
	g.says(g.run(`curl -H "Authorization: Bearer $TOKEN" --json '{"targets":[{"tag":"post:42"}],"reason":"article edited"}' http://127.0.0.1:8080/v1/invalidations`), `"number"`)
	g.run("stoker invalidate --tag post:42 --reason 'article edited'")
	if n := s.cache.Exists(ctx, "blog:r41:post:42").Val(); n != 0 {
		t.Error("the edited article is still in the cache")
	}

	raw, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	s.file("documented.yaml", regexp.MustCompile(`(?m)^   `).ReplaceAllString(yamlBlock.FindStringSubmatch(string(raw))[1], ""))
	s.must("plan", "check", "documented.yaml", "--offline")
	s.file("stoker.yaml", plan)
	g.run("stoker plan check stoker.yaml")
	g.says(g.run("stoker plan schema"), `"\$schema"`)

	g.run("stoker baseline r41 --wait                      # how the site behaves before")
	g.run("stoker release create r42 --why 'new tag pages' # owner, revision and files touched come from git")
	g.says(g.run("stoker warm r42 --plan stoker.yaml --dry-run    # what would be warmed, and what it takes"), "200")
	g.run("stoker warm r42 --plan stoker.yaml --sample 1% --wait", exitInconclusive)
	g.run("stoker warm r42 --plan stoker.yaml --wait       # the rest; ends with the certificate")
	g.run("stoker release compare r41 r42                  # the same pages of both, side by side", exitDone, exitInconclusive)
	g.run("stoker release activate r42 --wait              # refused without a passed one; then watched")
	g.run("stoker rollback --wait                          # r41 again, with every edit since")
	g.run("stoker release note r42 --html > r42.html       # what the next developer reads; without --html as Markdown")
	g.words["https://stoker.example"], g.words["$HOME/.stoker_token"] = "http://"+s.listens(dev), s.file("token", "b-token")
	g.export("export STOKER_API_URL=https://stoker.example STOKER_API_TOKEN_FILE=$HOME/.stoker_token")
	g.says(g.run("stoker status"), "r41")
	g.over()
	note, err := os.ReadFile(filepath.Join(s.dir, "r42.html"))
	if err != nil || !strings.Contains(string(note), "new tag pages") {
		t.Errorf("%v: %s", err, note)
	}
	dev.end(syscall.SIGINT)
}

// canary is an instance of the new build, which fills its own cache; it returns its address.
func (s *shop) canary() string {
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	s.Cleanup(server.Close)
	mux.HandleFunc("/sitemap.xml", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">`)
		for _, path := range []string{"/", "/about"} {
			fmt.Fprintf(w, "<url><loc>%s%s</loc></url>", server.URL, path)
		}
		fmt.Fprint(w, "</urlset>")
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		release := r.Header.Get("X-Release")
		if err := s.cache.Set(r.Context(), "blog:"+release+":page:"+r.URL.Path, r.URL.Path, time.Hour).Err(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("X-Release", release)
		fmt.Fprintln(w, r.URL.Path)
	})
	return server.URL
}
