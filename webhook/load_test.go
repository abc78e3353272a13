package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/log-bridge/log-bridge/test/helpers/testbed"
)

// memory is what a replica has by the chart's values.
const memory = 128 << 20

// What anybody who reaches the port can do kills no replica in the memory that the chart gives it, and while it goes on, a
// review is decided. Where the machine lets it, the program runs in a cgroup of that memory, as in a container; elsewhere
// the most that it had must be less.
func TestLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("the load is not short")
	}
	dir := t.TempDir()
	certificate(t, dir)
	hook, health, metrics := freePort(t), freePort(t), freePort(t)
	log := filepath.Join(dir, "log")
	out, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	group := newCgroup(t, memory)
	args := []string{program(t), "serve", "--cert-dir", dir, "--port", hook, "--health-port", health, "--metrics-port", metrics,
		"--image", "registry.example/sidecar:7", "--shutdown-delay", "0s", "--memory", "128Mi", "--review-timeout", "5s"}
	if group != "" {
		// It joins before it becomes the program, so that all of its memory counts.
		args = append([]string{"sh", "-c", `echo $$ > "$0/cgroup.procs" && exec "$@"`, group}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			text, _ := os.ReadFile(log)
			t.Logf("its log:\n%.3000s", text)
		}
	})
	until(t, "ready", func() bool { code, _ := get("http://localhost:" + health + "/readyz"); return code == http.StatusOK })

	// decided sends reviews as an API server does, which comes back after a 429, until one is decided. Its
	// connection may be one that was closed for another (0).
	decided := func(when string, body []byte) {
		t.Helper()
		var code int
		var text string
		for end := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
			if code, text = post(hook, body); code != 0 && code != http.StatusTooManyRequests || time.Now().After(end) {
				break
			}
		}
		if code != http.StatusOK || !strings.Contains(text, `"allowed":true`) {
			t.Fatalf("%s: %d %.300s", when, code, text)
		}
	}
	held := func(args ...string) func(*testing.T) func() {
		return func(t *testing.T) func() { return hold(t, "localhost:"+hook, args...) }
	}
	small := reviewOf(t, 1)
	peaks := map[string]int{}
	for _, load := range []struct {
		name string
		put  func(t *testing.T) (end func())
	}{
		{"four pods of 1.9 MB at once, eight times", func(t *testing.T) func() {
			big := reviewOf(t, 1_900_000)
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					for range 8 {
						// 0: on a machine that is slow now, it ran out of its time.
						if code, text := post(hook, big); code != 0 && code != http.StatusTooManyRequests && code != http.StatusOK {
							t.Errorf("%d %.300s", code, text)
						}
					}
				})
			}
			return all.Wait
		}},
		{"15 clients that stall within a body", held("15", "POST /mutate-pods HTTP/1.1\\r\\nHost: x\\r\\nContent-Type: application/json\\r\\nContent-Length: 1900000\\r\\n\\r\\n", "1899999")},
		{"15 clients that stall within the largest body", held("15", "POST /mutate-pods HTTP/1.1\\r\\nHost: x\\r\\nContent-Type: application/json\\r\\nContent-Length: 7340032\\r\\n\\r\\n", "7340031")},
		{"1,000 idle connections", held("1000", "", "0")},
		{"1,000 connections after a request", held("1000", "GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n", "0")},
		{"1,000 clients that stall within the headers", held("1000", "GET / HTTP/1.1\\r\\nHost: x\\r\\nLong: ", "65536")},
	} {
		end := load.put(t)
		decided("beside "+load.name, small)
		end()
		decided("after "+load.name, small)
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("%s: the program ended: %v", load.name, err)
		default:
		}
		peaks[load.name] = peak(t, cmd.Process.Pid) >> 20
	}
	t.Logf("the most memory in MiB, so far: %v; in a cgroup: %v", peaks, group != "")
	if most := peak(t, cmd.Process.Pid); group == "" && most >= memory {
		t.Errorf("it had %d MiB, want less than %d", most>>20, memory>>20)
	}
	_, text := get("http://localhost:" + metrics + "/metrics")
	if !regexp.MustCompile(`log_bridge_reviews_turned_away_total\{reason="slow"\} [1-9]`).MatchString(text) {
		t.Errorf("the clients that stalled are not among the metrics")
	}
}

// hold runs the client of test/helpers/hold until end.
func hold(t *testing.T, address string, args ...string) (end func()) {
	t.Helper()
	_, end = testbed.Beside(t, exec.Command(compiled(t, "../test/helpers/hold"), append([]string{address}, args...)...), 1, nil)
	return end
}

// reviewOf is a review of an annotated pod whose JSON has about size bytes, in many small parts.
func reviewOf(t *testing.T, size int) []byte {
	t.Helper()
	pod := corev1.Pod{}
	pod.Name, pod.Annotations = "p", map[string]string{"log-bridge.dev/files": "/app/app.log"}
	pod.Spec.Containers = []corev1.Container{{Name: "app", Image: "x"}}
	for i := range size / 40 {
		pod.Spec.Containers[0].Env = append(pod.Spec.Containers[0].Env, corev1.EnvVar{Name: fmt.Sprintf("A%07d", i), Value: "value"})
	}
	text, err := json.Marshal(map[string]any{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": map[string]any{
		"uid": "u", "kind": map[string]string{"version": "v1", "kind": "Pod"}, "operation": "CREATE", "object": pod}})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// post sends a review on a connection of its own and returns the answer.
func post(port string, body []byte) (int, string) {
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	resp, err := client.Post("https://localhost:"+port+"/mutate-pods", "application/json", bytes.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not %s", what)
		}
	}
}

// peak is the most memory that a process had, in bytes.
func peak(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// newCgroup makes a cgroup of either version whose processes may have so much memory, or returns "" where the machine
// does not let it. It is removed with the test.
func newCgroup(t *testing.T, bytes int) string {
	t.Helper()
	for parent, files := range map[string][]string{
		"/sys/fs/cgroup/memory": {"memory.limit_in_bytes", "memory.memsw.limit_in_bytes"},
		"/sys/fs/cgroup":        {"memory.max", "memory.swap.max"},
	} {
		group := filepath.Join(parent, "log-bridge-test-"+strconv.Itoa(os.Getpid()))
		if os.Mkdir(group, 0o755) != nil {
			continue
		}
		remove := func() { _ = os.Remove(group) }
		if err := os.WriteFile(filepath.Join(group, files[0]), []byte(strconv.Itoa(bytes)), 0); err != nil {
			remove()
			continue
		}
		// No swap, as the kubelet gives none; a kernel without accounting of swap has no such file.
		swap := bytes
		if files[1] == "memory.swap.max" {
			swap = 0
		}
		if err := os.WriteFile(filepath.Join(group, files[1]), []byte(strconv.Itoa(swap)), 0); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
			t.Log(err)
		}
		t.Cleanup(func() {
			until(t, "rid of the cgroup", func() bool { err := os.Remove(group); return err == nil || errors.Is(err, os.ErrNotExist) })
		})
		return group
	}
	t.Log("no cgroup can be made here, so only the most memory is looked at")
	return ""
}
