package main

import (
	"bytes"
	"context"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
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
		"serve.go":                  {"fmt.Fprintln"}, // "ok"
		"words.go":                  {"fmt.Fprintln"},
		"internal/server/server.go": {"log.New"}, // what net/http says, into the log

		"kubectl-log_bridge/main.go":      {"os.Stdout", "os.Stderr", "fmt.Fprintln"},
		"kubectl-log_bridge/offline.go":   {"fmt.Fprint", "fmt.Fprintf"}, // the table of findings
		"kubectl-log_bridge/discover.go":  {"fmt.Fprintln"},              // rows of tables, of contract.Line
		"kubectl-log_bridge/status.go":    {"fmt.Fprintln"},              // the same
		"kubectl-log_bridge/upgrade.go":   {"fmt.Fprintf"},               // a question
		"kubectl-log_bridge/reference.go": {"fmt.Fprint", "fmt.Fprintf", "fmt.Fprintln"},
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
