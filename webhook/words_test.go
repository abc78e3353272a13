package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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
var lineOf = regexp.MustCompile(`^(log-bridge-webhook: |webhook\.test: |/.*in\.json: |  (mistake|warning|note) LB\d{4}: |  [a-z0-9-]+:/|    (volume|file|directory): |namespace |not checked: |pods with the sidecar: \d|\d+ with the sidecar, \d|[A-Za-z]+/|MutatingWebhookConfigurations: |probe: )`)

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

// TestLogIsHarmless: the lines of the webhook's log show nothing but themselves, and mean to a program what they meant.
func TestLogIsHarmless(t *testing.T) {
	random := rand.New(rand.NewPCG(4, 4))
	for range 500 {
		var out bytes.Buffer
		want := hostileName(random)
		slog.New(slog.NewJSONHandler(jsonLines{&out}, nil)).Log(context.Background(), slog.LevelInfo, want, want+"k", want)
		line, _ := strings.CutSuffix(out.String(), "\n")
		if !utf8.ValidString(line) || strings.ContainsFunc(line, contract.Deceives) {
			t.Errorf("of %q comes %q", want, line)
		}
		var have map[string]string
		if err := json.Unmarshal(out.Bytes(), &have); err != nil || have["msg"] != want || have[want+"k"] != want {
			t.Errorf("of %q comes %q: %v", want, line, err)
		}
	}
}

// TestWordsLeaveInOnePlace: sentences leave by say, the log by jsonLines, and nobody else writes for people. Who writes
// is on a list, with what: texts of ours.
func TestWordsLeaveInOnePlace(t *testing.T) {
	allowed := map[string][]string{
		"main.go":                   {"os.Stdout", "os.Stderr", "fmt.Fprint", "fmt.Fprintf", "fmt.Fprintln", "io.WriteString"},
		"offline.go":                {"fmt.Fprint", "fmt.Fprintf"}, // the table of findings
		"serve.go":                  {"fmt.Fprintln"},              // "ok"
		"words.go":                  {"fmt.Fprintln"},
		"internal/server/server.go": {"log.New"}, // what net/http says, into the log
	}
	writers := map[string][]string{
		"fmt": {"Print", "Printf", "Println", "Fprint", "Fprintf", "Fprintln"},
		"os":  {"Stdout", "Stderr"},
		"io":  {"WriteString"},
		"log": {"Print", "Printf", "Println", "Fatal", "Fatalf", "New"}, "slog": {"NewTextHandler"},
	}
	seen := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == "testwebhooks" {
			return fs.SkipDir // webhooks of the tests
		}
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			selector, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := selector.X.(*ast.Ident)
			if !ok || !slices.Contains(writers[pkg.Name], selector.Sel.Name) {
				return true
			}
			seen++
			if word := pkg.Name + "." + selector.Sel.Name; !slices.Contains(allowed[filepath.ToSlash(path)], word) {
				t.Errorf("%s uses %s; sentences leave by say", path, word)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 8 {
		t.Errorf("only %d writers were found", seen)
	}
}
