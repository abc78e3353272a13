// Command log-bridge-webhook is the admission webhook that gives annotated pods the sidecar that brings their log files to kubectl
// logs.
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
  log-bridge-webhook serve [flags]   run the admission webhook
  kubectl log-bridge probe [flags]   check whether it would inject a pod, as the test of the chart
  log-bridge-webhook version

--help lists the flags of a command. For manifests and clusters, use the plugin: kubectl log-bridge.
`

// Exit codes.
const (
	exitOK      = 0
	exitTrouble = 2
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	command := ""
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	var err error
	switch command {
	case "serve":
		// Only serve has something to finish. A signal ends the others as it ends any
		// program, whatever they read or compute; the second one ends serve so, too.
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
		context.AfterFunc(ctx, stop)
		defer stop()
		err = serve(ctx, args, stdout, stderr)
	case "probe":
		err = probe(ctx, args, stdout)
	case "version":
		_, err = fmt.Fprintln(stdout, version)
	case "help", "-h", "-help", "--help":
		_, err = io.WriteString(stdout, usage)
	case "":
		err = errors.New("no command; use serve, probe or version")
	default:
		err = fmt.Errorf("unknown command %q; use serve, probe or version", command)
	}
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return exitOK
	}
	say(stderr, "log-bridge-webhook: %v", err)
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
		return fmt.Errorf("%s: %q is not a flag; --help lists the flags", fs.Name(), fs.Arg(0))
	}
	return nil
}
