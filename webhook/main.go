// Command log-bridge-webhook gives annotated pods the sidecar that brings their log
// files to kubectl logs: as an admission webhook (serve), or on manifests without a
// cluster (inject, check).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker.
var version = "dev"

// image is the sidecar's image where nobody names another.
func image() string { return "ghcr.io/log-bridge/log-bridge:" + version }

const usage = `log-bridge-webhook adds the log-bridge sidecar to annotated pods.

Usage:
  log-bridge-webhook serve  [flags]   answer the API server
  log-bridge-webhook inject -f FILE   print what serve would make of a manifest
  log-bridge-webhook check  -f FILE   explain that, and find mistakes
  log-bridge-webhook version

Each command tells its flags with --help. FILE may be - for standard input.

` + exitCodes

const exitCodes = `Exit codes: 0 all well; 1 a pod would be refused, a sentence says why; 2 wrong
usage, a manifest that cannot be read, or another failure.
`

// Exit codes, part of the interface.
const (
	exitOK = 0
	// exitMistake: the manifest has a mistake that log-bridge refuses.
	exitMistake = 1
	// exitTrouble: wrong usage, unreadable input, or a failure of ours.
	exitTrouble = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// errMistakes is returned after the mistakes were written.
var errMistakes = errors.New("mistakes")

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	command := ""
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	var err error
	switch command {
	case "serve":
		err = serve(ctx, args, stdout, stderr)
	case "inject":
		err = injectCommand(args, stdin, stdout, stderr)
	case "check":
		err = checkCommand(args, stdin, stdout)
	case "version":
		_, err = fmt.Fprintln(stdout, version)
	case "help", "-h", "-help", "--help":
		_, err = io.WriteString(stdout, usage)
	case "":
		err = errors.New("no command; write serve, inject, check or version")
	default:
		err = fmt.Errorf("there is no command %q; write serve, inject, check or version", command)
	}
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.Is(err, errMistakes):
		return exitMistake
	}
	fmt.Fprintln(stderr, "log-bridge-webhook:", err)
	return exitTrouble
}

// parse reads flags; with --help it writes them and returns flag.ErrHelp.
func parse(fs *flag.FlagSet, args []string, help io.Writer) error {
	fs.SetOutput(io.Discard)
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(help, "Flags of log-bridge-webhook %s:\n", fs.Name())
		fs.SetOutput(help)
		fs.PrintDefaults()
		return err
	case err != nil:
		return fmt.Errorf("%s: %w; --help lists the flags", fs.Name(), err)
	case fs.NArg() > 0:
		remedy := "--help lists the flags"
		if fs.NFlag() == 0 && fs.Lookup("f") != nil {
			remedy = "write -f " + fs.Arg(0)
		}
		return fmt.Errorf("%s: %q is no flag; %s", fs.Name(), fs.Arg(0), remedy)
	}
	return nil
}
