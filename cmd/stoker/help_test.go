package main

import (
	"bytes"
	"context"
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// everyCommand calls do with the root command and all below it.
func everyCommand(do func(*cobra.Command)) {
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		do(cmd)
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit((&cli{}).root())
}

// Every command says what it does, shows how it is called, and explains each flag, within a
// terminal's width.
func TestHelp(t *testing.T) {
	everyCommand(func(cmd *cobra.Command) {
		path := strings.Fields(cmd.CommandPath())
		t.Run(strings.Join(path, " "), func(t *testing.T) {
			if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
				t.Errorf("what it does: %q", cmd.Short)
			}
			for _, example := range strings.Split(cmd.Example, "\n") {
				if !strings.HasPrefix(example, "  ") || !strings.Contains(example, cmd.CommandPath()) {
					t.Errorf("example %q does not show %q", example, cmd.CommandPath())
				}
			}
			cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
				if f.Usage == "" {
					t.Errorf("--%s is not explained", f.Name)
				}
			})
			var out, msg bytes.Buffer
			if code := run(context.Background(), append(path[1:], "--help"), nil, &out, &msg); code != exitDone || msg.Len() > 0 {
				t.Errorf("--help: exit code %d, %s", code, msg.String())
			}
			for line := range strings.Lines(out.String()) {
				if n := utf8.RuneCountInString(line) - 1; n > 110 {
					t.Errorf("a line of %d characters: %s", n, line)
				}
			}
		})
	})
}

// Examples show commands and flags that there are.
func TestExamplesParse(t *testing.T) {
	everyCommand(func(cmd *cobra.Command) {
		for _, example := range strings.Split(cmd.Example, "\n") {
			words := strings.Fields(example[strings.Index(example, "stoker ")+len("stoker "):])
			shown, _, err := cmd.Root().Find(words)
			if err != nil {
				t.Errorf("%s: example %q: %v", cmd.CommandPath(), example, err)
				continue
			}
			for _, word := range words {
				if name, isFlag := strings.CutPrefix(word, "--"); isFlag && shown.Flag(name) == nil {
					t.Errorf("%s: example %q: there is no --%s", cmd.CommandPath(), example, name)
				}
			}
		}
	})
}

var (
	codeBlock  = regexp.MustCompile("(?s)```[a-z]*\n(.*?)```")
	codeInline = regexp.MustCompile("`([^`\n]+(?:\n[^`\n]+)?)`")
	// A command line of stoker's, up to what ends it in a shell.
	commandLine = regexp.MustCompile(`(?:^|\s|&& )stoker ([a-z][^\n|;&#>)…']*)`)
)

// documentedCommands returns the command lines that a document shows, with where the last of a line is
// continued put together.
func documentedCommands(text string) [][]string {
	var shown []string
	for _, m := range codeBlock.FindAllStringSubmatch(text, -1) {
		shown = append(shown, strings.Split(m[1], "\n")...)
	}
	for _, m := range codeInline.FindAllStringSubmatch(codeBlock.ReplaceAllString(text, ""), -1) {
		shown = append(shown, strings.ReplaceAll(m[1], "\n", " "))
	}
	var all [][]string
	for _, line := range shown {
		for _, m := range commandLine.FindAllStringSubmatch(line, -1) {
			all = append(all, strings.Fields(m[1]))
		}
	}
	return all
}

// Documents show commands and flags that there are.
func TestDocumentedCommands(t *testing.T) {
	for _, path := range []string{"../../README.md", "../../deploy/README.md", "../../deploy/runbooks.md", "../../deploy/api.md", "../../deploy/fill.md"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		found := documentedCommands(string(text))
		if strings.Contains(path, "R") && len(found) < 10 {
			t.Errorf("%s: %d commands found: does the pattern still fit?", path, len(found))
		}
		for _, words := range found {
			if words[0] == "demo" || words[0] == "help" {
				continue
			}
			root := (&cli{}).root()
			root.InitDefaultCompletionCmd() // which running it does
			shown, rest, err := root.Find(words)
			if err != nil || !shown.Runnable() || shown.HasSubCommands() && !strings.HasPrefix(words[len(words)-1], "-") && len(rest) == len(words) {
				t.Errorf("%s: `stoker %s`: no such command (%v)", path, strings.Join(words, " "), err)
				continue
			}
			for _, word := range words {
				name, isFlag := strings.CutPrefix(word, "--")
				name, _, _ = strings.Cut(name, "=")
				if isFlag && shown.Flag(name) == nil {
					t.Errorf("%s: `stoker %s`: there is no --%s", path, strings.Join(words, " "), name)
				}
			}
		}
	}
}
