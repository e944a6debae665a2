package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	runbooks     = "../../deploy/runbooks.md"
	installation = "../../deploy/README.md"
)

// guide is a section of a document whose commands a test executes: all of them, in the document's order, as
// they stand there. A command that is changed, added or taken out on one side alone fails the test.
type guide struct {
	*install
	title    string
	commands []string          // that are still to come
	words    map[string]string // what stands in the document for something of the installation's own → that
}

// follow opens a section, "" for what comes before the first.
func (in *install) follow(document, title string, words map[string]string) *guide {
	in.Helper()
	g := &guide{install: in, title: title, words: words, commands: commandsOf(in.T, document, title)}
	if len(g.commands) == 0 {
		in.Fatalf("%s: no commands under %q: does the pattern still fit?", document, title)
	}
	g.onPath()
	return g
}

var (
	shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")
	inlineCode = regexp.MustCompile("`([^`\n]+(?:\n[^`\n]+)?)`")
	// What a shell could run, or would have to.
	shellCommand = regexp.MustCompile(`^(stoker|curl|redis-cli|docker|kubectl|sudo|age-keygen) `)
)

// commandsOf returns a section's commands: lines of shell blocks, one that the next continues with it, and
// commands within the text.
func commandsOf(t *testing.T, document, title string) []string {
	t.Helper()
	raw, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	text := "\n" + string(raw)
	if title == "" {
		text, _, _ = strings.Cut(text, "\n## ")
	} else {
		_, text, _ = strings.Cut(text, "\n## "+title+"\n")
		text, _, _ = strings.Cut(text, "\n## ")
	}
	var all []string
	for text != "" {
		block, code := shellBlock.FindStringSubmatchIndex(text), inlineCode.FindStringSubmatchIndex(text)
		switch {
		case block != nil && (code == nil || block[0] <= code[0]):
			for line := range strings.Lines(text[block[2]:block[3]]) {
				if line = strings.TrimSpace(line); line != "" {
					all = append(all, line)
				}
			}
			text = text[block[1]:]
		case code != nil:
			if span := strings.ReplaceAll(text[code[2]:code[3]], "\n", " "); shellCommand.MatchString(span) {
				all = append(all, strings.Join(strings.Fields(span), " "))
			}
			text = text[code[1]:]
		default:
			text = ""
		}
	}
	return all
}

// onPath makes stoker a program that a shell finds, once for an installation.
func (in *install) onPath() {
	in.Helper()
	bin := filepath.Join(in.dir, "bin")
	if _, err := os.Stat(bin); err == nil {
		return
	}
	if err := os.Mkdir(bin, 0o700); err != nil {
		in.Fatal(err)
	}
	script := "#!/bin/sh\nexec " + os.Args[0] + " \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "stoker"), []byte(script), 0o700); err != nil {
		in.Fatal(err)
	}
	in.env = append(in.env, "PATH="+bin+":"+os.Getenv("PATH"))
}

// take takes the section's next command, which must be that one.
func (g *guide) take(command string) {
	g.Helper()
	if len(g.commands) == 0 || g.commands[0] != command {
		g.Fatalf("%q: the document goes on with %q, this test with %q", g.title, g.commands[:min(1, len(g.commands))], command)
	}
	g.commands = g.commands[1:]
}

// run carries out the section's next command, and fails unless its exit code is one of those; none means 0.
func (g *guide) run(command string, codes ...int) string {
	g.Helper()
	g.take(command)
	for written, own := range g.words {
		command = regexp.MustCompile(`\b`+regexp.QuoteMeta(written)+`\b`).ReplaceAllLiteralString(command, own)
	}
	out, code := g.sh(command)
	if len(codes) == 0 {
		codes = []int{exitDone}
	}
	if !slices.Contains(codes, code) {
		g.Fatalf("%q: %s: exit code %d, want %v\n%s", g.title, command, code, codes, out)
	}
	return out
}

// mentions passes over words of the section that name a command and are no step.
func (g *guide) mentions(commands ...string) {
	g.Helper()
	for _, command := range commands {
		g.take(command)
	}
}

// over says that the section has no more commands.
func (g *guide) over() {
	g.Helper()
	if len(g.commands) > 0 {
		g.Errorf("%q: no test executes %q", g.title, g.commands)
	}
}

// sh runs a line of shell and returns all that it said.
func (in *install) sh(line string) (said string, code int) {
	in.Helper()
	cmd := exec.Command("sh", "-c", line)
	cmd.Env, cmd.Dir = in.env, in.dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		in.Fatalf("%s: %v", line, err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// says fails unless what a command said fits the pattern.
func (g *guide) says(said, pattern string) {
	g.Helper()
	if !regexp.MustCompile(pattern).MatchString(said) {
		g.Errorf("%q: nothing like %q in:\n%s", g.title, pattern, said)
	}
}

// TestEveryRunbookIsExecuted: each section of the runbooks is followed by one of the tests in this folder.
func TestEveryRunbookIsExecuted(t *testing.T) {
	raw, err := os.ReadFile(runbooks)
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	files, err := filepath.Glob("runbooks*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tests.Write(text)
	}
	for _, m := range regexp.MustCompile(`(?m)^## (.+)$`).FindAllStringSubmatch(string(raw), -1) {
		if !strings.Contains(tests.String(), `follow(runbooks, "`+m[1]+`"`) {
			t.Errorf("no test follows the runbook %q", m[1])
		}
	}
}
