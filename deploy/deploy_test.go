// Package deploy_test holds the deployment files against the code and against a real Redis.
package deploy_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/hibiken/asynq"
	"github.com/kelseyhightower/envconfig"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/cmd/stoker/remote"
	"github.com/alphanode/stoker/cmd/stoker/web"
	"github.com/alphanode/stoker/scheduler"
	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker"
	"github.com/alphanode/stoker/worker/governor"
	"github.com/alphanode/stoker/worker/health"
	"github.com/alphanode/stoker/worker/health/freshness"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/notify"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/snapshot"
	"github.com/alphanode/stoker/worker/warm"
	"github.com/alphanode/stoker/worker/warm/origin"
	"github.com/alphanode/stoker/worker/warm/refresh"
)

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no %s: %v", pattern, err)
	}
	return paths
}

// settings returns the names of every setting that a room reads.
func settings(t *testing.T) []string {
	t.Helper()
	var buf bytes.Buffer
	for _, room := range []any{
		&tasks.Config{}, &worker.Config{}, &warm.Config{}, &origin.Config{}, &refresh.Config{}, &freshness.Config{},
		&snapshot.Config{}, &release.Config{}, &governor.Config{}, &health.Config{}, &notify.Config{}, &scheduler.Config{}, &web.Config{}, &remote.Config{},
	} {
		if err := envconfig.Usagef("STOKER", room, &buf, "{{range .}}{{usage_key .}}\n{{end}}"); err != nil {
			t.Fatal(err)
		}
	}
	return strings.Fields(buf.String())
}

var settingName = regexp.MustCompile(`\bSTOKER_[A-Z_]+\b`)

func TestSettingsExist(t *testing.T) {
	known := append(settings(t), "STOKER_REDIS_URL_FILE", "STOKER_CACHE_URL_FILE", "STOKER_WEBHOOK_URL_FILE", "STOKER_WEBHOOK_SECRET_FILE")
	files := append(glob(t, "systemd/*"), "Dockerfile", "compose.yaml", "env.example", "README.md", runbooks, "fill.md", rules, "redis-start.sh", "redis-queue.conf", "redis-cache.conf")
	for _, file := range files {
		for _, name := range settingName.FindAllString(read(t, file), -1) {
			if !slices.Contains(known, name) {
				t.Errorf("%s: no setting is named %s", file, name)
			}
		}
	}
}

var (
	commandUsed    = regexp.MustCompile("(?m)(?:^|`|&& |  )stoker ([a-z]+)")
	commandDefined = regexp.MustCompile(`Use:\s+"([a-z]+)`)
)

func TestReadmeCommandsExist(t *testing.T) {
	var known []string
	for _, file := range glob(t, "../cmd/stoker/*.go") {
		for _, m := range commandDefined.FindAllStringSubmatch(read(t, file), -1) {
			known = append(known, m[1])
		}
	}
	known = append(known, "warm", "pause", "resume", "worker", "scheduler", "web", "completion") // made by one function each, and by cobra
	for _, m := range commandUsed.FindAllStringSubmatch(read(t, "README.md"), -1) {
		if !slices.Contains(known, m[1]) {
			t.Errorf("README.md: no command `stoker %s`", m[1])
		}
	}
}

