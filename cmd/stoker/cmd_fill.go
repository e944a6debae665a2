package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/tasks"
)

func (c *cli) fillScriptsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "fill-scripts DIR",
		Short: "Write the scripts by which app servers in other languages fill the cache",
		Long: `Writes the Lua scripts of a fill into DIR, for app servers that are not written
in Go: the very ones that this stoker's Go client runs. deploy/fill.md tells
how to use them. Write them anew with each stoker that you install.`,
		Example: "  stoker fill-scripts stoker-scripts",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, a []string) error {
			written, err := writeScripts(a[0])
			if err != nil {
				return err
			}
			return c.show(written, func(w io.Writer) { fmt.Fprintln(w, strings.Join(written, "\n")) })
		},
	}
}

// writeScripts writes each script whole or not at all: app servers may be starting from dir.
func writeScripts(dir string) (paths []string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("write scripts: %w", err)
	}
	scripts := tasks.FillScripts()
	for _, name := range slices.Sorted(maps.Keys(scripts)) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path+".new", []byte(scripts[name]), 0o644); err != nil {
			return nil, fmt.Errorf("write scripts: %w", err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			return nil, fmt.Errorf("write scripts: %w", err)
		}
		paths = append(paths, path)
	}
	return paths, nil
}
