package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/log-bridge/log-bridge/sidecar/internal/look"
)

// lookCommand lists the files that another container writes. `kubectl log-bridge discover` runs it in an ephemeral container.
func lookCommand(args []string, stdout io.Writer) error {
	fs := flag.NewFlagSet("look", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	o := look.Options{Proc: "/proc"}
	fs.StringVar(&o.Container, "container", "", "`ID` of the container, if several share a process namespace (default: that of process 1)")
	fs.Int64Var(&o.Since, "since", 0, "list closed files that changed after this time, in `SECONDS` since 1970")
	fs.DurationVar(&o.Watch, "watch", 5*time.Second, "how long to watch what grows and rotates")
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(stdout, "Usage: log-bridge look [flags]\n\nLists the files that another container writes, as JSON.\n\nFlags:")
		fs.SetOutput(stdout)
		fs.PrintDefaults()
		return err
	case err != nil:
		return fmt.Errorf("look: %w; log-bridge look --help lists the flags", err)
	case fs.NArg() > 0:
		return fmt.Errorf("look takes no arguments, got %q", fs.Args())
	}
	if err := look.Container(o, stdout); err != nil {
		return fmt.Errorf("look: %w", err)
	}
	return nil
}
