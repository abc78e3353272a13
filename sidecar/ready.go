package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"golang.org/x/sys/unix"
)

// announce tells `ready` that the files are created and followed: it locks the state's
// directory for as long as the returned file is open. Unlike a file, a lock ends with the
// process, and takes no disk space.
func announce(state string) (*os.File, error) {
	d, err := os.Open(state)
	if err != nil {
		return nil, fmt.Errorf("signal readiness: %w", err)
	}
	// A ready that asks at this moment holds the lock while it does.
	for end := time.Now().Add(time.Second); ; time.Sleep(time.Millisecond) {
		err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return d, nil
		}
		if err != unix.EWOULDBLOCK || time.Now().After(end) {
			d.Close()
			return nil, fmt.Errorf("lock %s to signal readiness: %w", state, err)
		}
	}
}

// announced says whether a tail holds the lock.
func announced(state string) (bool, error) {
	d, err := os.Open(state)
	if err != nil {
		return false, err
	}
	defer d.Close()
	err = unix.Flock(int(d.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	return err == unix.EWOULDBLOCK, nil
}

// ready waits until tail has created its files and follows the logs. It is the
// sidecar's postStart hook: the next container starts only when it has ended.
func ready(args []string, stdout io.Writer) error {
	fs := flag.NewFlagSet("ready", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	state := fs.String("state", filepath.Join(contract.Root, contract.StateDir), "the --state `DIR` of tail")
	timeout := fs.Duration("timeout", 30*time.Second, "how long to wait")
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(stdout, "Usage: log-bridge ready [flags]\n\nWaits until tail has created its files and follows the logs, then exits 0.\n\nFlags:")
		fs.SetOutput(stdout)
		fs.PrintDefaults()
		return err
	case err != nil:
		return fmt.Errorf("ready: %w; log-bridge ready --help lists the flags", err)
	case fs.NArg() > 0:
		return fmt.Errorf("ready takes no arguments, got %q", fs.Args())
	}
	for end := time.Now().Add(*timeout); ; {
		ok, err := announced(*state)
		if ok {
			return nil
		}
		if time.Now().After(end) {
			why := "no log-bridge tail is using it"
			if err != nil {
				why = err.Error()
			}
			return fmt.Errorf("not ready after %v: state %s: %s; see the log of container %s", *timeout, *state, why, contract.Container)
		}
		// Each start of a pod waits for this; a lock cannot be waited for until it is taken.
		time.Sleep(2 * time.Millisecond)
	}
}
