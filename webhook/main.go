// Command log-bridge-webhook gives annotated pods the sidecar that brings their log
// files to kubectl logs: as an admission webhook (serve), or on manifests without a
// cluster (inject, check). It also finds what is wrong in a cluster (check --cluster,
// probe), and is a plugin of kubectl by the name kubectl-log_bridge.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

// version is set by the linker.
var version = "dev"

// image is the sidecar's image where nobody names another.
func image() string { return "ghcr.io/log-bridge/log-bridge:" + version }

// called is what a person types to call the program.
func called() string {
	if name := strings.TrimSuffix(filepath.Base(os.Args[0]), ".exe"); name == "kubectl-log_bridge" {
		return "kubectl log-bridge"
	}
	return "log-bridge-webhook"
}

// usage, with the program as PROGRAM.
const usage = `PROGRAM adds the log-bridge sidecar to annotated pods.

Usage:
  PROGRAM serve  [flags]     run the admission webhook
  PROGRAM inject -f FILE     print a manifest with the sidecar added
  PROGRAM check  -f FILE     explain how files would be shared, and find mistakes
  PROGRAM check  --cluster   find problems in a cluster; -n and -A as for kubectl
  PROGRAM probe  [flags]     check whether an annotated pod would get the sidecar
  PROGRAM version

--help lists the flags of a command. FILE may be - for standard input.

` + exitCodes

const exitCodes = `Exit codes: 0 no mistake; 1 a mistake, such as a pod that would be refused, with a
message; 2 wrong usage, an unreadable manifest, an unreachable cluster, or another
failure.
`

// Exit codes, part of the interface.
const (
	exitOK = 0
	// exitMistake: the manifest has a mistake that log-bridge refuses, or something in
	// the cluster does not work.
	exitMistake = 1
	// exitTrouble: wrong usage, unreadable input, or a failure of ours.
	exitTrouble = 2
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
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
		// Only serve has something to finish. A signal ends the others as it ends any
		// program, whatever they read or compute; the second one ends serve so, too.
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
		context.AfterFunc(ctx, stop)
		defer stop()
		err = serve(ctx, args, stdout, stderr)
	case "inject":
		err = injectCommand(ctx, args, stdin, stdout, stderr)
	case "check":
		err = checkCommand(ctx, args, stdin, stdout)
	case "probe":
		err = probeCommand(ctx, args, stdout)
	case "version":
		_, err = fmt.Fprintln(stdout, version)
	case "help", "-h", "-help", "--help":
		_, err = io.WriteString(stdout, strings.ReplaceAll(usage, "PROGRAM", called()))
	case "":
		err = errors.New("no command; use serve, inject, check, probe or version")
	default:
		err = fmt.Errorf("unknown command %q; use serve, inject, check, probe or version", command)
	}
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.Is(err, errMistakes):
		return exitMistake
	}
	say(stderr, "%s: %v", called(), err)
	return exitTrouble
}

// parse reads flags; with --help it writes them and returns flag.ErrHelp.
func parse(fs *flag.FlagSet, args []string, help io.Writer) error {
	fs.SetOutput(io.Discard)
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(help, "Flags of %s %s:\n", called(), fs.Name())
		fs.SetOutput(help)
		fs.PrintDefaults()
		if fs.Name() != "serve" {
			fmt.Fprint(help, exitCodes)
		}
		return err
	case err != nil:
		return fmt.Errorf("%s: %w; --help lists the flags", fs.Name(), err)
	case fs.NArg() > 0:
		remedy := "--help lists the flags"
		if fs.NFlag() == 0 && fs.Lookup("f") != nil {
			remedy = "use -f " + fs.Arg(0)
		}
		return fmt.Errorf("%s: %q is not a flag; %s", fs.Name(), fs.Arg(0), remedy)
	}
	return nil
}
