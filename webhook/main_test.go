package main

import (
	"context"
	"flag"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "write what is seen into testdata")

func TestMain(m *testing.M) {
	program := func() {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	testscript.Main(cleaning{m}, map[string]func(){"log-bridge-webhook": program, "kubectl-log_bridge": program})
}

// TestScripts drives the program as a person would.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", UpdateScripts: *update, RequireExplicitExec: true, RequireUniqueNames: true})
}

// cleaning removes the compiled programs after the tests.
type cleaning struct{ *testing.M }

func (c cleaning) Run() int {
	defer func() { os.RemoveAll(builds.dir) }()
	return c.M.Run()
}
