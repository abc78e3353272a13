// Command nxadm follows one file with github.com/nxadm/tail, as the library's own page shows it: from the
// beginning, by name, lines to stdout.
package main

import (
	"fmt"
	"os"

	"github.com/nxadm/tail"
)

func main() {
	t, err := tail.TailFile(os.Args[1], tail.Config{Follow: true, ReOpen: true, Logger: tail.DiscardingLogger})
	if err != nil {
		fmt.Fprintln(os.Stderr, "nxadm:", err)
		os.Exit(1)
	}
	for line := range t.Lines {
		fmt.Println(line.Text)
	}
}
