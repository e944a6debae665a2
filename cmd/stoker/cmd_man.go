package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/alphanode/stoker/tasks"
)

func (c *cli) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages into a directory",
		Long: `Write a manual page for each command into a directory, such as /usr/local/share/man/man1.
Shell completion is written by: stoker completion bash (or zsh, fish, powershell)`,
		Example: "  stoker man /usr/local/share/man/man1",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			if info, err := os.Stat(a[0]); err != nil || !info.IsDir() {
				return fmt.Errorf("%w: %q is no directory: make it first", tasks.ErrInvalid, a[0])
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true // which would name today
			header := &doc.GenManHeader{Title: "STOKER", Section: "1", Source: "stoker " + version, Manual: "stoker"}
			if err := doc.GenManTree(root, header, a[0]); err != nil {
				return fmt.Errorf("write manual pages: %w", err)
			}
			pages, err := filepath.Glob(filepath.Join(a[0], "stoker*.1"))
			if err != nil {
				return err
			}
			return c.show(map[string]any{"dir": a[0], "pages": len(pages)}, func(w io.Writer) { fmt.Fprintf(w, "%d pages in %s\n", len(pages), a[0]) })
		},
	}
}