func TestCompose(t *testing.T) {
	type service struct {
		Command     []string          `yaml:"command"`
		Environment map[string]string `yaml:"environment"`
		Secrets     []string          `yaml:"secrets"`
		Ports       []string          `yaml:"ports"`
		ReadOnly    bool              `yaml:"read_only"`
		CapDrop     []string          `yaml:"cap_drop"`
		Grace       string            `yaml:"stop_grace_period"`
	}
	var file struct {
		Services map[string]service `yaml:"services"`
		Secrets  map[string]any     `yaml:"secrets"`
	}
	if err := yaml.UnmarshalWithOptions([]byte(read(t, "compose.yaml")), &file, yaml.AllowDuplicateMapKey()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"worker", "scheduler", "web"} {
		s, ok := file.Services[name]
		if !ok || !slices.Equal(s.Command, []string{name}) || !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) {
			t.Errorf("service %s: got %+v", name, s)
		}
		if s.Environment["STOKER_REDIS_URL_FILE"] == "" || s.Environment["STOKER_CACHE_URL_FILE"] == "" {
			t.Errorf("service %s has no Redis: %v", name, s.Environment)
		}
		if grace, err := time.ParseDuration(s.Grace); err != nil || grace <= gracePeriod(t) {
			t.Errorf("service %s is killed after %q, before the worker's own grace period of %v ends", name, s.Grace, gracePeriod(t))
		}
		for _, secret := range s.Secrets {
			if _, ok := file.Secrets[secret]; !ok {
				t.Errorf("service %s: no secret %s", name, secret)
			}
		}
		for _, port := range s.Ports {
			if !strings.HasPrefix(port, "127.0.0.1:") {
				t.Errorf("service %s publishes %s beyond this machine", name, port)
			}
		}
	}
	for name, config := range map[string]string{"queue": "redis-queue.conf", "cache": "redis-cache.conf"} {
		s := file.Services[name]
		if !slices.Contains(s.Command, "/etc/redis/"+config) || len(s.Ports) != 0 {
			t.Errorf("service %s: got %+v", name, s)
		}
	}
}

func gracePeriod(t *testing.T) time.Duration {
	t.Helper()
	var cfg worker.Config
	if err := envconfig.Process("STOKER_TEST_EMPTY", &cfg); err != nil {
		t.Fatal(err)
	}
	return cfg.GracePeriod
}

func TestUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd-analyze here to check the units with")
	}
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var units []string
	for _, path := range glob(t, "systemd/*.service") {
		// The binary is not installed here, and only that it is executable is looked at.
		text := strings.ReplaceAll(read(t, path), "/usr/local/bin/stoker", binary)
		unit := filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(unit, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		units = append(units, unit)
	}
	out, err := exec.Command(analyze, append([]string{"verify", "--man=no"}, units...)...).CombinedOutput()
	if err != nil || strings.Contains(string(out), dir) {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// TestUnitsAreClosed: systemd's own measure of what a service could do, from 0 (nothing) to 10.
func TestUnitsAreClosed(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd-analyze here to judge the units with")
	}
	for _, path := range glob(t, "systemd/*.service") {
		unit, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(analyze, "security", "--no-pager", "--offline=true", "--threshold=20", unit).CombinedOutput()
		if strings.Contains(string(out), "unrecognized option") {
			t.Skip("this systemd-analyze cannot judge files")
		}
		if err != nil {
			t.Errorf("%s: exposed to more than 2.0: %v\n%s", path, err, out)
		}
	}
}

// startRedis starts a Redis by redis-start.sh and returns its address.
func startRedis(t *testing.T, config string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs("redis-start.sh")
	if err != nil {
		t.Fatal(err)
	}
	here := filepath.Dir(script)
	dir := t.TempDir()
	for name, text := range map[string]string{"url": "redis://stoker:" + stokerPassword + "@queue:6379/0\n", "site": sitePassword + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("sh", script, filepath.Join(here, config), filepath.Join(dir, "url"), filepath.Join(dir, "site"), "--port", port, "--bind", "127.0.0.1")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "STOKER_APP=shop")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(out.String())
		}
	})
	awaitPing(t, addr)
	return addr
}

const (
	stokerPassword = "a-password-of-stoker"
	sitePassword   = "a-password-of-the-site"
)

func awaitPing(t *testing.T, addr string) {
	t.Helper()
	c := client(t, addr, "health", "any")
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for c.Do(context.Background(), "PING").Err() != nil {
		select {
		case <-limit.C:
			t.Fatalf("the Redis on %s does not answer", addr)
		case <-tick.C:
		}
	}
}

