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

	"github.com/log-bridge/log-bridge/webhook/internal/survey"
)

// What check --cluster says of a rule, and of a plan.
func TestSayRule(t *testing.T) {
	many := []string{"a", "b", "c", "d", "e", "f", "g"}
	for _, test := range []struct {
		rule survey.Rule
		plan bool
		want string
	}{
		{survey.Rule{Name: "x"}, false, "rule x: selects no pod"},
		{survey.Rule{Name: "x", Namespaces: many[:1], Selected: 3, With: 2, Restart: 1}, false, "rule x: selects 3 pods in namespace a; 2 run with it, 1 need a restart"},
		{survey.Rule{Name: "x", Namespaces: many, Selected: 9, With: 2, Restart: 3, Misfit: 3, Earlier: 1}, true,
			"rule x: selects 9 pods in namespaces a, b, c, d, e and 2 more; 2 run with it, 3 would change when they are restarted, it does not fit 3, an earlier rule decides about 1"},
		{survey.Rule{Name: "x", Gone: true, With: 2}, false, "rule x: not in the cluster's rules; 2 pods run with it until they are restarted"},
		{survey.Rule{Name: "x", Gone: true, With: 2}, true, "rule x: not in the plan; 2 pods run with it until they are restarted"},
	} {
		var out strings.Builder
		sayRule(&out, test.rule, test.plan)
		if out.String() != test.want+"\n" {
			t.Errorf("have %s\nwant %s", out.String(), test.want)
		}
	}
}

// A plan goes with --cluster and must be without mistakes: the cluster is not asked otherwise.
func TestPlan(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "values.yaml")
	if err := os.WriteFile(file, []byte("rules: [{name: a, annotations: {files: /x.log}}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--plan", file}, exitTrouble, "--plan needs --cluster"},
		{[]string{"--cluster", "--plan", filepath.Join(dir, "none")}, exitTrouble, "no such file"},
		{[]string{"--cluster", "--plan", file, "--kubeconfig", filepath.Join(dir, "none")}, exitProblem, "mistake LB0903: rule a"},
	} {
		var out strings.Builder
		if code := run(t.Context(), append([]string{"check"}, test.args...), strings.NewReader(""), &out, &out); code != test.code || !strings.Contains(out.String(), test.want) {
			t.Errorf("%v: exit code %d, want %d, and %q in\n%s", test.args, code, test.code, test.want, out.String())
		}
	}
}

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

	cmd := exec.Command(self(t), "check", "--cluster")
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
		if line != "log in at https://login.example\n" && !strings.HasPrefix(line, "kubectl log-bridge: ") {
			t.Errorf("a line of somebody else's: %s", line)
		}
	}
	if strings.Contains(stdout.String(), "the server warns") {
		t.Errorf("the API server's warnings are told:\n%s", &stdout)
	}
}
