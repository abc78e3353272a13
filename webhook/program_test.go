package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// builds are programs that were compiled for the tests, by their folder.
var builds struct {
	sync.Mutex
	dir  string
	made map[string]string
}

// compiled is the path of a real program, which is compiled once.
func compiled(t *testing.T, folder string) string {
	t.Helper()
	builds.Lock()
	defer builds.Unlock()
	if path := builds.made[folder]; path != "" {
		return path
	}
	if builds.made == nil {
		dir, err := os.MkdirTemp("", "log-bridge-webhook-")
		if err != nil {
			t.Fatal(err)
		}
		builds.dir, builds.made = dir, map[string]string{}
	}
	path := filepath.Join(builds.dir, fmt.Sprint("program-", len(builds.made)))
	if out, err := exec.Command("go", "build", "-o", path, folder).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	builds.made[folder] = path
	return path
}

// program is the path of the real program.
func program(t *testing.T) string { return compiled(t, ".") }
