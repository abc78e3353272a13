package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What the Kubernetes client's libraries log does not reach the terminal: check says in its own
// words what it could not look at. The program that a kubeconfig names to log in may speak to the
// person.
//
// Each of these makes the libraries log: warnings of the API server, credentials that are refused
// and cannot be renewed, and a kubeconfig that is not there.
func TestLibrariesAreSilent(t *testing.T) {
	refused := 0
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Warning", `299 - "the server warns"`)
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "/deployments") {
			refused++
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":401,"reason":"Unauthorized","message":"Unauthorized"}`)
			return
		}
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":403,"reason":"Forbidden","message":"pods is forbidden: User \"x\" cannot create resource \"pods\""}`)
			return
		}
		fmt.Fprint(w, `{"kind":"List","apiVersion":"v1","metadata":{},"items":[]}`)
	}))
	defer server.Close()

	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	login := write("login", `#!/bin/sh
echo "log in at https://login.example" >&2
[ -e "$0.was" ] && exit 1
touch "$0.was"
echo '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"token":"x"}}'
`)
	kubeconfig := write("kubeconfig", `
apiVersion: v1
kind: Config
current-context: x
contexts: [{name: x, context: {cluster: x, user: x, namespace: shop}}]
clusters: [{name: x, cluster: {server: "`+server.URL+`", insecure-skip-tls-verify: true}}]
users: [{name: x, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: `+login+`, interactiveMode: IfAvailable}}}]
`)

	// The test's own binary is the program, by its name: see TestMain.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "log-bridge-webhook")
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "check", "--cluster")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(dir, "missing")+":"+kubeconfig)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || refused == 0 {
		t.Fatalf("%v, %d calls refused\n%s%s", err, refused, &stdout, &stderr)
	}
	if !strings.Contains(stdout.String(), "not checked: list deployments: ") {
		t.Errorf("it says\n%s", &stdout)
	}
	if !strings.Contains(stderr.String(), "log in at https://login.example\n") {
		t.Errorf("the program that logs in is not heard:\n%s", &stderr)
	}
	for line := range strings.Lines(stderr.String()) {
		if line != "log in at https://login.example\n" && !strings.HasPrefix(line, "log-bridge-webhook: ") {
			t.Errorf("a line of somebody else's: %s", line)
		}
	}
	if strings.Contains(stdout.String(), "the server warns") {
		t.Errorf("the API server's warnings are told:\n%s", &stdout)
	}
}