func client(t *testing.T, addr, user, password string) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: addr, Username: user, Password: password, MaxRetries: -1, Protocol: 2, DisableIdentity: true})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestRedises starts both Redises as compose does and lets every party do its work with its own rights.
func TestRedises(t *testing.T) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("no redis-server on the PATH")
	}
	ctx := context.Background()
	queueAddr, cacheAddr := startRedis(t, "redis-queue.conf"), startRedis(t, "redis-cache.conf")
	queue, cache := client(t, queueAddr, "stoker", stokerPassword), client(t, cacheAddr, "stoker", stokerPassword)
	ledger := release.Open(queue, tasks.KeysOf("shop"))
	by := tasks.By{Actor: "test"}

	t.Run("doctor", func(t *testing.T) {
		var cfg health.Config
		if err := envconfig.Process("STOKER_TEST_EMPTY", &cfg); err != nil {
			t.Fatal(err)
		}
		checks := health.Doctor(ctx, health.DoctorDeps{
			Queue: queue, Cache: cache,
			QueueURL: "redis://stoker:x@" + queueAddr, CacheURL: "redis://stoker:x@" + cacheAddr,
			Template: tasks.DefaultTemplate, Records: ledger.List,
			QueueKeys: []string{tasks.KeysOf("shop").Cursor("doctor"), "asynq:{shop.health}:doctor"},
			CacheKeys: []string{"shop:doctor:doctor", tasks.KeysOf("shop").Fence("doctor")},
		}, cfg)
		for _, c := range checks {
			if c.Status == health.Warn || c.Status == health.Fail {
				t.Errorf("%s: %s: %s", c.Name, c.Status, c.Detail)
			}
			if strings.HasPrefix(c.Name, "queue.") && c.Status != health.OK {
				t.Errorf("%s: %s: %s", c.Name, c.Status, c.Detail)
			}
		}
	})

	t.Run("stoker", func(t *testing.T) {
		if err := ledger.Create(ctx, release.Record{ID: "r1", Template: tasks.DefaultTemplate}, by); err != nil {
			t.Fatal(err)
		}
		if _, err := ledger.Flip(ctx, "r1", release.New, by); err != nil {
			t.Fatal(err)
		}
		tendNamespace(t, cache)
		watchCache(t, queue, cache)
		denied(t, queue, "FLUSHALL", "KEYS *", "CONFIG SET save x", "ACL LIST", "SHUTDOWN", "SET other 1", "SCRIPT FLUSH", "REPLICAOF NO ONE", "PUBLISH other 1")
		denied(t, cache, "FLUSHDB", "SET other:r1:a 1", "SORT shop:r1:a")
	})

	t.Run("app server", func(t *testing.T) {
		q, c := client(t, queueAddr, "site", sitePassword), client(t, cacheAddr, "site", sitePassword)
		app := fill(t, q, c)
		if _, err := app.Invalidate(ctx, tasks.Invalidation{Targets: []tasks.Target{{Kind: tasks.KindTag, Name: "post:1"}}, By: by}); err != nil {
			t.Errorf("invalidate: %v", err)
		}
		denied(t, q, "FLUSHALL", "KEYS *", "INFO", "CONFIG GET *", "SADD asynq:{blog.warm}:t 1", "SET other 1")
	})

	t.Run("worker", func(t *testing.T) {
		lane := tasks.LaneInvalidate.Queue("shop")
		done := make(chan string, 1)
		srv := asynq.NewServerFromRedisClient(queue, asynq.Config{
			Queues: map[string]int{lane: 1}, Concurrency: 1, LogLevel: asynq.FatalLevel, ShutdownTimeout: time.Second, TaskCheckInterval: 10 * time.Millisecond,
		})
		if err := srv.Start(asynq.HandlerFunc(func(_ context.Context, task *asynq.Task) error {
			done <- task.Type()
			return nil
		})); err != nil {
			t.Fatal(err)
		}
		defer srv.Shutdown()
		select {
		case got := <-done:
			if got != tasks.TypeInvalidate {
				t.Errorf("got a task %s, want the app server's invalidation", got)
			}
		case <-time.After(10 * time.Second):
			t.Error("the app server's invalidation did not reach the worker")
		}
		inspector := asynq.NewInspectorFromRedisClient(queue)
		if _, err := inspector.GetQueueInfo(lane); err != nil {
			t.Errorf("queue info: %v", err)
		}
		if err := inspector.PauseQueue(lane); err != nil {
			t.Errorf("pause: %v", err)
		}
		if servers, err := inspector.Servers(); err != nil || len(servers) != 1 {
			t.Errorf("servers: %v, %v; want one", servers, err)
		}
	})

	t.Run("strangers", func(t *testing.T) {
		for _, c := range []*redis.Client{client(t, queueAddr, "", ""), client(t, queueAddr, "stoker", "wrong"), client(t, queueAddr, "site", stokerPassword)} {
			if err := c.Do(ctx, "PING").Err(); err == nil {
				t.Error("a client without a right password was let in")
			}
		}
		denied(t, client(t, queueAddr, "health", "any"), "GET stoker:{shop}:active", "INFO")
	})
}

