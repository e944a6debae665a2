package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/alphanode/stoker/worker/redistest"
)

// blocksOf returns a section's blocks of shell, whole.
func blocksOf(t *testing.T, document, title string) []string {
	t.Helper()
	raw, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(raw), "\n## "+title+"\n")
	text, _, _ = strings.Cut(text, "\n## ")
	var blocks []string
	for _, m := range shellBlock.FindAllStringSubmatch(text, -1) {
		blocks = append(blocks, m[1])
	}
	return blocks
}

// stub puts programs onto the path that only note how they were called, and returns the file where; sudo
// does the rest of its line.
func (in *install) stub(names ...string) (called string) {
	in.Helper()
	in.onPath()
	called = filepath.Join(in.dir, "called")
	for _, name := range append(names, "sudo") {
		script := "#!/bin/sh\necho " + name + " \"$@\" >>" + called + "\n"
		if name == "sudo" {
			script += "exec \"$@\"\n"
		}
		if err := os.WriteFile(filepath.Join(in.dir, "bin", name), []byte(script), 0o700); err != nil {
			in.Fatal(err)
		}
	}
	return called
}

// block runs a block of shell to its end, each line of which has to succeed.
func (in *install) block(script string) string {
	in.Helper()
	out, code := in.sh("set -e\n" + script)
	if code != 0 {
		in.Fatalf("exit code %d of\n%s\n%s", code, script, out)
	}
	return out
}

// copyDeploy gives the installation a folder of deployment files of its own.
func (in *install) copyDeploy(to string) {
	in.Helper()
	if err := os.CopyFS(filepath.Join(in.dir, to), os.DirFS("../../deploy")); err != nil {
		in.Fatal(err)
	}
}

