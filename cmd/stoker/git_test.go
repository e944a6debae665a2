package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/alphanode/stoker/worker/release"
)

// commit makes a commit of files in the installation's folder.
func (in *install) commit(files map[string]string) string {
	in.Helper()
	for name, text := range files {
		if err := os.MkdirAll(filepath.Join(in.dir, "site", filepath.Dir(name)), 0o700); err != nil {
			in.Fatal(err)
		}
		in.write(filepath.Join("site", name), text)
	}
	in.git("add", "-A")
	in.git("commit", "-qm", "a change")
	return in.git("rev-parse", "HEAD")
}

func (in *install) git(args ...string) string {
	in.Helper()
	cmd := exec.Command("git", append([]string{"-C", filepath.Join(in.dir, "site"), "-c", "user.name=Ann Author", "-c", "user.email=ann@example.org"}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	out, err := cmd.CombinedOutput()
	if err != nil {
		in.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func (in *install) notes(id string) release.Notes {
	in.Helper()
	return field[release.Notes](in.T, in.must("release", "show", id, "--json"), "notes")
}

// A release takes from git what no flag says, runs nothing that the repository configures, and
// fails for no lack of git.
func TestCreateFromGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git here")
	}
	in := newInstall(t)
	if err := os.Mkdir(filepath.Join(in.dir, "site"), 0o700); err != nil {
		t.Fatal(err)
	}
	in.must("release", "create", "r0")
	if diff := cmp.Diff(release.Notes{}, in.notes("r0")); diff != "" {
		t.Errorf("without a repository: %s", diff)
	}
	in.git("init", "-q")
	in.must("release", "create", "r1", "--git", "site")
	if diff := cmp.Diff(release.Notes{}, in.notes("r1")); diff != "" {
		t.Errorf("without a commit: %s", diff)
	}

	first := in.commit(map[string]string{"a.html": "1", "same.html": "1"})
	in.must("release", "create", "r2", "--git", "site")
	if diff := cmp.Diff(release.Notes{Owner: "Ann Author <ann@example.org>", Revision: first}, in.notes("r2")); diff != "" {
		t.Errorf("with nothing to compare with: %s", diff)
	}
	if err := in.redis.Client.Set(t.Context(), "site:live:post:1", "one", 0).Err(); err != nil {
		t.Fatal(err)
	}
	in.must("release", "create", "live", "--adopt", "--active", "--revision", first[:12])

	second := in.commit(map[string]string{"a.html": "2", "tmpl/tag page.html": "1", "weird\nname\x1b": "1"})
	trap := filepath.Join(in.dir, "trap")
	in.git("config", "core.fsmonitor", "touch "+trap)
	in.git("config", "diff.external", "touch "+trap)
	in.write("site/same.html", "2")
	_, msg, code := in.run("release", "create", "r3", "--git", "site", "--why", "a test")
	if code != exitDone {
		t.Fatal(msg)
	}
	want := release.Notes{Owner: "Ann Author <ann@example.org>", Revision: second, Reason: "a test", Files: []string{"a.html", "tmpl/tag page.html", "weird·name·"}}
	if diff := cmp.Diff(want, in.notes("r3")); diff != "" {
		t.Error(diff)
	}
	for _, says := range []string{"from git: owner Ann Author", second, "3 files touched since " + first[:12], "changes that are not in that revision"} {
		if !strings.Contains(msg, says) {
			t.Errorf("it does not say %q:\n%s", says, msg)
		}
	}
	if _, err := os.Stat(trap); err == nil {
		t.Error("the repository's own program was run")
	}

	in.must("release", "create", "r4", "--git", "site", "--owner", "bob", "--revision", "v4", "--file", "b")
	if diff := cmp.Diff(release.Notes{Owner: "bob", Revision: "v4", Files: []string{"b"}}, in.notes("r4")); diff != "" {
		t.Errorf("flags: %s", diff)
	}
	in.must("release", "create", "r5", "--git", "site", "--no-git")
	if diff := cmp.Diff(release.Notes{}, in.notes("r5")); diff != "" {
		t.Errorf("--no-git: %s", diff)
	}
	without := in.with("PATH=" + in.dir)
	without.must("release", "create", "r6", "--git", "site")
	if diff := cmp.Diff(release.Notes{}, in.notes("r6")); diff != "" {
		t.Errorf("without git: %s", diff)
	}
}