// fill fills an entry and reads it, as an app server does, and returns its client.
func fill(t *testing.T, queue, cache redis.UniversalClient) *tasks.Client {
	t.Helper()
	app, err := tasks.NewClientFrom(queue, cache, tasks.Config{App: "shop", KeyTemplate: tasks.DefaultTemplate, FillLimit: 30 * time.Second, Release: "r1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = app.Close() })
	load := func(context.Context) ([]byte, error) { return []byte("page"), nil }
	for _, wantHit := range []bool{false, true} {
		got, err := app.Fetch(context.Background(), "page:1", []string{"post:1"}, time.Minute, load)
		if err != nil || string(got.Value) != "page" || got.Hit != wantHit {
			t.Errorf("fetch: %+v, %v; want hit %v", got, err, wantHit)
		}
	}
	return app
}

// tendNamespace does with a namespace what stoker does with one: write, count, copy, delete.
func tendNamespace(t *testing.T, cache redis.UniversalClient) {
	t.Helper()
	ctx := context.Background()
	tmpl, err := tasks.ParseTemplate(tasks.DefaultTemplate, "shop")
	if err != nil {
		t.Fatal(err)
	}
	ns := namespace.New(cache, tmpl, tasks.KeysOf("shop"), nil)
	entry := namespace.Put{Entry: tasks.Entry{Key: "a", Type: tasks.EntryString, Value: "1"}, Tags: []string{"post:1"}}
	if err := ns.Put(ctx, "r1", []namespace.Put{entry}); err != nil {
		t.Errorf("put: %v", err)
	}
	if err := ns.Copy(ctx, "r1", "r0", []string{"a"}, "", func(namespace.CopySlice) error { return nil }); err != nil {
		t.Errorf("copy: %v", err)
	}
	if u, err := ns.Usage(ctx, "r0"); err != nil || u.Entries != 1 {
		t.Errorf("usage: %+v, %v; want one entry", u, err)
	}
	if err := ns.Read(ctx, "r1", func([]tasks.Entry) error { return nil }); err != nil {
		t.Errorf("read: %v", err)
	}
	if _, err := ns.PruneTags(ctx, "r1", time.Now()); err != nil {
		t.Errorf("prune: %v", err)
	}
	if err := ns.SetFence(ctx, "r0", "token"); err != nil {
		t.Errorf("fence: %v", err)
	}
	if n, err := ns.Purge(ctx, "r0", "token", func(int64) {}); err != nil || n == 0 {
		t.Errorf("purge: %d keys, %v", n, err)
	}
}

// watchCache looks for failovers of the cache as a worker does.
func watchCache(t *testing.T, queue, cache redis.UniversalClient) {
	t.Helper()
	ctx := context.Background()
	tmpl, err := tasks.ParseTemplate(tasks.DefaultTemplate, "shop")
	if err != nil {
		t.Fatal(err)
	}
	keys := tasks.KeysOf("shop")
	log := invalidation.Open(queue, keys, invalidation.Config{})
	applier := invalidation.NewApplier(log, cache, tmpl, release.Open(queue, keys).Live, nil)
	for range 2 { // once to know the server, once to note on it
		if _, err := applier.Look(ctx); err != nil {
			t.Errorf("look: %v", err)
		}
	}
	if _, one := cache.(*redis.Client); !one {
		return // its places are those of the primaries
	}
	if n, err := cache.Exists(ctx, keys.Watermark(0)).Result(); err != nil || n != 1 {
		t.Errorf("no watermark on the cache Redis: %v", err)
	}
}

// denied expects every command to be refused for want of rights.
func denied(t *testing.T, c *redis.Client, commands ...string) {
	t.Helper()
	for _, command := range commands {
		var args []any
		for _, word := range strings.Fields(command) {
			args = append(args, word)
		}
		if err := c.Do(context.Background(), args...).Err(); err == nil || !strings.HasPrefix(err.Error(), "NOPERM") {
			t.Errorf("%s: got %v, want NOPERM", command, err)
		}
	}
}
