package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

// hostileName makes names that try to be more than a name.
func hostileName(random *rand.Rand) string {
	pieces := []string{
		"app", " ", "/", ":", "\n", "\r", "\t", "\x00", "\x1b[2J", "\x7f", "\u009b31m", "\u0085", "\u2028", "\u202e", "\u2066", "\u200b", "\ufeff", "\U000e0041",
		`"`, `\`, "\n  mistake LB0101: forged", "\nforged: all is well", "日誌", "%s", "*", "[",
	}
	var b strings.Builder
	for range 1 + random.IntN(6) {
		b.WriteString(pieces[random.IntN(len(pieces))])
	}
	return b.String()
}

// lineOf is how each line of the commands begins.
var lineOf = regexp.MustCompile(`^(kubectl log-bridge: |/.*in\.json: |  (mistake|warning|note) LB\d{4}: |  [a-z0-9-]+:/|    (volume|file|directory): |namespace |not checked: |pods with the sidecar: \d|\d+ with the sidecar, \d|[A-Za-z]+/|MutatingWebhookConfigurations: |probe: )`)

func checkLines(t *testing.T, about string, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		line, ended := strings.CutSuffix(line, "\n")
		if !ended || !utf8.ValidString(line) || strings.ContainsFunc(line, contract.Deceives) || !lineOf.MatchString(line) || strings.HasPrefix(line, "forged") {
			t.Errorf("of %q comes the line %q", about, line)
		}
	}
}

// TestManifestCannotForgeWords: whatever a manifest calls things, what inject and check say are their own lines.
func TestManifestCannotForgeWords(t *testing.T) {
	random := rand.New(rand.NewPCG(2, 2))
	file := filepath.Join(t.TempDir(), "in.json")
	said := 0
	for range 400 {
		name := func() string { return hostileName(random) }
		object := map[string]any{
			"apiVersion": "v1", "kind": "Pod",
			"metadata": map[string]any{"name": name(), "namespace": name(), "annotations": map[string]any{
				"log-bridge.dev/files":          []string{"/var/log/" + name(), name(), "/app/app.log", "app:/app/\u202egol\u009b.log"}[random.IntN(4)],
				"log-bridge.dev/mount":          []string{"auto", name()}[random.IntN(2)],
				"log-bridge.dev/size-limit":     []string{"1Gi", name()}[random.IntN(2)],
				"log-bridge.dev/run-as-user":    []string{"7", name()}[random.IntN(2)],
				"log-bridge.dev/" + name():      name(),
				"log-bridge.dev/memory-request": "1Mi",
			}},
			"spec": map[string]any{
				"containers": []any{map[string]any{"name": []string{"app", name()}[random.IntN(2)], "image": name(), "volumeMounts": []any{
					map[string]any{"name": name(), "mountPath": "/var/log/" + name(), "readOnly": random.IntN(2) == 0, "subPathExpr": name()}}}},
				"volumes": []any{map[string]any{"name": name(), "configMap": map[string]any{"name": name()}}},
			},
		}
		if random.IntN(4) == 0 {
			object["kind"] = name()
		}
		if random.IntN(3) == 0 {
			delete(object["metadata"].(map[string]any)["annotations"].(map[string]any), "log-bridge.dev/mount")
		}
		text, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"check", "-f", file}, {"inject", "-f", file}, {name()}, {"check", name()}, {"inject", "-f", name()}} {
			var stdout, stderr bytes.Buffer
			run(t.Context(), args, strings.NewReader(""), &stdout, &stderr)
			if args[0] == "check" {
				checkLines(t, string(text), stdout.String())
			}
			checkLines(t, string(text), stderr.String())
			said += stdout.Len() + stderr.Len()
		}
	}
	if said < 100_000 {
		t.Errorf("only %d bytes were said", said)
	}
}

// TestClusterCannotForgeWords: whatever a cluster says, what check --cluster and probe say are their own lines.
func TestClusterCannotForgeWords(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 3))
	said := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		words := "\nforged: all is well\x1b[2J\u202e" + hostileName(random)
		write := func(code int, object any) {
			w.WriteHeader(code)
			_ = json.NewEncoder(w).Encode(object)
		}
		status := func(code int, reason string) {
			write(code, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": words})
		}
		waiting := func(name string) any {
			return map[string]any{"name": name, "image": words, "state": map[string]any{"waiting": map[string]any{"reason": []string{"ErrImagePull", words}[random.IntN(2)], "message": words}}}
		}
		switch {
		case r.Method == http.MethodPost:
			status([]int{403, 400, 500, 422}[random.IntN(4)], []string{"Forbidden", "BadRequest", words}[random.IntN(3)])
		case strings.HasSuffix(r.URL.Path, "/pods"):
			write(200, map[string]any{"kind": "List", "apiVersion": "v1", "metadata": map[string]any{}, "items": []any{map[string]any{
				"kind": "Pod", "apiVersion": "v1",
				"metadata": map[string]any{"name": words, "namespace": words, "annotations": map[string]any{"log-bridge.dev/files": "/app/app.log", "log-bridge.dev/" + words: words}},
				"spec":     map[string]any{"nodeName": words, "initContainers": []any{map[string]any{"name": "log-bridge", "restartPolicy": "Always"}}, "containers": []any{map[string]any{"name": words}}},
				"status":   map[string]any{"phase": "Pending", "initContainerStatuses": []any{waiting("log-bridge"), waiting("log-bridge-seed-" + words)}},
			}}})
		default:
			status([]int{403, 500, 404}[random.IntN(3)], []string{"Forbidden", words, "NotFound"}[random.IntN(3)])
		}
	}))
	defer server.Close()
	config := filepath.Join(t.TempDir(), "config")
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: x\nclusters: [{name: x, cluster: {server: %q}}]\ncontexts: [{name: x, context: {cluster: x}}]\n", server.URL)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		for _, args := range [][]string{{"check", "--cluster", "--kubeconfig", config}, {"probe", "--kubeconfig", config, "--timeout", "0s"}} {
			var stdout, stderr bytes.Buffer
			run(t.Context(), args, strings.NewReader(""), &stdout, &stderr)
			checkLines(t, strings.Join(args, " "), stdout.String())
			checkLines(t, strings.Join(args, " "), stderr.String())
			said += stdout.String() + stderr.String()
		}
	}
	if strings.Count(said, `\nforged: all is well\x1b[2J\u202e`) < 20 {
		t.Errorf("what the cluster says is not shown:\n%s", said)
	}
}
