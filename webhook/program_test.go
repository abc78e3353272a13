package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
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

// Ctrl-C and SIGTERM end a command at once, whether it waits for its input, computes, writes
// to somebody who does not read, or waits for a cluster.
func TestSignals(t *testing.T) {
	var manifest bytes.Buffer
	for i := range 5000 {
		fmt.Fprintf(&manifest, "apiVersion: v1\nkind: Pod\nmetadata: {name: p%d, annotations: {log-bridge.dev/files: /app/app.log}}\nspec: {containers: [{name: app, image: x}]}\n---\n", i)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: \"http://%s\"}}]\ncontexts: [{name: c, context: {cluster: c}}]\ncurrent-context: c\n", silent.Addr())
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"inject -f -", "check -f -", "check --cluster", "probe"} {
		for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			for _, all := range []bool{false, true} {
				args := strings.Fields(command)
				cluster := !strings.HasSuffix(command, "-")
				if cluster && all {
					continue // it has no input
				}
				if cluster {
					args = append(args, "--kubeconfig", kubeconfig)
				}
				t.Run(fmt.Sprintf("%s, %v, input at its end %v", command, signal, all), func(t *testing.T) {
					cmd := exec.Command(program(t), args...)
					stdin, err := cmd.StdinPipe()
					if err != nil {
						t.Fatal(err)
					}
					// Nobody reads this pipe, so it never gets to the end of its work.
					output, unread, err := os.Pipe()
					if err != nil {
						t.Fatal(err)
					}
					defer output.Close()
					defer unread.Close()
					cmd.Stdout = unread
					if err := cmd.Start(); err != nil {
						t.Fatal(err)
					}
					limit := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
					defer limit.Stop()
					if cluster {
						conn, err := silent.Accept()
						if err != nil {
							t.Fatal(err)
						}
						defer conn.Close()
					} else {
						// More than a pipe holds, so it is being read when this returns.
						if _, err := stdin.Write(manifest.Bytes()); err != nil {
							t.Fatal(err)
						}
						if all {
							stdin.Close()
						}
					}
					if err := cmd.Process.Signal(signal); err != nil {
						t.Fatal(err)
					}
					_ = cmd.Wait()
					if state := cmd.ProcessState.Sys().(syscall.WaitStatus); !state.Signaled() || state.Signal() != signal {
						t.Errorf("it ended by %v, want %v", cmd.ProcessState, signal)
					}
				})
			}
		}
	}
}