// TestFirstStartWithDocker makes the secrets as the document says, and starts both Redises with them by the
// script that the containers run.
func TestFirstStartWithDocker(t *testing.T) {
	t.Parallel()
	in := newInstall(t)
	called := in.stub("docker", "chown")
	in.copyDeploy("deploy")
	blocks := blocksOf(t, installation, "First start with Docker")
	if len(blocks) != 1 {
		t.Fatalf("%d blocks, want one", len(blocks))
	}
	said := in.block(blocks[0])
	token := regexp.MustCompile(`sign in as ann with the token ([0-9a-f]{64})`).FindStringSubmatch(said)
	if token == nil {
		t.Fatalf("no token in %s", said)
	}
	in.dir = filepath.Join(in.dir, "deploy")
	for _, name := range []string{"queue_url", "cache_url", "site_password", "web_tokens"} {
		info, err := os.Stat(filepath.Join(in.dir, "secrets", name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if raw, _ := os.ReadFile(called); !strings.Contains(string(raw), "docker compose up -d\ndocker compose run --rm worker doctor\n") || !strings.Contains(string(raw), "sudo chown 65532 secrets/cache_url") {
		t.Errorf("called:\n%s", raw)
	}

	var env []string
	for _, name := range []string{"queue", "cache"} {
		addr := in.startWithSecrets(name)
		path := filepath.Join(in.dir, "secrets", name+"_url")
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// The name that the container has on its network is this machine's address here.
		in.file("secrets/"+name+"_url", strings.Replace(string(raw), name+":6379", addr, 1))
		env = append(env, map[string]string{"queue": "STOKER_REDIS_URL", "cache": "STOKER_CACHE_URL"}[name]+"_FILE="+path)
	}
	stoker := in.with(append(env, "STOKER_REDIS_URL=", "STOKER_WEB_TOKENS_FILE="+filepath.Join(in.dir, "secrets", "web_tokens"))...)
	web := stoker.listens(stoker.start("web"))
	if out, _ := stoker.sh("curl -s -o /dev/null -w '%{http_code}' -H 'Authorization: Bearer " + token[1] + "' http://" + web + "/metrics"); out != "200" {
		t.Errorf("ann's token: status %s", out)
	}
	checks := statuses(t, func() string { out, _, _ := stoker.run("doctor", "--json"); return out }())
	for name, status := range checks {
		if status == "fail" || status == "warn" && name != "processes" { // there is a console and nothing else
			t.Errorf("%s: %s", name, status)
		}
	}
}

// startWithSecrets starts a Redis as compose.yaml does.
func (in *install) startWithSecrets(name string) (addr string) {
	in.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		in.Fatal(err)
	}
	addr = l.Addr().String()
	_ = l.Close()
	data := filepath.Join(in.dir, name+"-data")
	if err := os.Mkdir(data, 0o700); err != nil {
		in.Fatal(err)
	}
	_, port, _ := strings.Cut(addr, ":")
	cmd := exec.Command("sh", filepath.Join(in.dir, "redis-start.sh"), filepath.Join(in.dir, "redis-"+name+".conf"),
		filepath.Join(in.dir, "secrets", name+"_url"), filepath.Join(in.dir, "secrets", "site_password"), "--port", port, "--bind", "127.0.0.1")
	cmd.Dir = data
	if err := cmd.Start(); err != nil {
		in.Fatal(err)
	}
	in.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	redistest.Eventually(in.T, "the "+name+" Redis", func() bool {
		out, _ := in.sh("redis-cli -p " + port + " --user health --pass any --no-auth-warning PING")
		return strings.Contains(out, "PONG")
	})
	return addr
}

// TestFirstStartWithSystemd does what can be done without a systemd: files where they belong, manual pages, completion, and the
// doctor with the environment of the units.
func TestFirstStartWithSystemd(t *testing.T) {
	t.Parallel()
	in := newInstall(t)
	called := in.stub("systemctl")
	in.copyDeploy("deploy")
	redisURL := in.redis.URL
	root := strings.NewReplacer("/etc/systemd/system/", in.dir+"/units/", "/usr/local/share/man", in.dir+"/man", "/etc/bash_completion.d", in.dir, "/etc/stoker", in.dir+"/etc")
	in.block("mkdir -p units etc/secrets && chmod 700 etc && sed 's|file:///var/lib/stoker|file://'$PWD'/archives|' deploy/env.example >etc/env && cp -r deploy/systemd .")
	in.file("etc/secrets/queue_url", redisURL)
	in.file("etc/secrets/cache_url", redisURL)
	in.env = append(in.env, "STOKER_REDIS_URL=")
	blocks := blocksOf(t, installation, "First start with systemd")
	if len(blocks) != 3 {
		t.Fatalf("%d blocks, want three", len(blocks))
	}
	in.block(root.Replace(blocks[0]))
	in.block(root.Replace(blocks[1]))
	said, code := in.sh(root.Replace(blocks[2]))
	if code != exitDone && !strings.Contains(said, "snapshot.store") || !strings.Contains(said, "queue.answers") || strings.Contains(said, "FAIL     queue") {
		t.Errorf("doctor with the units' settings: exit code %d\n%s", code, said)
	}
	raw, _ := os.ReadFile(called)
	if !strings.Contains(string(raw), "systemctl daemon-reload\n") || !strings.Contains(string(raw), "systemctl enable --now stoker-worker stoker-scheduler stoker-web\n") {
		t.Errorf("called:\n%s", raw)
	}
	for _, file := range []string{"units/stoker-worker.service", "man/man1/stoker-doctor.1", "stoker"} {
		if info, err := os.Stat(filepath.Join(in.dir, file)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// TestFirstStartInKubernetes writes the overlay as the document says and renders it.
func TestFirstStartInKubernetes(t *testing.T) {
	t.Parallel()
	kubectl, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip("no kubectl here to render the overlay with")
	}
	in := newInstall(t)
	called := in.stub("kubectl")
	in.copyDeploy("stoker/deploy")
	in.block("cp stoker/deploy/kubernetes/plan.yaml .")
	blocks := blocksOf(t, installation, "First start in Kubernetes")
	if len(blocks) != 1 {
		t.Fatalf("%d blocks, want one", len(blocks))
	}
	in.block(blocks[0])
	if raw, _ := os.ReadFile(called); !strings.Contains(string(raw), "kubectl apply -k .\nkubectl exec deploy/stoker-worker -- /stoker doctor\n") {
		t.Errorf("called:\n%s", raw)
	}
	cmd := exec.Command(kubectl, "kustomize", ".")
	cmd.Dir = in.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"image: ghcr.io/you/stoker:v1", "STOKER_APP: blog", "STOKER_SNAPSHOT_URL: s3://bucket/blog?region=eu-west-1"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the overlay lacks %q", want)
		}
	}
}
