package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A port gets the very scripts that the Go client runs, and nothing else.
func TestFillScripts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "scripts")
	for range 2 { // again over the former ones
		var out, msg bytes.Buffer
		if code := run(context.Background(), []string{"fill-scripts", dir}, nil, &out, &msg); code != exitDone {
			t.Fatalf("exit code %d: %s", code, msg.String())
		}
		names := strings.Fields(strings.ReplaceAll(out.String(), dir+string(filepath.Separator), ""))
		if got, want := strings.Join(names, " "), "check.lua lease.lua mark.lua release.lua settle.lua"; got != want {
			t.Errorf("wrote %s, want %s", got, want)
		}
		for _, name := range names {
			got, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(filepath.Join("..", "..", "tasks", name))
			if err != nil || string(got) != string(want) {
				t.Errorf("%s differs from the Go client's: %v", name, err)
			}
		}
		if left, _ := os.ReadDir(dir); len(left) != len(names) {
			t.Errorf("%d files, want %d", len(left), len(names))
		}
	}
	var out, msg bytes.Buffer
	if code := run(context.Background(), []string{"fill-scripts", filepath.Join(dir, "mark.lua")}, nil, &out, &msg); code != exitFailed {
		t.Errorf("into a file: exit code %d, %s", code, msg.String())
	}
}
