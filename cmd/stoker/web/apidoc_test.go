package web

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const apiDoc = "../../../deploy/api.md"

// fenced is a code block of the page: its language, what follows that, and the code.
var fenced = regexp.MustCompile("(?ms)^```([a-z]+)( [a-z]+)?\n(.*?)^```$")

func readAPIDoc(t *testing.T) [][]string {
	t.Helper()
	raw, err := os.ReadFile(apiDoc)
	if err != nil {
		t.Fatal(err)
	}
	return fenced.FindAllStringSubmatch(string(raw), -1)
}

// run runs a command in dir with a script on its standard input.
func run(t *testing.T, dir, script string, env []string, command ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdin = dir, append(os.Environ(), env...), strings.NewReader(script)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", command, err, out)
	}
	return string(out)
}

// Every example of the page does what it says: against a live server, with the token that the page
// tells how to make.
func TestAPIDocExamples(t *testing.T) {
	interpreters := map[string][]string{
		"sh": {"bash", "-euo", "pipefail", "-s"}, "python": {"python3", "-"}, "js": {"node", "--input-type=module", "-"},
		"php": {"php"}, "ruby": {"ruby", "-"},
	}
	blocks, dir := readAPIDoc(t), t.TempDir()
	at := slices.IndexFunc(blocks, func(b []string) bool { return b[2] == " token" })
	if at < 0 {
		t.Fatal("the page does not tell how to make a token")
	}
	printed := run(t, dir, blocks[at][3], nil, "bash", "-eu", "-s")
	_, token, _ := strings.Cut(strings.TrimSpace(printed), "STOKER_TOKEN=")
	s := newAPISite(t, Config{WebTokensFile: filepath.Join(dir, "web_tokens")})
	env := []string{"STOKER_URL=" + serve(t, s.site), "STOKER_TOKEN=" + token, "no_proxy=127.0.0.1"}

	tried := map[string]int{}
	for _, b := range slices.Delete(blocks, at, at+1) {
		language, code := b[1], b[3]
		if language == "json" {
			continue
		}
		tried[language]++
		t.Run(language, func(t *testing.T) {
			command, ok := interpreters[language]
			if !ok {
				t.Fatalf("no interpreter for %q", language)
			}
			if _, err := exec.LookPath(command[0]); err != nil {
				t.Skipf("%s is not installed: this example of the page has not been run", command[0])
			}
			out := run(t, dir, code, env, command...)
			if !regexp.MustCompile(`\d{16}`).MatchString(out) {
				t.Errorf("no number in what it printed: %s", out)
			}
			if diff := cmp.Diff([]string{"k:post:1", "t:author:ann"}, slices.Sorted(slices.Values(s.recorded()))); diff != "" {
				t.Errorf("recorded (-want +got):\n%s", diff)
			}
		})
	}
	if diff := cmp.Diff(map[string]int{"sh": 4, "php": 1, "python": 1, "ruby": 1, "js": 1}, tried); diff != "" {
		t.Errorf("examples (-want +got):\n%s", diff)
	}
}

// The answers that the page shows are as described.
func TestAPIDocAnswers(t *testing.T) {
	d := readDescription(t)
	shown := 0
	for _, b := range readAPIDoc(t) {
		if b[1] != "json" {
			continue
		}
		shown++
		name := "Accepted"
		if strings.Contains(b[3], "recorded") {
			name = "Outcome"
		}
		if wrong := d.check(d.Components.Schemas[name], name, decode(t, b[3])); wrong != "" {
			t.Error(wrong)
		}
	}
	if shown != 2 {
		t.Errorf("%d answers shown", shown)
	}
}
