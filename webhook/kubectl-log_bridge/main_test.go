package main

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "write what is seen into testdata")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kubectl-log_bridge": func() {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}})
}

// TestScripts drives the program as a person would.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", UpdateScripts: *update, RequireExplicitExec: true, RequireUniqueNames: true})
}

// self is the program: the test's own binary, by its name.
func self(t *testing.T) string {
	t.Helper()
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "kubectl-log_bridge")
	if err := os.Symlink(own, program); err != nil {
		t.Fatal(err)
	}
	return program
}
