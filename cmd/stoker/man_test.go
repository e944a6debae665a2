package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Every command that is offered has a manual page with its flags, the same however often it is written, and
// each shell its completion.
func TestManualPages(t *testing.T) {
	var written [2]string
	for i := range written {
		dir := t.TempDir()
		var out, msg bytes.Buffer
		if code := run(context.Background(), []string{"man", dir}, nil, &out, &msg); code != exitDone || !strings.Contains(out.String(), " pages in "+dir) {
			t.Fatalf("exit code %d, %s%s", code, out.String(), msg.String())
		}
		everyCommand(func(cmd *cobra.Command) {
			if !cmd.IsAvailableCommand() && cmd.HasParent() {
				return
			}
			page, err := os.ReadFile(filepath.Join(dir, strings.ReplaceAll(cmd.CommandPath(), " ", "-")+".1"))
			if err != nil {
				t.Errorf("%s: %v", cmd.CommandPath(), err)
			}
			written[i] += string(page)
		})
	}
	if written[0] != written[1] || !strings.Contains(written[0], "--salvage") {
		t.Error("the pages differ from one writing to the next, or lack their flags")
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		var out, msg bytes.Buffer
		if code := run(context.Background(), []string{"completion", shell}, nil, &out, &msg); code != exitDone || !strings.Contains(out.String(), "stoker") {
			t.Errorf("completion %s: exit code %d, %s", shell, code, msg.String())
		}
	}
}
