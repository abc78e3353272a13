package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// reference prints all commands as Markdown, for docs/kubectl.md.
func (o *options) reference() *cobra.Command {
	return &cobra.Command{
		Use:    "reference",
		Short:  "Print the reference of all commands as Markdown",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			for _, sub := range c.Root().Commands() {
				if sub.IsAvailableCommand() && sub.Name() != "help" && sub.Name() != "completion" {
					describe(o.Out, sub)
				}
			}
			return nil
		},
	}
}

func describe(w io.Writer, c *cobra.Command) {
	fmt.Fprintf(w, "### %s\n\n%s\n\n```\nkubectl log-bridge %s [flags]\n```\n\n", c.Name(), strings.TrimSpace(c.Long), c.Use)
	if c.Example != "" {
		var lines []string
		for line := range strings.Lines(c.Example) {
			lines = append(lines, strings.TrimSpace(line))
		}
		fmt.Fprintf(w, "```sh\n%s\n```\n\n", strings.Join(lines, "\n"))
	}
	fmt.Fprint(w, "| Flag | Meaning |\n|---|---|\n")
	c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		name := "`--" + f.Name
		if f.Shorthand != "" {
			name = "`-" + f.Shorthand + "`, " + name
		}
		if value != "" {
			name += " " + value
		}
		if f.DefValue != "" && f.DefValue != "false" && f.Name != "image" {
			usage += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(w, "| %s` | %s |\n", name, strings.ReplaceAll(usage, "|", `\|`))
	})
	fmt.Fprintln(w)
}
