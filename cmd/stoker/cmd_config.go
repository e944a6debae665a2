package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func (c *cli) configCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "config",
		Short:   "Every setting, its value (passwords blotted out) and where it came from",
		Example: "  stoker config\n  STOKER_APP=blog stoker config --json",
		Args:    args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			_, wrong := loadSettings()
			all := describe()
			if err := c.show(all, func(w io.Writer) { printSettings(w, all) }); err != nil {
				return err
			}
			return wrong
		},
	}
}

// printSettings shows each setting as a line that a shell could read, and what it means below.
func printSettings(w io.Writer, all []setting) {
	const indent = "    "
	for _, s := range all {
		fmt.Fprintf(w, "%s=%s\n", s.Name, plain(s.Value))
		help := s.Help
		if s.Source != "default" {
			help += fmt.Sprintf(" (from the %s)", s.Source)
		}
		for _, line := range wrap(help, textWidth(w)-len(indent)) {
			fmt.Fprintln(w, indent+line)
		}
	}
	for _, name := range unknownSettings() {
		fmt.Fprintf(w, "%s is set, and no setting has that name\n", name)
	}
}
