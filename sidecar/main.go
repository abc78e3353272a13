// Command log-bridge is the sidecar: it follows the log files of the other
// containers of its pod and writes their lines to stdout, where kubectl logs finds
// them. By hand it does the same on any Linux machine.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/sidecar/internal/say"
)

// version is set by the linker.
var version = "dev"

const usage = `log-bridge writes the lines of log files to stdout.

Usage:
  log-bridge tail [flags] CONTAINER:PATTERN…   follow the files ROOT/CONTAINER/PATTERN
  log-bridge ready [--state DIR]               wait until tail follows its files
  log-bridge look [flags]                      list the files that another container writes
  log-bridge seed FROM TO [FROM TO]…           copy the files of an image from FROM to TO
  log-bridge status ARGUMENTS                  print what a running tail with these arguments has delivered
  log-bridge version                           print the version

Run log-bridge COMMAND --help for its flags.
`

func main() {
	// The sidecar's own memory is a few hundred KiB. Collecting from 1.6 MiB on (40 % of the
	// runtime's 4) keeps it near that; what idles never gets there, and the collector's own
	// memory is as large.
	debug.SetGCPercent(40)
	debug.SetMemoryLimit(8 << 20)
	words := say.New(os.Stderr, false)
	if err := keepPrivate(); err != nil {
		words.Say("%v", err)
	}
	if err := run(os.Args[1:], os.Stdout, os.Stderr, words); err != nil && !errors.Is(err, flag.ErrHelp) {
		words.Say("%v", err)
		os.Exit(1)
	}
}

func run(args []string, stdout, stderr *os.File, words *say.Sayer) error {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return errors.New("missing command; use tail, ready, look, seed, status or version")
	}
	switch command, args := args[0], args[1:]; command {
	case "tail":
		cfg, err := contract.ParseTail(args, stdout)
		if err != nil {
			return err
		}
		if cfg.Format == contract.JSON {
			words.AsJSON()
		}
		return tail(cfg, stdout, stderr, words)
	case "ready":
		return ready(args, stdout)
	case "look":
		return lookCommand(args, stdout)
	case "seed":
		return seed(args, stdout, words)
	case "status":
		return status(args, stdout)
	case "version", "--version":
		return printVersion(stdout)
	case "help", "--help", "-h":
		_, err := io.WriteString(stdout, usage)
		return err
	default:
		return fmt.Errorf("unknown command %q; use tail, ready, look, seed, status or version", command)
	}
}

func printVersion(w io.Writer) error {
	_, err := fmt.Fprintln(w, "log-bridge", version)
	return err
}
