package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

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
					cmd := exec.Command(self(t), args...)
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
